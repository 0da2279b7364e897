"""Whole numbers of few bits, several to a byte: of jax and of numpy, where the arrays are.

Source: the array API standard, for functions that both have.
"""

from typing import Any


def pack(codes: Any, bits: int) -> Any:
    """Codes of the last axis side by side in bytes, the first in the lowest bits.

    Args:
      codes: [..., O] whole numbers from 0 to 2^bits - 1.
      bits: 1, 2, 4 or 8 of each.

    Returns:
      [..., ceil(O bits / 8)] uint8; what is left of the last byte is zero.

    Example:
      >>> import jax.numpy as jnp
      >>> pack(jnp.array([1, 2, 3, 0, 1]), bits=2).tolist()
      [57, 1]
    """
    each = 8 // bits
    where = codes.__array_namespace__()
    blank = where.zeros((*codes.shape[:-1], -codes.shape[-1] % each), dtype=where.uint8)
    groups = where.concatenate([codes.astype(where.uint8), blank], axis=-1).reshape(*codes.shape[:-1], -1, each)
    return where.sum(groups << _shifts(bits, where), axis=-1, dtype=where.uint8)


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
    codes = (packed[..., None] >> _shifts(bits, where)) & where.uint8(2**bits - 1)
    return codes.reshape(*packed.shape[:-1], -1)[..., :size]


def _shifts(bits: int, where: Any) -> Any:
    return where.arange(0, 8, bits, dtype=where.uint8)
