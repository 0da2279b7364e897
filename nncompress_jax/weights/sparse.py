"""A weight of which only some entries exist."""

import math
from collections.abc import Callable
from typing import Any, ClassVar, TypeGuard

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray

from nncompress_jax.types import Array
from nncompress_jax.weights import delayed
from nncompress_jax.weights.base import CompressedWeight, dense
from nncompress_jax.weights.checks import is_array, unexpected
from nncompress_jax.weights.clustered import Clustered
from nncompress_jax.weights.packed import Packed, check_codes, unpacked
from nncompress_jax.weights.quantized import Quantized


class Sparse(CompressedWeight):
    """Values at positions, zero elsewhere: zeros are not stored and cannot train.

    Products run on the dense array, which is made inside the program: a sparse weight is small, not fast. Values in
    integers of one scale make it an integer weight.

    Attributes:
      values: [n] float, in the order of their positions; or `Quantized` or `Clustered`.
      positions: [n] int32, ascending: places in the flat array.
      dense_shape: logical shape.
      dtype_name: logical dtype.
    """

    TRAINS: ClassVar[tuple[str, ...]] = ("values",)
    DECAYS: ClassVar[tuple[str, ...]] = ("values",)
    HELD: ClassVar[tuple[str, ...]] = ("values",)
    HOLDS: ClassVar[tuple[type, ...]] = (Quantized, Clustered)

    values: Array | CompressedWeight
    positions: Array
    dense_shape: tuple[int, ...] = eqx.field(static=True)
    dtype_name: str = eqx.field(static=True, default="float32")

    def aval(self) -> ShapedArray:
        return ShapedArray(self.dense_shape, jnp.dtype(self.dtype_name))

    def materialise(self) -> Array:
        return self._spread(dense(self.values)).astype(self.dtype_name)

    @property
    def density(self) -> float:
        return math.prod(self.positions.shape) / math.prod(self.shape)

    def lowered(self) -> CompressedWeight:
        values = self.values
        if not _has_one_scale(values) or values.scale.size > 1:
            return self
        return _on_integers(self, values, self._spread, values.scale.reshape((1,) * self.ndim))

    def check_parts(self) -> str | None:
        shape, places = self.dense_shape, self.positions
        if type(shape) is not tuple or any(type(size) is not int or not 0 <= size < 2**31 for size in shape):
            return f"dense_shape {str(shape)[:60]}"
        if not is_array(places, "int32", 1) or not places.size:
            return unexpected("positions", places, "int32 [n], n at least 1")
        if wrong := _check_values(self, places.shape):
            return wrong
        held, size = np.asarray(places), math.prod(shape)
        if held[0] < 0 or held[-1] >= size or (np.diff(held) <= 0).any():
            return f"positions from {held[0]} to {held[-1]} of {size}, expected ascending ones"
        return None

    def _spread(self, values: Array) -> Array:
        flat = delayed.zeros(math.prod(self.dense_shape), values.dtype, after=self.positions).at[self.positions]
        spread = flat.set(values, unique_indices=True, indices_are_sorted=True, mode="promise_in_bounds")
        return spread.reshape(self.dense_shape)


class SparseGroups(CompressedWeight):
    """N:M sparsity: of every M neighbours along the axis of input channels, N exist.

    Attributes:
      values: [..., I / M, N, O] float; or `Quantized` or `Clustered`.
      positions: [..., I / M, N, O] uint8, packed where a byte holds several: places within their group, all different.
      group: M.
      axis: of the input channels, from the back.
      dtype_name: logical dtype.

    Source: Mishra et al. 2021, "Accelerating Sparse Deep Neural Networks", section 2 (2:4).
    """

    TRAINS: ClassVar[tuple[str, ...]] = ("values",)
    DECAYS: ClassVar[tuple[str, ...]] = ("values",)
    HELD: ClassVar[tuple[str, ...]] = ("values",)
    HOLDS: ClassVar[tuple[type, ...]] = (Quantized, Clustered)

    values: Array | CompressedWeight
    positions: Array | Packed
    group: int = eqx.field(static=True)
    axis: int = eqx.field(static=True, default=-2)
    dtype_name: str = eqx.field(static=True, default="float32")

    def aval(self) -> ShapedArray:
        shape = [*self.positions.shape]
        shape[self.axis] = self.group
        shape[self.axis - 1 : self.axis + 1 or None] = [shape[self.axis - 1] * self.group]
        return ShapedArray(tuple(shape), jnp.dtype(self.dtype_name))

    def materialise(self) -> Array:
        return self._spread(dense(self.values)).astype(self.dtype_name)

    @property
    def density(self) -> float:
        return math.prod(self.positions.shape) / math.prod(self.shape)

    def lowered(self) -> CompressedWeight:
        values, axis = self.values, self.axis
        if not _has_one_scale(values) or values.scale.shape[axis] > 1 or values.scale.shape[axis - 1] > 1:
            return self
        return _on_integers(self, values, self._spread, values.scale.squeeze(axis))

    def check_parts(self) -> str | None:
        places = self.positions
        if wrong := check_codes(places, "uint8"):
            return wrong
        rank, axis = len(places.shape), self.axis
        if type(axis) is not int or not -rank < axis < 0:
            return f"axis {str(axis)[:20]} of positions {list(places.shape)}"
        if rank < 3 or type(self.group) is not int or not places.shape[axis] <= self.group <= 256:
            return f"positions {list(places.shape)} in groups of {str(self.group)[:20]}"
        held = np.sort(unpacked(places), axis=axis)
        if held.size and (held.max() >= self.group or (np.diff(held.astype(np.int16), axis=axis) == 0).any()):
            return f"positions up to {held.max()}, or twice the same, in groups of {self.group}"
        return _check_values(self, places.shape)

    def _spread(self, values: Array) -> Array:
        places = jnp.arange(self.group, dtype=jnp.uint8).reshape(-1, *[1] * (-1 - self.axis))
        positions, spread = dense(self.positions), jnp.zeros((), values.dtype)
        for n in range(values.shape[self.axis]):  # [..., I / M, M, O]
            there, value = (lax.slice_in_dim(x, n, n + 1, axis=self.axis) for x in (positions, values))
            spread = spread + jnp.where(there == places, value, jnp.zeros((), values.dtype))
        return spread.reshape(self.shape)


def _has_one_scale(values: Any) -> TypeGuard[Quantized]:
    """Whether they are integers that run as such: of one scale for each output."""
    return isinstance(values, Quantized) and values.integer and not values.has_groups and values.zero_point is None


def _on_integers(
    weight: Sparse | SparseGroups, values: Quantized, spread: Callable[[Array], Array], scale: Array
) -> Quantized:
    return Quantized(spread(dense(values.codes)), scale, values.input_scale, dtype_name=weight.dtype_name)


def _check_values(weight: Sparse | SparseGroups, shape: tuple[int, ...]) -> str | None:
    if wrong := weight.check_held(weight.values):
        return wrong
    found = list(weight.values.shape)
    return None if found == list(shape) else f"values {found} at positions {list(shape)}"
