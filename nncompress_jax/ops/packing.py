"""Whole numbers of few bits, several to a byte."""

import jax.numpy as jnp

from nncompress_jax.types import Array


def pack(codes: Array, bits: int) -> Array:
    """Codes of the last axis side by side in bytes, the first in the lowest bits.

    Args:
      codes: [..., O] whole numbers from 0 to 2^bits - 1.
      bits: 1, 2, 4 or 8 of each.

    Returns:
      [..., ceil(O bits / 8)] uint8; what is left of the last byte is zero.

    Example:
      >>> pack(jnp.array([1, 2, 3, 0, 1]), bits=2).tolist()
      [57, 1]
    """
    each = 8 // bits
    codes = jnp.asarray(codes).astype(jnp.uint8)
    padding = [(0, 0)] * (codes.ndim - 1) + [(0, -codes.shape[-1] % each)]
    groups = jnp.pad(codes, padding).reshape(*codes.shape[:-1], -1, each)
    return jnp.sum(groups << _shifts(bits), axis=-1, dtype=jnp.uint8)


def unpack(packed: Array, bits: int, size: int) -> Array:
    """What `pack` was given.

    Args:
      packed: [..., ceil(size bits / 8)] uint8.
      bits: of each code.
      size: codes along the last axis.

    Returns:
      [..., size] uint8.

    Example:
      >>> unpack(jnp.array([57, 1], jnp.uint8), bits=2, size=5).tolist()
      [1, 2, 3, 0, 1]
    """
    codes = (packed[..., None] >> _shifts(bits)) & jnp.uint8(2**bits - 1)
    return codes.reshape(*packed.shape[:-1], -1)[..., :size]


def _shifts(bits: int) -> Array:
    return jnp.arange(0, 8, bits, dtype=jnp.uint8)
