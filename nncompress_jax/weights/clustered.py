"""A weight whose entries are taken from a small codebook."""

import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import ShapedArray

from nncompress_jax.axes.movements import Movement
from nncompress_jax.types import Array
from nncompress_jax.weights.base import CompressedWeight, dense
from nncompress_jax.weights.checks import is_array, unexpected
from nncompress_jax.weights.packed import check_codes, largest_code


class Clustered(CompressedWeight):
    """codebook[codes]: every entry is one of K values; those train, by plain autodiff, each with all its entries.

    Products run on the dense array, which is looked up inside the program.

    Attributes:
      codebook: [K] float32, or [K, O]: one for each output channel; K from 2 to 256.
      codes: [..., O] uint8 below K, packed where a byte holds several; the logical shape is theirs.
      dtype_name: logical dtype.

    Source: Han et al. 2016, "Deep Compression", section 3.
    """

    TRAINS: ClassVar[tuple[str, ...]] = ("codebook",)
    WHOLE: ClassVar[tuple[str, ...]] = ("codes",)

    codebook: Array
    codes: Array | CompressedWeight
    dtype_name: str = eqx.field(static=True, default="float32")

    def aval(self) -> ShapedArray:
        return ShapedArray(self.codes.shape, jnp.dtype(self.dtype_name))

    def materialise(self) -> Array:
        codes = dense(self.codes).astype(jnp.int32)
        if self.codebook.ndim == 1:
            placed = jax.typeof(codes).sharding
            values = jnp.asarray(self.codebook).at[codes].get(out_sharding=placed if any(placed.spec) else None)
            return values.astype(self.dtype_name)
        values = jnp.take_along_axis(self.codebook, codes.reshape(-1, codes.shape[-1]), axis=0)
        return values.reshape(codes.shape).astype(self.dtype_name)

    def moved(self, movement: Movement) -> Any:
        own = self.codebook.ndim == 2 and not movement.keeps_last
        return "a codebook for each output channel" if own else super().moved(movement)

    def check_parts(self) -> str | None:
        if wrong := check_codes(self.codes, "uint8"):
            return wrong
        book = self.codebook
        if not is_array(book, "float32") or book.ndim not in (1, 2) or not 2 <= book.shape[0] <= 256:
            return unexpected("codebook", book, "float32 [K] or [K, O], K from 2 to 256")
        if book.ndim == 2 and book.shape[1] != self.codes.shape[-1]:
            return f"codebook {list(book.shape)} for codes {list(self.codes.shape)}"
        largest = largest_code(self.codes)
        return None if largest < book.shape[0] else f"codes up to {largest} for {book.shape[0]} values"

    def preconditioned(self, gradient: Any) -> Any:
        """The mean over a value's entries, not the sum: so far they would move, on average, if each trained alone."""

        def total(codebook: Array) -> Array:
            return dataclasses.replace(self, codebook=codebook, dtype_name="float32").materialise().sum()

        members = jax.grad(total)(self.codebook)
        return dataclasses.replace(gradient, codebook=gradient.codebook / jnp.maximum(members, 1))

    def stacked(self, length: int) -> "Clustered":
        """The codebook serves every step."""
        return dataclasses.replace(self, codebook=jnp.broadcast_to(self.codebook, (length, *self.codebook.shape)))
