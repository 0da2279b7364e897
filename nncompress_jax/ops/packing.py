"""Whole numbers of few bits, several to a byte: of jax and of numpy, where the arrays are.

Codes are a stream of bits, the lowest first. So few of them as fill whole bytes are taken together, as one number:
a byte where the bits divide 8, else 3 (8 codes of 3 bits, 4 of 6), 5 or 7.

Source: the array API standard, for functions that both have.
"""

import math
from typing import Any

WORD = 32
"""Bits of the numbers that several bytes are taken as; two where those are more than 4."""


def pack(codes: Any, bits: int) -> Any:
    """Codes of the last axis side by side in bytes, the first in the lowest bits.

    Args:
      codes: [..., O] whole numbers from 0 to 2^bits - 1.
      bits: of each, from 1 to 8.

    Returns:
      [..., ceil(O bits / 8)] uint8; what is left of the last byte is zero.

    Example:
      >>> import jax.numpy as jnp
      >>> pack(jnp.array([1, 2, 3, 0, 1]), bits=2).tolist()
      [57, 1]
      >>> pack(jnp.array([1, 2, 7, 5]), bits=3).tolist()
      [209, 11]
    """
    where = codes.__array_namespace__()
    width, count = _together(bits)
    groups = _grouped(codes.astype(where.uint8), count, where)
    if width == 1:
        words = [where.sum(groups << _places(count, bits, where.uint8, where), axis=-1, dtype=where.uint8)[..., None]]
    else:
        wide, starts = groups.astype(where.uint32), _places(count, bits, where.uint32, where)
        low = where.sum(wide << starts, axis=-1, dtype=where.uint32)
        words = [_bytes(low, min(width, 4), where)]
        if width > 4:  # shifts by 32 and more, which those below zero are, too, leave nothing
            wide = (wide << (starts - WORD)) | (wide >> (WORD - starts))
            words.append(_bytes(where.sum(wide, axis=-1, dtype=where.uint32), width - 4, where))
    packed = words[0] if len(words) == 1 else where.concatenate(words, axis=-1)
    return packed.reshape(*codes.shape[:-1], -1)[..., : -(-codes.shape[-1] * bits // 8)]


def unpack(packed: Any, bits: int, size: int) -> Any:
    """What `pack` was given.

    Args:
      packed: [..., ceil(size bits / 8)] uint8.
      bits: of each code.
      size: codes along the last axis.

    Returns:
      [..., size] uint8.

    Example:
      >>> import jax.numpy as jnp
      >>> unpack(jnp.array([57, 1], jnp.uint8), bits=2, size=5).tolist()
      [1, 2, 3, 0, 1]
    """
    where = packed.__array_namespace__()
    width, count = _together(bits)
    if width == 1:
        codes = packed[..., None] >> _places(count, bits, where.uint8, where)
    else:
        groups, starts = _grouped(packed, width, where), _places(count, bits, where.uint32, where)
        codes = _word(groups[..., :4], where) >> starts
        if width > 4:
            high = _word(groups[..., 4:], where)
            codes = codes | (high << (WORD - starts)) | (high >> (starts - WORD))
        codes = codes.astype(where.uint8)
    return (codes & where.uint8(2**bits - 1)).reshape(*packed.shape[:-1], -1)[..., :size]


def _together(bits: int) -> tuple[int, int]:
    """So many bytes are so many codes."""
    whole = math.lcm(bits, 8)
    return whole // 8, whole // bits


def _places(count: int, bits: int, dtype: Any, where: Any) -> Any:
    """[count] the first bit of each."""
    return where.arange(0, count * bits, bits, dtype=dtype)


def _grouped(parts: Any, count: int, where: Any) -> Any:
    """[..., n] -> [..., ceil(n / count), count]; zeros behind the last."""
    missing = -parts.shape[-1] % count
    if missing:
        blank = where.zeros((*parts.shape[:-1], missing), dtype=where.uint8)
        parts = where.concatenate([parts, blank], axis=-1)
    return parts.reshape(*parts.shape[:-1], -1, count)


def _word(parts: Any, where: Any) -> Any:
    """[..., up to 4] bytes -> [..., 1] uint32."""
    wide = [parts[..., place, None].astype(where.uint32) << where.uint32(8 * place) for place in range(parts.shape[-1])]
    return sum(wide[1:], start=wide[0])


def _bytes(words: Any, count: int, where: Any) -> Any:
    """[...] uint32 -> [..., count], the lowest bytes of each."""
    return (words[..., None] >> _places(count, 8, where.uint32, where)).astype(where.uint8)
