"""Max pooling against lax's own: outputs and gradients, with ties, over sizes, strides and paddings."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nncompress_jax as nnc
from nncompress_jax.ops.pooling import MOST_TAPS, max_pooling
from nncompress_jax.ops.windows import Window
from tests.quick import QUICK


@st.composite
def poolings(draw):
    """Whole numbers from 0 to 3, so that windows have ties, and a window over both middle axes."""
    generator = np.random.default_rng(draw(st.integers(0, 2**31)))
    x = generator.integers(0, 4, (2, draw(st.integers(1, 7)), draw(st.integers(1, 7)), 3))
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    sizes, strides = (1, *draw(pair), 1), (1, *draw(pair), 1)
    edges = st.tuples(st.integers(0, 2), st.integers(0, 2))
    padding = ((0, 0), draw(edges), draw(edges), (0, 0))
    return x, sizes, Window(strides, padding, (1,) * 4, (1,) * 4)


def native(x, sizes, window):
    return jax.lax.reduce_window(
        x,
        -jnp.inf,
        jax.lax.max,
        sizes,
        window.strides,
        window.padding,
    )


@settings(max_examples=12, deadline=None)
@given(poolings(), st.sampled_from([jnp.float32, jnp.bfloat16]))
def test_outputs_and_gradients(case, dtype):
    x, sizes, window = case

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(x):
        results = []
        for pooling in (max_pooling, native):
            outputs, pull = jax.vjp(lambda x, pooling=pooling: pooling(x, sizes, window), x)
            cotangent = jnp.arange(1, outputs.size + 1, dtype=dtype).reshape(outputs.shape) % 8
            _, tangent = jax.jvp(lambda x, pooling=pooling: pooling(x, sizes, window), (x,), (jnp.cos(x),))
            results.append((outputs, *pull(cotangent), tangent))
        return results

    (outputs, gradient, tangent), (expected, expected_gradient, wanted) = run(jnp.asarray(x, dtype))
    np.testing.assert_array_equal(tangent, wanted)
    np.testing.assert_array_equal(outputs, expected)
    assert outputs.dtype == dtype
    np.testing.assert_array_equal(gradient, expected_gradient)


def pooled(size):
    return lambda variables, x: nn.max_pool(x * variables, (size, size), (size, size))


@pytest.mark.parametrize(("size", "replaced"), [(2, True), (5, False)])
def test_a_small_window_is_replaced_in_an_unedited_function(size, replaced):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 10, 10, 3)), jnp.float32)
    assert (size**2 <= MOST_TAPS) == replaced
    fast = nnc.inject(pooled(size), fast=True)
    text = jax.jit(fast).lower(jnp.float32(2), x).as_text()
    assert ("reduce_window" not in text) == replaced
    np.testing.assert_array_equal(fast(jnp.float32(2), x), pooled(size)(jnp.float32(2), x))


def test_other_platforms_keep_their_own():
    x = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    window = Window((1, 2, 2, 1), ((0, 0),) * 4, (1,) * 4, (1,) * 4)
    traced = jax.jit(lambda x: jax.grad(lambda x: max_pooling(x, (1, 2, 2, 1), window).sum())(x)).trace(x)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "select_and_scatter" in text
