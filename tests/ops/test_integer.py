"""Integer products against NumPy in int64, bit for bit, by every algorithm."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncompress_jax.ops import algorithms, integer, kernels
from nncompress_jax.ops.windows import Window
from tests.quick import QUICK

ALGORITHMS = [algorithms.native, algorithms.patches, functools.partial(algorithms.patches, multiple=16)]


def codes(shape, seed):
    """The whole range, its ends included."""
    return np.random.default_rng(seed).choice([-127, -126, -1, 0, 1, 3, 126, 127], shape).astype(np.int8)


def reference(images, kernel, window):
    """By the definition: each output is the sum over its window, written out for each group."""
    space = range(images.ndim - 2)
    dilated = [(size - 1) * window.image_dilation[axis] + 1 for axis, size in enumerate(images.shape[1:-1])]
    spread = np.zeros((len(images), *dilated, images.shape[-1]), np.int64)
    spread[(slice(None), *(slice(None, None, step) for step in window.image_dilation))] = images
    for axis, (before, after) in enumerate(window.padding):
        pad = [(0, 0)] * spread.ndim
        pad[axis + 1] = (max(before, 0), max(after, 0))
        spread = np.pad(spread, pad)
        spread = np.take(spread, range(max(-before, 0), spread.shape[axis + 1] - max(-after, 0)), axis + 1)
    reach = [(kernel.shape[axis] - 1) * window.kernel_dilation[axis] + 1 for axis in space]
    sizes = [max((spread.shape[axis + 1] - reach[axis]) // window.strides[axis] + 1, 0) for axis in space]
    outputs = np.zeros((len(images), *sizes, kernel.shape[-1]), np.int64)
    inputs, group = kernel.shape[-2], kernel.shape[-1] // window.groups
    for place in itertools.product(*map(range, sizes)):
        for tap in itertools.product(*map(range, kernel.shape[:-2])):
            pixel = tuple(
                place[axis] * window.strides[axis] + tap[axis] * window.kernel_dilation[axis] for axis in space
            )
            for g in range(window.groups):
                seen = spread[(slice(None), *pixel, slice(g * inputs, (g + 1) * inputs))]
                columns = slice(g * group, (g + 1) * group)
                outputs[(slice(None), *place, columns)] += seen @ kernel[(*tap, slice(None), columns)].astype(np.int64)
    return outputs


@st.composite
def convolutions(draw, *, depthwise=False):
    axes = draw(st.integers(1, 3))
    each = st.tuples(*[st.integers(1, 3)] * axes)
    groups = draw(st.integers(2, 4)) if depthwise else draw(st.sampled_from([1, 1, 2, 3]))
    inputs = 1 if depthwise else draw(st.integers(1, 3))
    images = (draw(st.integers(1, 2)), *draw(st.tuples(*[st.integers(1, 6)] * axes)), groups * inputs)
    kernel = (*draw(each), inputs, groups * draw(st.integers(1, 2)))
    padding = draw(st.tuples(*[st.tuples(st.integers(-1, 2), st.integers(-1, 2))] * axes))
    padding = tuple(
        (0, 0) if size + before + after < 1 else (before, after)
        for size, (before, after) in zip(images[1:], padding, strict=False)
    )
    window = Window(draw(each), padding, draw(each), draw(each), groups)
    return codes(images, draw(st.integers(0, 99))), codes(kernel, draw(st.integers(0, 99))), window


def check(case, algorithms):
    """The platform's choice, and each algorithm; of outputs without entries, the first alone."""
    images, kernel, window = case
    expected = reference(images, kernel, window)
    algorithms = algorithms if expected.size else ALGORITHMS[:1]

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(images, kernel):
        chosen = integer.integer_convolution(images, kernel, window)
        return [chosen, *(algorithm(images, kernel, window, element_type=jnp.int32) for algorithm in algorithms)]

    for algorithm, result in zip(["chosen", *algorithms], run(images, kernel), strict=True):
        assert result.dtype == jnp.int32
        np.testing.assert_array_equal(result, expected, err_msg=str(algorithm))


@settings(max_examples=25, deadline=None)
@given(convolutions())
def test_convolution(case):
    check(case, ALGORITHMS)


@settings(max_examples=25, deadline=None)
@given(convolutions(depthwise=True))
def test_depthwise_convolution(case):
    check(case, [algorithms.shifts, *ALGORITHMS])


@pytest.mark.parametrize("algorithm", [integer.integer_dot, integer.native_dot, integer.aligned_dot])
@pytest.mark.parametrize(
    ("left", "right", "numbers", "subscripts"),
    [
        ((5, 7), (7, 3), (((1,), (0,)), ((), ())), "ab,bc->ac"),
        ((5, 32), (3, 32), (((1,), (1,)), ((), ())), "ab,cb->ac"),
        ((2, 5, 7, 4), (4, 6, 7), (((2, 3), (2, 0)), ((), ())), "abcd,dec->abe"),
        ((2, 5, 7, 4), (6, 4, 7, 2), (((2,), (2,)), ((0, 3), (3, 1))), "abcd,edca->adbe"),
        ((4,), (3,), (((), ()), ((), ())), "a,b->ab"),
    ],
)
def test_dot(algorithm, left, right, numbers, subscripts):
    left, right = codes(left, 0), codes(right, 1)
    expected = np.einsum(subscripts, left.astype(np.int64), right.astype(np.int64))
    result = algorithm(left, right, numbers)
    assert result.dtype == jnp.int32
    np.testing.assert_array_equal(result, expected)


def test_the_longest_sum():
    """One product more of 127 * 127 would not fit."""
    full = np.full((1, integer.LONGEST_SUM), 127, np.int8)
    assert integer.integer_dot(full, full.T, (((1,), (0,)), ((), ()))).item() == 127**2 * integer.LONGEST_SUM
    assert np.iinfo(np.int32).max < 127**2 * (integer.LONGEST_SUM + 1)


@pytest.mark.parametrize(
    ("images", "kernel", "groups", "algorithm"),
    [
        ((4, 8, 8, 16), (3, 3, 16, 8), 1, {"cuda": "patches", "tpu": "native"}),
        ((4, 8, 8, 16), (3, 3, 1, 16), 16, {"cpu": "shifts", "cuda": "shifts", "tpu": "native"}),
        ((4, 2, 2, 16), (3, 3, 16, 8), 1, {"cpu": "patches", "cuda": "patches", "tpu": "native"}),
        ((4, 8, 8, 16), (1, 1, 16, 8), 1, {"cuda": "patches", "tpu": "native"}),
    ],
)
def test_each_platform_is_lowered_to_its_own(images, kernel, groups, algorithm):
    images, kernel = (jax.ShapeDtypeStruct(shape, jnp.int8) for shape in (images, kernel))
    window = Window((1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1), groups)
    fastest = kernels.fastest("convolution", jnp.int8, kernels.convolution_class(images, kernel, window))
    for platform, name in {"cpu": fastest.removesuffix(" in blocks"), **algorithm}.items():
        traced = jax.jit(lambda x, k: integer.integer_convolution(x, k, window)).trace(images, kernel)
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert {other: f"@{other}(" in text for other in ("native", "patches", "shifts")} == {
            other: other == name for other in ("native", "patches", "shifts")
        }
        assert "f32" not in text
