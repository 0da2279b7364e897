"""Codes of few bits, several to a byte: a part of other types."""

import dataclasses
import functools
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray

from nncompress_jax.axes.movements import Movement
from nncompress_jax.ops.packing import pack, unpack
from nncompress_jax.types import Array
from nncompress_jax.weights.base import CompressedWeight
from nncompress_jax.weights.checks import is_array, unexpected

STORED = (1, 2, 3, 4)
"""Bits of codes that are packed; those of more bits have a byte each."""


class Packed(CompressedWeight):
    """Whole numbers from `lowest` to `lowest` + 2^bits - 1, packed along the last axis.

    Attributes:
      parts: [..., ceil(O bits / 8)] uint8, of `ops.packing.pack`.
      size_last: O.
      bits: 1, 2, 3 or 4.
      lowest: the number that is stored as 0.
      dtype_name: int8 or uint8.
    """

    STANDS_ALONE: ClassVar[bool] = False
    DTYPES: ClassVar[tuple[str, ...]] = ("int8", "uint8")

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

    def moved(self, movement: Movement) -> Any:
        """Bytes move as codes do, where the last axis stays the last."""
        if not movement.keeps_last:
            return "several codes to a byte along the last axis"
        return dataclasses.replace(self, parts=movement.whole(self.parts))

    def check_parts(self) -> str | None:
        parts, bits, last = self.parts, self.bits, self.size_last
        if not is_array(parts, "uint8") or not parts.ndim or type(last) is not int or bits not in STORED:
            return unexpected("packed codes", parts, "uint8")
        if last < 1 or parts.shape[-1] != -(-last * bits // 8):
            return f"{parts.shape[-1]} bytes for {last} codes of {bits} bits"
        limits = {"int8": (-128, 127), "uint8": (0, 255)}.get(str(self.dtype_name))
        lowest = self.lowest
        if limits is None or type(lowest) is not int or not limits[0] <= lowest <= limits[1] + 1 - 2**bits:
            return f"codes from {str(lowest)[:20]} of {str(self.dtype_name)[:20]!r}"
        used = last * bits % 8
        if used and (np.asarray(parts)[..., -1] >> used).any():
            return "bits behind the last code that are not 0"
        return None

    @property
    def code_bits(self) -> tuple[int, int]:
        return self.bits, self.size_last


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
    if bits not in STORED:
        return codes
    return Packed(_packed(codes, bits, lowest), codes.shape[-1], bits, lowest, codes.dtype.name)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _packed(codes: Array, bits: int, lowest: int) -> Array:
    return pack(codes - jnp.asarray(lowest, codes.dtype), bits)


def unpacked(codes: Any) -> np.ndarray:
    """Codes of numpy, packed or not."""
    if not isinstance(codes, Packed):
        return np.asarray(codes)
    return unpack(np.asarray(codes.parts), codes.bits, codes.size_last) + np.asarray(codes.lowest, codes.dtype_name)


def largest_code(codes: Any) -> int:
    """Of codes, packed or not; 0 where there are none."""
    return int(unpacked(codes).max(initial=0))


def check_codes(codes: Any, dtype: str, most: int | None = None) -> str | None:
    """What is wrong with whole numbers, packed or not; None: nothing."""
    if isinstance(codes, Packed):
        wrong = codes.check()
        if wrong or codes.dtype_name != dtype:
            return wrong or f"packed codes of {codes.dtype_name}, expected {dtype}"
    elif not is_array(codes, dtype) or not codes.ndim:
        return unexpected("codes", codes, dtype)
    if most is not None and (largest_code(codes) > most or unpacked(codes).min(initial=0) < 0):
        return f"codes up to {largest_code(codes)}, expected 0 to {most}"
    return None
