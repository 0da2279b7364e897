"""The original's formulas, against reference vectors of the original code and their own properties."""

import flax.linen as nn
import hypothesis
import hypothesis.extra.numpy
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies

import nncompress_jax as nnc
from nncompress_jax.methods import minmax
from tests.conftest import GOLDEN

FORMULAS = {"minmax": minmax.minmax, "adjusted": minmax.minmax_adjusted}
ARRAYS = hypothesis.extra.numpy.arrays(
    np.float32, strategies.sampled_from([(1,), (7,), (3, 4)]), elements=strategies.floats(-100, 100, width=32)
)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("jitted", [False, True])
def test_golden_vectors(formula, bits, jitted):
    golden = np.load(GOLDEN / "fake_quant.npz")
    quantize = jax.jit(FORMULAS[formula], static_argnums=1) if jitted else FORMULAS[formula]
    for i in range(5):
        x, expected = golden[f"x{i}"], golden[f"x{i}_{formula}_{bits}"]
        error = np.abs(quantize(jnp.asarray(x), bits) - expected) / (x.max() - x.min())
        assert np.mean(error > 1e-6) <= 0.001
        assert error.max() <= 1 / (2**bits - 1) + 1e-6


@pytest.mark.parametrize("formula", FORMULAS)
@hypothesis.given(x=ARRAYS, bits=strategies.integers(2, 16))
@hypothesis.settings(max_examples=50, deadline=None)
def test_few_values_all_of_them_near(formula, x, bits):
    quantized = np.asarray(FORMULAS[formula](jnp.asarray(x), bits))
    spread = float(x.max()) - float(x.min())
    assert quantized.shape == x.shape
    assert quantized.dtype == x.dtype
    assert len(np.unique(quantized)) <= 2**bits
    rounding = 1e-5 * np.abs(x).max()
    # Of the shifted grid the whole of a step, of the other half of one.
    assert np.abs(quantized - x).max() <= spread / (2**bits - 1) + rounding


@pytest.mark.parametrize("formula", FORMULAS.values())
def test_a_constant_comes_back(formula):
    for x in (jnp.full(3, 0.3), jnp.array([1.2e-38, 0.0]), jnp.zeros(2)):
        assert formula(x, 3).tolist() == pytest.approx(x.tolist(), abs=1e-37)


@pytest.mark.parametrize("bits", [0, 17, -1])
@pytest.mark.parametrize("formula", [*FORMULAS.values(), lambda _, bits: minmax.simulate(max, bits)])
def test_other_bits(formula, bits):
    with pytest.raises(nnc.InputError, match=f"bits={bits}: expected 1 to 16"):
        formula(jnp.ones(2), bits)


@pytest.mark.parametrize("formula", FORMULAS.values())
def test_numpy_arrays_are_taken_and_integers_refused(formula):
    assert formula(np.zeros(3, np.float32), 8).tolist() == [0, 0, 0]
    with pytest.raises(nnc.InputError, match="x is int32, expected floating point; convert it first"):
        formula(jnp.arange(3), 8)


def test_variables_every_float_leaf_and_no_other():
    variables = {
        "params": {"kernel": jax.random.normal(jax.random.key(0), (3, 3, 2, 4)), "scale": jnp.array([0.1, 0.2, 0.9])},
        "batch_stats": {"var": jnp.array([1.0, 2.0, 9.0])},
        "counters": {"step": jnp.arange(5)},
    }
    quantized = minmax.quantize_variables(variables, 2)
    assert jax.tree.structure(quantized) == jax.tree.structure(variables)
    assert quantized["counters"]["step"].tolist() == [0, 1, 2, 3, 4]
    for before, after in zip(jax.tree.leaves(variables), jax.tree.leaves(quantized), strict=True):
        if before.dtype == jnp.float32:
            assert after.tolist() == minmax.minmax_adjusted(before, 2).tolist()


class Mixed(nn.Module):
    """One layer of each kind, a submodule, and operations between them that are left alone."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(5, (3, 3))(x))
        x = nn.BatchNorm(use_running_average=True)(x) + 0.1
        return nn.Dense(3)(nn.LayerNorm()(x).mean((1, 2)))


def test_simulation_quantizes_layer_outputs_and_nothing_else():
    network, x = Mixed(), jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    variables = network.init(jax.random.key(1), x)
    outputs = jax.jit(minmax.simulate(network.apply, 3))(variables, x)
    assert len(np.unique(outputs)) <= 6
    conv = nn.Conv(5, (3, 3)).apply({"params": variables["params"]["Conv_0"]}, x)
    inputs = nn.relu(minmax.minmax(conv, 3))
    statistics = {name: tree["BatchNorm_0"] for name, tree in variables.items()}
    norm = minmax.minmax(nn.BatchNorm(use_running_average=True).apply(statistics, inputs), 3) + 0.1
    layer = nn.LayerNorm().apply({"params": variables["params"]["LayerNorm_0"]}, norm).mean((1, 2))
    expected = minmax.minmax(nn.Dense(3).apply({"params": variables["params"]["Dense_0"]}, layer), 3)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


def test_the_simulation_leaves_apply_as_it_was():
    dense, x = nn.Dense(3), jnp.ones((1, 2))
    variables = dense.init(jax.random.key(0), x)
    before = dense.apply(variables, x)
    minmax.simulate(dense.apply, 1)(variables, x)
    assert dense.apply(variables, x).tolist() == before.tolist()
