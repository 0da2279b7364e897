"""Exact products of 8-bit integers, int8 x int8 -> int32, in the form that each backend runs well.

Three algorithms give the same integers: `native` is the backend's own operation, `patches` lays the windows of
an image side by side for one dot product, `shifts` adds up shifted images, each times one tap of a depthwise
kernel. The choice is made by platform when the program is lowered. In a traced program the product stands under
the name of its function here, and the algorithm inside under its own.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax import lax

from nncompress_jax.ops.conv import Window, convolution
from nncompress_jax.types import Array, DimensionNumbers

NAMES = ("integer_convolution", "integer_dot")
"""Of the functions below whose operands are a layer's codes."""

LONGEST_SUM = (2**31 - 1) // 127**2
"""So many products of two codes in [-127, 127] does an int32 hold the sum of."""


@functools.partial(jax.jit, static_argnames="window")
def integer_convolution(images: Array, kernel: Array, window: Window) -> Array:
    """Convolution (cross-correlation) of integer codes over any number of spatial axes.

    Args:
      images: [B, H, W, I] int8 (one spatial axis or more).
      kernel: [H, W, I / groups, O] int8.
      window: how the kernel moves.

    Returns:
      [B, H, W, O] int32, exact while a window has at most `LONGEST_SUM` entries.

    Example:
      >>> codes = jnp.array([[[1], [2], [3]]], jnp.int8), jnp.ones((3, 1, 1), jnp.int8)
      >>> integer_convolution(*codes, Window((1,), ((1, 1),), (1,), (1,))).ravel().tolist()
      [3, 6, 5]
    """
    depthwise = window.groups == images.shape[-1] and window.groups > 1
    taps, pixels = math.prod(kernel.shape[:-2]), math.prod(images.shape[1:-1])
    # XLA's fast CPU libraries do not take a depthwise kernel, nor one larger than the image: naive loops run.
    cpu = shifts if depthwise else patches if taps > pixels or taps == 1 else native
    # XLA's GPU backend sends few integer convolutions to cuDNN, and grouped ones came back wrong (openxla/xla#49123).
    gpu = shifts if depthwise else patches
    if min(_last_windows(images, kernel, window), default=0) < 0:  # the result is empty
        cpu = gpu = native
    return _by_platform(
        images,
        kernel,
        cpu=functools.partial(cpu, window=window),
        gpu=functools.partial(gpu, window=window),
        default=functools.partial(native, window=window),
    )


@functools.partial(jax.jit, static_argnames="dimension_numbers")
def integer_dot(lhs: Array, rhs: Array, dimension_numbers: DimensionNumbers) -> Array:
    """`jax.lax.dot_general` of integer codes.

    Args:
      lhs: int8.
      rhs: int8.
      dimension_numbers: (contracted axes of lhs and rhs), (batch axes of lhs and rhs).

    Returns:
      int32, exact while at most `LONGEST_SUM` entries are contracted; the axes are those of batch, the rest of
      lhs, the rest of rhs.

    Example:
      >>> codes = jnp.array([[1, 2]], jnp.int8), jnp.array([[3], [4]], jnp.int8)
      >>> integer_dot(*codes, (((1,), (0,)), ((), ()))).item()
      11
    """
    operation = functools.partial(native_dot, dimension_numbers=dimension_numbers)
    aligned = functools.partial(aligned_dot, dimension_numbers=dimension_numbers)
    return _by_platform(lhs, rhs, cpu=operation, gpu=aligned, default=operation)


@functools.partial(jax.jit, static_argnames="window")
def native(images: Array, kernel: Array, window: Window) -> Array:
    """The backend's own convolution."""
    return convolution(images, kernel, window, jnp.int32)


