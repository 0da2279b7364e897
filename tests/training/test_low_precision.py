"""Weights, gradients and errors of few bits while a network trains: the rounding in NumPy, what the papers found."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.datasets
from flax import linen as nn

import nncompress_jax as nnc
from tests.methods.drawn import draw


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_errors_are_rounded(bits, dtype):
    """Those that come back to a product: half of the largest to the largest power of two is the last place."""
    x, weights, error = (draw(*shape, seed=n).astype(dtype) for n, shape in enumerate([(6, 5), (5, 4), (6, 4)]))

    def gradients(error_bits):
        run = nnc.inject(lambda weights, x: x @ weights["kernel"], error_bits=error_bits)
        return jax.grad(lambda weights, x: (run(weights, x) * error).sum(), (0, 1))({"kernel": weights}, x)

    wide = np.asarray(error, np.float64)
    step = 2.0 ** np.ceil(np.log2(abs(wide).max())) / 2 ** (bits - 1)
    rounded = np.clip(np.rint(wide / step), 1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1) * step
    by_weights, by_x = gradients(bits)
    tolerance = 1e-5 if dtype == "float32" else 0.05
    np.testing.assert_allclose(np.float64(by_weights["kernel"]), np.float64(x).T @ rounded, tolerance, tolerance)
    np.testing.assert_allclose(np.float64(by_x), rounded @ np.float64(weights).T, tolerance, tolerance)
    assert (gradients(24)[1] != by_x).any()


def test_errors_are_rounded_inside_of_loops_and_of_compressed_weights():
    """In a scan and under jit, and the outputs stay what they are."""
    variables = nnc.compress({"kernel": draw(8, 8) / 3}, nnc.fake_quantize(bits=4, where="*"))
    x = draw(4, 8, seed=1)

    def apply(variables, x):
        step = jax.jit(lambda x, _: (jnp.tanh(x @ variables["kernel"]), None))
        return jax.lax.scan(step, x, None, length=3)[0]

    run = nnc.inject(apply, error_bits=2)
    np.testing.assert_array_equal(run(variables, x), nnc.inject(apply)(variables, x))
    rounded, exact = (
        nnc.grad(lambda v, one=one: (one(v, x) ** 2).sum())(variables)["kernel"].weight
        for one in (run, nnc.inject(apply))
    )
    assert (rounded != exact).mean() > 0.9
    assert np.corrcoef(np.ravel(rounded), np.ravel(exact))[0, 1] > 0.8


def test_updates_are_rounded_by_chance():
    """Weights lie on the grid, and on average move by what the optimizer says."""
    weights = {"kernel": jnp.full((100, 100), 0.5).at[0, 0].set(1.9), "bias": jnp.full(3, 0.3)}
    gradients = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01), weights)
    tx = optax.chain(optax.sgd(1.0), nnc.stochastic_rounding(4, jax.random.key(0)))
    state = tx.init(weights)
    for _ in range(20):
        updates, state = tx.update(gradients, state, weights)
        weights = optax.apply_updates(weights, updates)
        assert (weights["kernel"] % 0.25 == 0).all()  # 2 over 8
    others = np.asarray(weights["kernel"]).ravel()[1:]
    assert abs(others.mean() - 0.3) < 5 * others.std() / 100
    assert others.std() > 0.1
    np.testing.assert_allclose(weights["bias"], 0.3 - 0.2, rtol=1e-5)


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(nn.relu(nn.Dense(64)(x)))


def accuracy(transformation, method=None, error_bits=None):
    """On half of scikit-learn's digits, after training on the others."""
    digits = sklearn.datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x, y = jnp.asarray(digits.data[order] / 16 - 0.3, jnp.float32), jnp.asarray(digits.target[order])
    network = Network()
    variables = network.init(jax.random.key(0), x)
    if method:
        variables = nnc.compress(variables, method)
    run, tx = nnc.inject(network.apply, error_bits=error_bits), nnc.optimizer(transformation)

    def loss(variables, rows):
        return optax.softmax_cross_entropy_with_integer_labels(run(variables, x[rows]), y[rows]).mean()

    @jax.jit
    def step(variables, state, rows):
        updates, state = tx.update(nnc.grad(loss)(variables, rows), state, variables)
        return optax.apply_updates(variables, updates), state

    state = tx.init(variables)
    for rows in np.random.default_rng(1).integers(0, 900, (600, 64)):
        variables, state = step(variables, state, rows)
    return float((run(variables, x[900:]).argmax(-1) == y[900:]).mean())


def test_a_network_trains_with_few_bits_throughout():
    """As WAGE: weights of 2 bits in use and 8 in training, inputs, errors of 8 bits; the same in floats beside it."""
    method = nnc.fake_quantize(bits=2, learned_scales=True)
    few = optax.chain(optax.sgd(0.1), nnc.stochastic_rounding(8, jax.random.key(1)))
    wide, narrow = accuracy(optax.sgd(0.1), method), accuracy(few, method, error_bits=8)
    assert wide > 0.9
    assert narrow > wide - 0.02


def test_rounding_to_nearest_does_not_move():
    """What Gupta et al. found: with updates of less than half a step nothing is learned, unless by chance."""

    def to_nearest(bits):
        def update(updates, state, params):
            def rounded(update, weight):
                step = 2.0 ** jnp.ceil(jnp.log2(jnp.abs(weight).max())) / 2 ** (bits - 1)
                return jnp.round((weight + update) / step) * step - weight if jnp.ndim(weight) > 1 else update

            return jax.tree.map(rounded, updates, params), state

        return optax.GradientTransformation(lambda _: (), update)

    nearest = accuracy(optax.chain(optax.sgd(0.02), to_nearest(6)))
    by_chance = accuracy(optax.chain(optax.sgd(0.02), nnc.stochastic_rounding(6, jax.random.key(1))))
    assert by_chance > nearest + 0.05
    assert by_chance > accuracy(optax.sgd(0.02)) - 0.05


@pytest.mark.parametrize("bits", [1, 25, 8.0, None])
def test_refusals(bits):
    with pytest.raises(nnc.InputError, match=f"bits={bits}: expected a whole number from 2 to 24"):
        nnc.stochastic_rounding(bits, jax.random.key(0))
    if bits is not None:
        with pytest.raises(nnc.InputError, match=f"error_bits={bits}: expected a whole number from 2 to 24, or None"):
            nnc.inject(lambda x: x, error_bits=bits)
    tx = nnc.stochastic_rounding(8, jax.random.key(0))
    with pytest.raises(nnc.InputError, match="stochastic_rounding needs the parameters"):
        tx.update(jnp.ones(3), tx.init(jnp.ones(3)))
