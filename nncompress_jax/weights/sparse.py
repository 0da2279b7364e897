"""A weight of which only some entries exist."""

import math
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
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
        return _on_integers(self, self._spread)

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
    dtype_name: str = eqx.field(static=True, default="float32")

    def aval(self) -> ShapedArray:
        *outer, groups, _, outputs = self.positions.shape
        return ShapedArray((*outer, groups * self.group, outputs), jnp.dtype(self.dtype_name))

    def materialise(self) -> Array:
        return self._spread(dense(self.values)).astype(self.dtype_name)

    @property
    def density(self) -> float:
        return math.prod(self.positions.shape) / math.prod(self.shape)

    def lowered(self) -> CompressedWeight:
        return _on_integers(self, self._spread)

    def check_parts(self) -> str | None:
        places = self.positions
        if wrong := check_codes(places, "uint8"):
            return wrong
        if len(places.shape) < 3 or type(self.group) is not int or not places.shape[-2] <= self.group <= 256:
            return f"positions {list(places.shape)} in groups of {str(self.group)[:20]}"
        held = np.sort(unpacked(places), axis=-2)
        if held.size and (held.max() >= self.group or (np.diff(held.astype(np.int16), axis=-2) == 0).any()):
            return f"positions up to {held.max()}, or twice the same, in groups of {self.group}"
        return _check_values(self, places.shape)

    def _spread(self, values: Array) -> Array:
        places = jnp.arange(self.group, dtype=jnp.uint8)[:, None]
        positions, spread = dense(self.positions), jnp.zeros((), values.dtype)
        for n in range(values.shape[-2]):  # [..., I / M, M, O]
            there = positions[..., n, None, :] == places
            spread = spread + jnp.where(there, values[..., n, None, :], jnp.zeros((), values.dtype))
        return spread.reshape(self.shape)


def _on_integers(weight: Sparse | SparseGroups, spread: Callable[[Array], Array]) -> CompressedWeight:
    """As `Quantized`, where the values are, and their scale varies with the output channel at most."""
    values = weight.values
    if not isinstance(values, Quantized) or not values.integer or values.scale.size != values.scale.shape[-1]:
        return weight
    scale = values.scale.reshape((1,) * (weight.ndim - 1) + (-1,))
    return Quantized(spread(dense(values.codes)), scale, values.input_scale, dtype_name=weight.dtype_name)


def _check_values(weight: Sparse | SparseGroups, shape: tuple[int, ...]) -> str | None:
    if wrong := weight.check_held(weight.values):
        return wrong
    found = list(weight.values.shape)
    return None if found == list(shape) else f"values {found} at positions {list(shape)}"