@functools.partial(jax.jit, static_argnames="window")
def patches(images: Array, kernel: Array, window: Window) -> Array:
    """Windows side by side, [B, H, W, taps, I], and one dot product with the kernel for each group."""
    columns = jnp.stack(list(_taps(images, kernel, window)), axis=-2)
    *outer, taps, channels = columns.shape
    groups, outputs = window.groups, kernel.shape[-1]
    if groups == 1:
        columns = columns.reshape(math.prod(outer), taps * channels)
        result = integer_dot(columns, kernel.reshape(-1, outputs), (((1,), (0,)), ((), ())))
    else:
        columns = columns.reshape(math.prod(outer), taps, groups, channels // groups)
        kernel = kernel.reshape(taps, channels // groups, groups, outputs // groups)
        result = integer_dot(columns, kernel, (((1, 3), (0, 1)), ((2,), (2,))))
        result = jnp.moveaxis(result, 0, 1)
    return result.reshape(*outer, outputs)


@functools.partial(jax.jit, static_argnames="window")
def shifts(images: Array, kernel: Array, window: Window) -> Array:
    """Sum over the taps of shifted images times the tap's weights; depthwise kernels [H, W, 1, O] only."""
    weights = kernel.reshape(-1, kernel.shape[-1]).astype(jnp.int32)
    copies = kernel.shape[-1] // images.shape[-1]
    shifted = (jnp.repeat(tap, copies, axis=-1) for tap in _taps(images, kernel, window))
    return functools.reduce(jnp.add, (tap.astype(jnp.int32) * w for tap, w in zip(shifted, weights, strict=True)))


@functools.partial(jax.jit, static_argnames="dimension_numbers")
def native_dot(lhs: Array, rhs: Array, dimension_numbers: DimensionNumbers) -> Array:
    """The backend's own dot product."""
    return lax.dot_general(lhs, rhs, dimension_numbers, preferred_element_type=jnp.int32)


@functools.partial(jax.jit, static_argnames="dimension_numbers")
def aligned_dot(lhs: Array, rhs: Array, dimension_numbers: DimensionNumbers) -> Array:
    """With zeros up to a multiple of 16 along the last contracted axis, as the integer units of GPUs want it."""
    (lhs_contracted, rhs_contracted), _ = dimension_numbers
    if lhs_contracted:
        lhs, rhs = _aligned(lhs, lhs_contracted[-1]), _aligned(rhs, rhs_contracted[-1])
    return lax.dot_general(lhs, rhs, dimension_numbers, preferred_element_type=jnp.int32)


def _aligned(x: Array, axis: int) -> Array:
    return jnp.pad(x, [(0, -size % 16 if at == axis else 0) for at, size in enumerate(x.shape)])


def _taps(images: Array, kernel: Array, window: Window) -> Iterator[Array]:
    """What each tap of the kernel sees: [B, H, W, I] of the output's height and width."""
    edges = [(*pad, step - 1) for pad, step in zip(window.padding, window.image_dilation, strict=True)]
    padded = lax.pad(images, images.dtype.type(0), [(0, 0, 0), *edges, (0, 0, 0)])
    last = _last_windows(images, kernel, window)
    for tap in itertools.product(*map(range, kernel.shape[:-2])):
        start = [at * step for at, step in zip(tap, window.kernel_dilation, strict=True)]
        stop = [first + end + 1 for first, end in zip(start, last, strict=True)]
        yield lax.slice(padded, (0, *start, 0), (len(images), *stop, images.shape[-1]), (1, *window.strides, 1))


def _last_windows(images: Array, kernel: Array, window: Window) -> list[int]:
    """Where the last window begins on each spatial axis of the padded image; negative if none fits."""
    last = []
    for axis, pad in enumerate(window.padding):
        size = (images.shape[axis + 1] - 1) * window.image_dilation[axis] + 1 + sum(pad)
        room = size - 1 - (kernel.shape[axis] - 1) * window.kernel_dilation[axis]
        last.append(room // window.strides[axis] * window.strides[axis])
    return last


def _by_platform(
    lhs: Array,
    rhs: Array,
    *,
    cpu: Callable[[Array, Array], Array],
    gpu: Callable[[Array, Array], Array],
    default: Callable[[Array, Array], Array],
) -> Array:
    return lax.platform_dependent(lhs, rhs, cpu=cpu, cuda=gpu, rocm=gpu, default=default)
