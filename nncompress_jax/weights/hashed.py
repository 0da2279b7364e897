"""A weight whose entries share values by a hash of their place."""

import dataclasses
import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import ShapedArray

from nncompress_jax.types import Array
from nncompress_jax.weights.base import CompressedWeight
from nncompress_jax.weights.checks import is_array, unexpected

MOST_SHARING = 2**16
"""Entries of a value, on average, at most: a file of few bytes does not stand for an array of any size."""


class Hashed(CompressedWeight):
    """sign(n) * values[bucket(n)] at entry n: a hash says which of K values stands where, so that no place is stored.

    The values train, by plain autodiff, each with all its entries. Products run on the dense array, which is made
    inside the program.

    Attributes:
      values: [K] float32; or [..., K], for stacked weights.
      seed: uint32 of the values' shape without its last axis: of the hash.
      inner: the logical shape behind those axes.
      dtype_name: logical dtype.

    Source: Chen et al. 2015, "Compressing Neural Networks with the Hashing Trick", section 4: the second hash, of
    signs, too. The hash is MurmurHash3's finalizer (Appleby 2011), of the entry's number and the seed.
    """

    TRAINS: ClassVar[tuple[str, ...]] = ("values",)

    values: Array
    seed: Array
    inner: tuple[int, ...] = eqx.field(static=True)
    dtype_name: str = eqx.field(static=True, default="float32")

    def aval(self) -> ShapedArray:
        return ShapedArray((*self.values.shape[:-1], *self.inner), jnp.dtype(self.dtype_name))

    def materialise(self) -> Array:
        def one(values: Array, seed: Array) -> Array:
            buckets, signs = places(seed, self.inner, values.shape[0])
            return (values[buckets] * signs).astype(self.dtype_name)

        for _ in self.values.shape[:-1]:
            one = jax.vmap(one)
        return one(jnp.asarray(self.values), jnp.asarray(self.seed))

    def preconditioned(self, gradient: Any) -> Any:
        """The mean over a value's entries, not the sum, as of `Clustered`."""

        def count(values: Array, seed: Array) -> Array:
            buckets, _ = places(seed, self.inner, values.shape[0])
            return jnp.zeros(values.shape, jnp.float32).at[buckets.ravel()].add(1)

        for _ in self.values.shape[:-1]:
            count = jax.vmap(count)
        return dataclasses.replace(gradient, values=gradient.values / jnp.maximum(count(self.values, self.seed), 1))

    def check_parts(self) -> str | None:
        if not is_array(self.values, "float32") or not self.values.ndim or not self.values.shape[-1]:
            return unexpected("values", self.values, "float32 [..., K]")
        if not (is_array(self.seed, "uint32") and self.seed.shape == self.values.shape[:-1]):
            return unexpected("seed", self.seed, f"uint32 {list(self.values.shape[:-1])}")
        inner = self.inner
        if type(inner) is not tuple or not inner or not all(type(size) is int and size > 0 for size in inner):
            return f"shape {str(inner)[:40]}"
        if math.prod(inner) > min(2**32, MOST_SHARING * self.values.shape[-1]):
            return f"shape {list(inner)} of {self.values.shape[-1]} values"
        return None


def places(seed: Array, shape: tuple[int, ...], count: int) -> tuple[Array, Array]:
    """Of each entry, which value stands there, and with which sign.

    Args:
      seed: [] uint32.
      shape: of the entries.
      count: K, of values.

    Returns:
      Of the shape, int32 from 0 to K - 1, and float32 of -1 and 1.

    Example:
      >>> buckets, signs = places(jnp.uint32(0), (4, 100), 8)
      >>> jnp.bincount(buckets.ravel()).min().item() > 30, abs(signs.sum().item()) < 60
      (True, True)
    """
    numbers = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape)
    mixed = _mixed(numbers ^ _mixed(seed + jnp.uint32(0x9E3779B9)))
    return (mixed >> 1).astype(jnp.int32) % count, 1 - 2 * (mixed & 1).astype(jnp.float32)


def _mixed(x: Array) -> Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
