"""Float convolutions against lax's own: outputs and gradients, by every algorithm and as the platform chooses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

import nncompress_jax as nnc
from nncompress_jax.ops import conv
from nncompress_jax.ops.conv import Window
from tests.ops.test_integer import convolutions


def outputs_and_gradients(function, images, kernel, window):
    outputs, pull = jax.vjp(lambda images, kernel: function(images, kernel, window), images, kernel)
    return outputs, *pull(jnp.cos(jnp.arange(outputs.size, dtype=outputs.dtype)).reshape(outputs.shape))


def check(case, algorithms):
    images, kernel, window = case
    images, kernel = (jnp.asarray(codes, jnp.float32) / 100 for codes in (images, kernel))
    expected = outputs_and_gradients(conv.native, images, kernel, window)
    for algorithm in algorithms if expected[0].size else algorithms[:1]:
        for got, wanted in zip(outputs_and_gradients(algorithm, images, kernel, window), expected, strict=True):
            size = float(jnp.abs(wanted).max()) if wanted.size else 0.0
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * size, err_msg=str(algorithm))


@settings(max_examples=15, deadline=None)
@given(convolutions())
def test_convolution(case):
    check(case, [conv.convolution, conv.patches])


@settings(max_examples=15, deadline=None)
@given(convolutions(depthwise=True))
def test_depthwise_convolution(case):
    check(case, [conv.convolution, conv.shifts])


@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_keeps_its_type(dtype, groups):
    window = Window((1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1), groups)
    images, kernel = jnp.ones((2, 2, 2, 8), dtype), jnp.ones((3, 3, 8 // groups, 8), dtype)
    outputs = conv.convolution(images, kernel, window)
    assert outputs.dtype == dtype
    np.testing.assert_array_equal(outputs, np.full((2, 2, 2, 8), 32 // groups))
    assert conv.convolution(images, kernel, window, None, jnp.float32).dtype == jnp.float32


def test_a_fast_network_is_the_same_network():
    network = nnc.models.create("vgg16ds_stride", initialization="seed")
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    variables = jax.jit(network.init)(jax.random.key(1), images)
    fast = nnc.inject(network.apply, fast=True)
    np.testing.assert_allclose(
        jax.jit(fast)(variables, images), jax.jit(network.apply)(variables, images), rtol=1e-4, atol=1e-5
    )
    assert nnc.cost(fast, variables, images) == nnc.cost(network.apply, variables, images)
    text = jax.jit(fast).lower(variables, images).as_text()
    assert "@shifts" in text
    assert "feature_group_count = 64" not in text
