"""Codes of few bits, several to a byte: a part of other types."""

import equinox as eqx
import jax.numpy as jnp
from jax.core import ShapedArray

from nncompress_jax.ops.packing import pack, unpack
from nncompress_jax.types import Array
from nncompress_jax.weights.base import CompressedWeight


class Packed(CompressedWeight):
    """Whole numbers from `lowest` to `lowest` + 2^bits - 1, packed along the last axis.

    Attributes:
      parts: [..., ceil(O bits / 8)] uint8, of `ops.packing.pack`.
      size_last: O.
      bits: 1, 2 or 4.
      lowest: the number that is stored as 0.
      dtype_name: int8 or uint8.
    """

    parts: Array
    size_last: int = eqx.field(static=True)
    bits: int = eqx.field(static=True)
    lowest: int = eqx.field(static=True, default=0)
    dtype_name: str = eqx.field(static=True, default="int8")

    def aval(self) -> ShapedArray:
        return ShapedArray((*self.parts.shape[:-1], self.size_last), jnp.dtype(self.dtype_name))

    def materialise(self) -> Array:
        codes = unpack(self.parts, self.bits, self.size_last).astype(self.dtype_name)
        return codes + jnp.asarray(self.lowest, self.dtype_name)


def packed(codes: Array, bits: int, lowest: int = 0) -> Array | Packed:
    """Codes as they are stored: packed where a byte holds several.

    Args:
      codes: [..., O] int8 or uint8, from `lowest` to `lowest` + 2^bits - 1.
      bits: that a code needs, from 1 to 8.
      lowest: of all codes.

    Example:
      >>> packed(jnp.array([[-1, 0, 1, 1, -1]], jnp.int8), bits=2, lowest=-2).nbytes
      2
    """
    if bits > 4:
        return codes
    bits = next(stored for stored in (1, 2, 4) if stored >= bits)
    return Packed(pack(codes - jnp.asarray(lowest, codes.dtype), bits), codes.shape[-1], bits, lowest, codes.dtype.name)
