"""Exact products of 8-bit integers, int8 x int8 -> int32, in the form that each platform runs well."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nncompress_jax.ops.algorithms import cpu_algorithm, is_depthwise, native, patches, shifts
from nncompress_jax.ops.windows import Window, fits
from nncompress_jax.types import Array, DimensionNumbers

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
    options = {"window": window, "element_type": jnp.int32}
    default = functools.partial(native, **options)
    # XLA's GPU backend sends few integer convolutions to cuDNN, and grouped ones came back wrong (openxla/xla#49123).
    gpu = functools.partial(patches, multiple=16, **options)
    if not fits(images, kernel.shape[:-2], window):
        gpu = default
    elif is_depthwise(images, window):
        gpu = functools.partial(shifts, **options)
    cpu = functools.partial(cpu_algorithm(images, kernel, window), **options)
    return lax.platform_dependent(images, kernel, cpu=cpu, cuda=gpu, rocm=gpu, default=default)


@functools.partial(jax.jit, static_argnames=("dimension_numbers", "out_sharding"))
def integer_dot(lhs: Array, rhs: Array, dimension_numbers: DimensionNumbers, out_sharding: Any = None) -> Array:
    """`jax.lax.dot_general` of integer codes.

    Args:
      lhs: int8.
      rhs: int8.
      dimension_numbers: (contracted axes of lhs and rhs), (batch axes of lhs and rhs).
      out_sharding: as `lax.dot_general`'s.

    Returns:
      int32, exact while at most `LONGEST_SUM` entries are contracted; the axes are those of batch, the rest of
      lhs, the rest of rhs.

    Example:
      >>> codes = jnp.array([[1, 2]], jnp.int8), jnp.array([[3], [4]], jnp.int8)
      >>> integer_dot(*codes, (((1,), (0,)), ((), ()))).item()
      11
    """
    options = {"dimension_numbers": dimension_numbers, "out_sharding": out_sharding}
    operation, aligned = functools.partial(native_dot, **options), functools.partial(aligned_dot, **options)
    return lax.platform_dependent(lhs, rhs, cuda=aligned, rocm=aligned, default=operation)


@functools.partial(jax.jit, static_argnames=("dimension_numbers", "out_sharding"))
def native_dot(lhs: Array, rhs: Array, dimension_numbers: DimensionNumbers, out_sharding: Any = None) -> Array:
    """The backend's own dot product."""
    return lax.dot_general(lhs, rhs, dimension_numbers, preferred_element_type=jnp.int32, out_sharding=out_sharding)


@functools.partial(jax.jit, static_argnames=("dimension_numbers", "out_sharding"))
def aligned_dot(lhs: Array, rhs: Array, dimension_numbers: DimensionNumbers, out_sharding: Any = None) -> Array:
    """With zeros up to a multiple of 16 along the last contracted axis, as the integer units of GPUs want it."""
    (lhs_contracted, rhs_contracted), _ = dimension_numbers
    if lhs_contracted:
        lhs, rhs = _aligned(lhs, lhs_contracted[-1]), _aligned(rhs, rhs_contracted[-1])
    return lax.dot_general(lhs, rhs, dimension_numbers, preferred_element_type=jnp.int32, out_sharding=out_sharding)


def _aligned(x: Array, axis: int) -> Array:
    return jnp.pad(x, [(0, -size % 16 if at == axis else 0) for at, size in enumerate(x.shape)])
