"""Maximum over moving windows, and its gradient, in the form that each platform runs well.

On the CPU the maximum of shifted arrays takes the place of XLA's reduction: that draws the operations before it into
its own loop, undone and slower, and its gradient is a loop over single elements.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nncompress_jax.ops.windows import Window, fits, taps
from nncompress_jax.types import Array

MOST_TAPS = 16
"""Larger windows are left to the backend."""


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def max_pooling(x: Array, sizes: tuple[int, ...], window: Window) -> Array:
    """The largest value that each window sees.

    Args:
      x: float array of any rank.
      sizes: of the window along each axis, in taps.
      window: how it moves, along each axis; what lies outside of x does not count.

    Returns:
      As many axes as x has. Where several values are the largest, the gradient goes to the first.

    Example:
      >>> max_pooling(jnp.array([1.0, 3.0, 2.0, 0.0]), (2,), Window((2,), ((0, 0),), (1,), (1,))).tolist()
      [3.0, 2.0]
    """
    return _pooled(x, sizes, window)[0]


def _pooled(x: Array, sizes: tuple[int, ...], window: Window) -> tuple[Array, Array]:
    """Maxima, and by which tap each was seen first; the native form does not tell."""

    def native(x: Array) -> tuple[Array, Array]:
        largest = _native(x, sizes, window)
        return largest, jnp.zeros(largest.shape, jnp.int8)

    def shifts(x: Array) -> tuple[Array, Array]:
        seen = _taps(x, sizes, window)
        largest = functools.reduce(jnp.maximum, seen)
        first = jnp.zeros(largest.shape, jnp.int8)
        for tap in reversed(range(len(seen))):
            first = jnp.where(seen[tap] == largest, jnp.int8(tap), first)
        return largest, first

    return lax.platform_dependent(x, cpu=shifts if _suits_shifts(x, sizes, window) else native, default=native)


@max_pooling.defjvp
def _(sizes: tuple[int, ...], window: Window, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (along,) = primals, tangents
    largest, first = _pooled(x, sizes, window)

    def native(x: Array, first: Array, along: Array) -> Array:
        return jax.jvp(lambda x: _native(x, sizes, window), (x,), (along,))[1]

    def shifts(x: Array, first: Array, along: Array) -> Array:
        first = lax.optimization_barrier(first)  # else x would be computed anew for each tap
        seen = enumerate(_taps(along, sizes, window, fill=0))
        return functools.reduce(jnp.add, (jnp.where(first == tap, change, 0) for tap, change in seen))

    cpu = shifts if _suits_shifts(x, sizes, window) else native
    return largest, lax.platform_dependent(x, first, along, cpu=cpu, default=native)


def _suits_shifts(x: Array, sizes: tuple[int, ...], window: Window) -> bool:
    return math.prod(sizes) <= MOST_TAPS and fits(x[None, ..., None], sizes, window)


def _native(x: Array, sizes: tuple[int, ...], window: Window) -> Array:
    options = (window.strides, window.padding, window.image_dilation, window.kernel_dilation)
    return lax.reduce_window(x, -jnp.inf, lax.max, sizes, *options)


def _taps(x: Array, sizes: tuple[int, ...], window: Window, fill: float = -jnp.inf) -> list[Array]:
    return [tap[0, ..., 0] for tap in taps(x[None, ..., None], sizes, window, fill=fill)]


def pool(x: Array, **params: Any) -> Array:
    """`lax.reduce_window_max_p` with these parameters, by `max_pooling`."""
    window = Window(
        tuple(params["window_strides"]),
        tuple(map(tuple, params["padding"])),
        tuple(params["base_dilation"]),
        tuple(params["window_dilation"]),
    )
    return max_pooling(x, tuple(params["window_dimensions"]), window)
