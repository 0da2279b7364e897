"""Float convolutions against lax's own: outputs and gradients, by every algorithm and as the platform chooses."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

import nncompress_jax as nnc
from nncompress_jax.ops import algorithms, conv, gradients, integer
from nncompress_jax.ops.windows import Window
from tests.ops.test_integer import convolutions
from tests.quick import QUICK


@pytest.fixture
def small_blocks(monkeypatch):
    """Even the smallest batch is cut."""
    monkeypatch.setattr(algorithms, "BLOCK_BYTES", 1)
    jax.clear_caches()
    yield
    jax.clear_caches()


@functools.partial(jax.jit, static_argnums=(0, 3), compiler_options=QUICK)
def outputs_and_gradients(function, images, kernel, window):
    outputs, pull = jax.vjp(lambda images, kernel: function(images, kernel, window), images, kernel)
    return outputs, *pull(jnp.cos(jnp.arange(outputs.size, dtype=outputs.dtype)).reshape(outputs.shape))


def check(case, forms):
    images, kernel, window = case
    images, kernel = (np.asarray(codes, np.float32) / 100 for codes in (images, kernel))
    expected = outputs_and_gradients(algorithms.native, images, kernel, window)
    for algorithm in forms if expected[0].size else forms[:1]:
        for got, wanted in zip(outputs_and_gradients(algorithm, images, kernel, window), expected, strict=True):
            size = float(np.abs(wanted).max(initial=0))
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * size, err_msg=str(algorithm))


def check_kernel_gradients(case, names):
    images, kernel, window = case
    images, kernel = (jnp.asarray(codes, jnp.float32) / 100 for codes in (images, kernel))
    outputs, pull = jax.vjp(lambda kernel: algorithms.native(images, kernel, window), kernel)
    if outputs.size:
        cotangent = jnp.cos(jnp.arange(outputs.size, dtype=outputs.dtype)).reshape(outputs.shape)
        (wanted,) = pull(cotangent)
        for name in names:
            got = gradients.KERNEL_GRADIENTS[name](images, kernel, cotangent, window)
            size = float(jnp.abs(wanted).max())
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * size, err_msg=name)


@settings(max_examples=15, deadline=None)
@given(convolutions())
def test_convolution(case):
    check(case, [conv.convolution, algorithms.patches])
    check_kernel_gradients(case, ["native", "patches", "patches in blocks"])


@settings(max_examples=15, deadline=None)
@given(convolutions(depthwise=True))
def test_depthwise_convolution(case):
    check(case, [conv.convolution, algorithms.shifts])
    check_kernel_gradients(case, ["native", "shifts", "shifts in blocks"])


@pytest.mark.parametrize(
    ("inputs", "outputs", "groups", "stride", "dilation", "dtype"),
    [
        (3, 8, 1, 1, 1, jnp.float32),
        (8, 8, 1, 2, 1, jnp.bfloat16),
        (8, 8, 2, 1, 2, jnp.float32),
        (8, 8, 8, 1, 1, jnp.bfloat16),
        (8, 8, 8, 3, 2, jnp.float32),
        (4, 8, 4, 2, 1, jnp.float32),
    ],
)
def test_blocks_of_examples(small_blocks, inputs, outputs, groups, stride, dilation, dtype):
    """Where only one device computes, the examples go through in blocks: outputs and gradients as ever."""
    random = np.random.default_rng(0)
    images = jnp.asarray(random.normal(size=(6, 7, 5, inputs)), dtype)
    kernel = jnp.asarray(random.normal(size=(3, 3, inputs // groups, outputs)), dtype)
    window = Window((stride, 1), ((2, 1), (1, 1)), (1, 1), (dilation, 1), groups)
    assert algorithms.examples_at_a_time(images, kernel, images) < 6
    own = "shifts in blocks" if groups == inputs > 1 else "patches in blocks"
    wanted, pull = jax.vjp(lambda x, k: algorithms.native(x, k, window), images, kernel)
    cotangent = jnp.asarray(random.normal(size=wanted.shape), dtype)
    got = algorithms.patches(images, kernel, window, blocks=True)
    pulled = jax.vjp(lambda x, k: conv.convolution(x, k, window), images, kernel)[1](cotangent)
    in_blocks = gradients.KERNEL_GRADIENTS[own](images, kernel, cotangent, window)
    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    expected = (wanted, *pull(cotangent), pull(cotangent)[1])
    for ours, theirs in zip((got, *pulled, in_blocks), expected, strict=True):
        assert ours.dtype == dtype
        scale = float(jnp.abs(theirs).max())
        np.testing.assert_allclose(ours.astype(jnp.float32), theirs.astype(jnp.float32), atol=tolerance * scale)


@pytest.mark.parametrize(("inputs", "outputs", "groups", "stride"), [(8, 6, 1, 1), (4, 6, 2, 2), (4, 8, 4, 2)])
@pytest.mark.parametrize("axes", [None, (0, None), (None, 2), (0, 2)], ids=["one", "images", "kernels", "both"])
def test_all_derivatives(inputs, outputs, groups, stride, axes):
    """Forward, of the second order, and of several operands at once (on all of which axes): those of lax."""
    random = np.random.default_rng(0)
    images = jnp.asarray(random.normal(size=(2, 6, 5, inputs)), jnp.float32)
    kernel = jnp.asarray(random.normal(size=(3, 3, inputs // groups, outputs)), jnp.float32)
    window = Window((stride, 1), ((1, 1), (2, 0)), (1, 1), (1, 1), groups)
    if axes and axes[0] == 0:
        images = jnp.stack([images, 2 * images, images + 1])
    if axes and axes[1] == 2:
        kernel = jnp.stack([kernel, -kernel, kernel / 2], axis=2)

    @functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
    def derivatives(function, *operands):
        def total(*operands):
            return jnp.sum(jnp.sin(function(*operands, window)))

        def of_each(*operands):
            gradient = jax.grad(total, (0, 1))
            return total(*operands), gradient(*operands), jax.jvp(gradient, operands, operands)[1]

        def of_all(*operands):
            return jnp.sum((jax.vmap(total, axes) if axes else total)(*operands))

        gradient = jax.grad(of_all, (0, 1))
        twice = jax.grad(lambda *operands: sum(jnp.sum(x**2) for x in gradient(*operands)), (0, 1))
        each = (jax.vmap(of_each, axes) if axes else of_each)(*operands)
        return each, gradient(*operands), jax.jvp(gradient, operands, operands), twice(*operands)

    wanted, got = (jax.tree.leaves(derivatives(form, images, kernel)) for form in (algorithms.native, conv.convolution))
    for ours, theirs in zip(got, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(jnp.abs(theirs).max()))


def test_training_computes_a_depthwise_convolution_once(small_blocks, monkeypatch):
    """Its result is used several times: in blocks, a loop keeps XLA from computing it as often."""
    images, kernel = jnp.ones((4, 6, 6, 8)), jnp.ones((3, 3, 1, 8))
    window = Window((1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1), 8)
    monkeypatch.setattr(algorithms, "fastest", lambda *_: "shifts")

    def outputs(images):
        return conv.convolution(images, kernel, window)

    assert "while" not in jax.jit(outputs).lower(images).as_text()
    assert "while" in jax.jit(lambda images: jax.vjp(outputs, images)[0]).lower(images).as_text()
    np.testing.assert_allclose(jax.vjp(outputs, images)[0], algorithms.native(images, kernel, window))


@pytest.mark.parametrize("stride", [1, 2])
def test_native_kernel_gradients_inside_a_loop(stride):
    """JAX's own transpose would run in slow loops there: its convolution has another layout."""
    images, kernel = jnp.ones((4, 6, 6, 8)), jnp.ones((3, 3, 8, 16))
    window = Window((stride, stride), ((1, 1), (1, 1)), (1, 1), (1, 1))
    cotangent = algorithms.native(images, kernel, window)
    gradient = functools.partial(gradients.native_kernel_gradient, window=window)
    text = jax.jit(gradient).lower(images, kernel, cotangent).as_text()
    assert re.findall(r"dim_numbers = (.*?),\s*window", text) == ["[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"]
    assert "batch_group_count = 1 " in text


def test_blocks_of_integers(small_blocks):
    random = np.random.default_rng(0)
    images, kernel = (random.integers(-127, 128, shape, np.int8) for shape in ((6, 5, 5, 64), (3, 3, 64, 8)))
    window = Window((1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1))
    whole = algorithms.patches(images, kernel, window, element_type=jnp.int32)
    blocks = functools.partial(algorithms.patches, element_type=jnp.int32, blocks=True)
    assert "while" in jax.jit(blocks, static_argnums=2).lower(images, kernel, window).as_text()
    np.testing.assert_array_equal(blocks(images, kernel, window), whole)
    np.testing.assert_array_equal(integer.integer_convolution(images, kernel, window), whole)


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
    network = nnc.models.create("narrow_stride", initialization="seed")
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
