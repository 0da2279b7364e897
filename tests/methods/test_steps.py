"""Steps that are given, or found for a rate: the codes are those of numpy, and their entropy what was asked for."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nncompress_jax as nnc
from nncompress_jax.methods.steps import Clipped
from nncompress_jax.weights.base import dense, is_compressed
from tests.methods.drawn import draw

TREE = {"a": {"kernel": draw(3, 3, 8, 16), "bias": jnp.ones(16)}, "b": {"kernel": 3 * draw(32, 12, seed=1)}}


def small(**options):
    return nnc.compress(TREE, nnc.quantize(**options))


def entropy(codes):
    """Of the zeroth order, in bits for each code."""
    shares = np.array([np.mean(np.asarray(codes) == code) for code in np.unique(codes)])
    return -(shares * np.log2(shares)).sum()


def rounded(kernel, step):
    return np.clip(np.rint(np.asarray(kernel) / np.float32(step)), -127, 127)


def test_one_step_for_all():
    for name, leaf in small(step=0.25).items():
        np.testing.assert_array_equal(leaf["kernel"].codes, rounded(TREE[name]["kernel"], 0.25))
        assert (leaf["kernel"].scale.shape, leaf["kernel"].scale.item()) == ((1,) * leaf["kernel"].ndim, 0.25)
        assert leaf["kernel"].integer


def test_steps_by_path_choose_the_leaves():
    one = small(step={"b/kernel": 0.5})
    assert one["a"]["kernel"] is TREE["a"]["kernel"]
    np.testing.assert_array_equal(one["b"]["kernel"].codes, rounded(TREE["b"]["kernel"], 0.5))
    sparse = nnc.compress(TREE, nnc.chain(nnc.prune(sparsity=0.5), nnc.quantize(step={"b/kernel": 0.5})))
    values = sparse["b"]["kernel"].values
    larger = np.sort(np.abs(TREE["b"]["kernel"]).ravel())[32 * 6 :]  # the other half is gone
    np.testing.assert_array_equal(np.sort(np.abs(values.codes)), rounded(larger, 0.5))
    assert not is_compressed(sparse["a"]["kernel"].values)


def test_steps_by_a_function():
    """Of arrays, too: one for each output channel."""

    def step(path, leaf):
        return jnp.std(leaf, axis=0, keepdims=True) / 2 if path == "b/kernel" else 0.5

    made = small(step=step)
    steps = np.asarray(TREE["b"]["kernel"]).std(0, keepdims=True) / 2
    np.testing.assert_array_equal(made["b"]["kernel"].codes, rounded(TREE["b"]["kernel"], steps))
    assert made["b"]["kernel"].scale.shape == (1, 12)
    assert made["a"]["kernel"].scale.item() == 0.5


def test_few_bits_are_packed():
    with pytest.warns(Clipped, match=r"weights clipped to 3 steps: a/kernel \(\d+\), b/kernel"):
        made = small(step=0.25, bits=3)
    codes = np.clip(rounded(TREE["b"]["kernel"], 0.25), -3, 3)
    np.testing.assert_array_equal(dense(made["b"]["kernel"].codes), codes)
    assert made["b"]["kernel"].codes.nbytes == 32 * 5


def test_what_is_clipped_is_counted_in_one_line():
    kernel = jnp.array([[-128.0, 127.4, 3.0], [127.6, 5.2, 400.0]])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = nnc.compress({"kernel": kernel}, nnc.quantize(step=1))
    (warning,) = caught
    assert str(warning.message) == "3 weights clipped to 127 steps: kernel (3); larger steps would reach them"
    assert made["kernel"].codes.tolist() == [[-127, 127, 3], [127, 5, 127]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nnc.compress({"kernel": kernel}, nnc.quantize(step=4))


@settings(max_examples=15, deadline=None)
@given(st.floats(0.05, 6), st.integers(0, 99), st.sampled_from(["normal", "laplace"]))
def test_the_entropy_is_what_was_asked_for(rate, seed, kind):
    kernel = getattr(np.random.default_rng(seed), kind)(size=(32, 48)).astype(np.float32)
    weight = nnc.compress({"kernel": jnp.asarray(kernel)}, nnc.quantize(rate=rate))["kernel"]
    step = weight.scale.item()
    assert (np.abs(kernel - step * np.asarray(weight.codes)) <= 0.50001 * step).all()
    assert rate - 0.05 < entropy(weight.codes) <= rate
    assert np.abs(kernel).max() <= 127.51 * step  # nothing is clipped


def test_a_rate_for_each_weight():
    made = small(rate=1.5)
    found = [entropy(made[name]["kernel"].codes) for name in "ab"]
    assert all(1.4 < rate <= 1.5 for rate in found)
    step_a, step_b = (made[name]["kernel"].scale.item() for name in "ab")
    assert 2.5 < step_b / step_a < 3.5


def test_rates_that_nothing_reaches():
    """More than 8 bits hold: those are taken; nothing but zeros: any step; one magnitude: none below its one bit."""
    flat = jnp.linspace(-1, 1, 4096).reshape(64, 64)
    assert nnc.compress({"kernel": flat}, nnc.quantize(rate=8))["kernel"].codes.max() == 127
    zeros = nnc.compress({"kernel": jnp.zeros((4, 4))}, nnc.quantize(rate=1))["kernel"]
    assert (dense(zeros).tolist(), zeros.scale.item()) == ([[0.0] * 4] * 4, 1)
    signs = jnp.where(draw(32, 32) > 0, 1.0, -1.0)
    assert not dense(nnc.compress({"kernel": signs}, nnc.quantize(rate=0.5))["kernel"]).any()


def test_in_words():
    for text, options in (("rate:1.5", {"rate": 1.5}), ("step:0.25", {"step": 0.25})):
        leaves = (jax.tree.leaves(tree) for tree in (nnc.compress(TREE, nnc.recipe(text)), small(**options)))
        for one, other in zip(*leaves, strict=True):
            np.testing.assert_array_equal(one, other)


def test_products_run_on_integers():
    x = draw(5, 32, seed=2)
    apply = lambda v, x: x @ v["b"]["kernel"]  # noqa: E731
    made = nnc.compress(TREE, nnc.quantize(step=0.25), apply=apply, batches=[x])
    assert [row.types for row in nnc.int8_report(apply, made, x).rows] == ["int8 x int8 -> int32"]


def test_under_jit():
    made = jax.jit(lambda tree: nnc.compress(tree, nnc.quantize(step=0.25)))(TREE)
    np.testing.assert_array_equal(made["b"]["kernel"].codes, rounded(TREE["b"]["kernel"], 0.25))
    with pytest.raises(nnc.InputError, match="compress outside of jax.jit"):
        jax.jit(lambda tree: nnc.compress(tree, nnc.quantize(rate=1)))(TREE)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"step": 0.1, "rate": 1}, "expected one of them"),
        ({"step": 0}, "step=0: expected a number above zero"),
        ({"step": -1.0}, "step=-1.0: expected a number above zero"),
        ({"step": float("nan")}, "step=nan"),
        ({"step": "fine"}, "step=fine"),
        ({"rate": 0}, "rate=0: expected bits for each weight, more than 0 and at most 8"),
        ({"rate": 9}, "rate=9"),
        ({"step": 0.1, "axes": ()}, "axes with step=; leave one of them out"),
        ({"rate": 1, "group": 4, "symmetric": False}, "group, symmetric=False with rate="),
        (
            {"step": {"c/kernel": 1, "d": 2, "a/kernel": 1}},
            "step= for c/kernel, d, which are not there; expected",
        ),
        ({"step": {"a/kernel": 1}, "where": "*kernel"}, "b/kernel: no step for it"),
        (
            {"step": {"a/kernel": 0, "b/kernel": jnp.ones((2, 2))}},
            "a/kernel: step 0; expected more than zero, b/kernel:",
        ),
        (
            {"step": lambda path, leaf: jnp.ones(12)},
            "b/kernel: steps [12] for [32, 12]; expected a number",
        ),
    ],
)
def test_refusals(options, words):
    with pytest.raises(nnc.InputError) as error:
        small(**options)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
