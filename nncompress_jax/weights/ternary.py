"""A weight that trains through its own rounding to three values."""

import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray

from nncompress_jax.types import Array
from nncompress_jax.weights.base import CompressedWeight
from nncompress_jax.weights.checks import is_array, unexpected
from nncompress_jax.weights.clustered import Clustered
from nncompress_jax.weights.packed import packed

THRESHOLD = 0.7
"""Of the mean magnitude: what is smaller is zero, which is near the closest (Li et al. 2016, section 2.2)."""


class FakeTernary(CompressedWeight):
    """Stands for three values: `positive` where the float weight is large, `-negative` where -weight is, else zero.

    Gradients pass the rounding straight, times the value that stands there (1 for zero); those of the two values are
    sums over their entries. Products run on the dense array. Converted it is `Clustered`.

    Attributes:
      weight: [..., O] float32; the logical shape is its.
      positive: [] float32.
      negative: [] float32.
      dtype_name: logical dtype.

    Source: Zhu et al. 2017, "Trained Ternary Quantization", section 3; the threshold: Li et al. 2016, "Ternary Weight
    Networks".
    """

    TRAINS: ClassVar[tuple[str, ...]] = ("weight", "positive", "negative")
    DECAYS: ClassVar[tuple[str, ...]] = ("weight",)

    weight: Array
    positive: Array
    negative: Array
    dtype_name: str = eqx.field(static=True, default="float32")

    def aval(self) -> ShapedArray:
        return ShapedArray(self.weight.shape, jnp.dtype(self.dtype_name))

    def materialise(self) -> Array:
        above, below = parted(self.weight)
        values = jnp.where(above, self.positive, jnp.where(below, -self.negative, 0))
        slope = lax.stop_gradient(jnp.where(above, self.positive, jnp.where(below, self.negative, 1)))
        straight = slope * (self.weight - lax.stop_gradient(self.weight))
        return (values + straight).astype(self.dtype_name)

    def convert(self) -> Clustered:
        """Codes of two bits, 1 for zero, and the three values."""
        above, below = parted(self.weight)
        codes = 1 + above.astype(jnp.uint8) - below.astype(jnp.uint8)
        book = jnp.stack([-self.negative, jnp.zeros_like(self.positive), self.positive])
        return Clustered(book, packed(codes, 2), self.dtype_name)

    def preconditioned(self, gradient: Any) -> Any:
        """Of both values the mean over their entries, not the sum, as of `Clustered`."""
        above, below = parted(self.weight)
        positive = gradient.positive / jnp.maximum(above.sum(), 1)
        return dataclasses.replace(
            gradient, positive=positive, negative=gradient.negative / jnp.maximum(below.sum(), 1)
        )

    def check_parts(self) -> str | None:
        for name in ("weight", "positive", "negative"):
            part = getattr(self, name)
            if not is_array(part, "float32", None if name == "weight" else 0):
                return unexpected(name, part, "float32")
        return None


def parted(weight: Array) -> tuple[Array, Array]:
    """Where a weight is above its threshold, and where below the negative one."""
    weight = lax.stop_gradient(weight)
    threshold = THRESHOLD * jnp.abs(weight).mean()
    return weight > threshold, weight < -threshold
