"""A float weight that trains through its own quantization."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray

from nncompress_jax.ops import quantizer
from nncompress_jax.ops.ste import learned_scale, straight_through
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Array
from nncompress_jax.weights.base import CompressedWeight, is_compressed
from nncompress_jax.weights.channel_pruned import ChannelPruned
from nncompress_jax.weights.low_rank import LowRank
from nncompress_jax.weights.packed import packed
from nncompress_jax.weights.quantized import Quantized, shared_axes


class FakeQuantized(CompressedWeight):
    """Stands for the quantized values of a float weight: operations are `Quantized`'s, gradients reach the float.

    They pass the rounding straight, and are zero where a learned scale clips the weight. Inputs are quantized as
    `Quantized` does it, and their gradients pass that rounding, too.

    Attributes:
      weight: [..., O] float32; the logical shape is its.
      scale: float32 of the weight's rank, learned, with size 1 along the axes that share one; None: from the
        largest magnitude, always anew.
      input_scale: float32, a scalar: of the inputs' codes, static; None: one from each example (row) as it comes.
      bits: 8, 4 or 2.
      axes: along which the scale varies.
      tracked: whether training moves `input_scale` with what it sees (`moved_ranges`).
      dtype_name: logical dtype.

    Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", section 3; Esser et al. 2020, "Learned Step Size Quantization".
    """

    TRAINS: ClassVar[tuple[str, ...]] = ("weight", "scale")
    DECAYS: ClassVar[tuple[str, ...]] = ("weight",)
    FILE_FIELDS: ClassVar[Mapping[str, str]] = {"scale": "step", "input_scale": "input_step"}

    weight: Array
    scale: Array | None = None
    input_scale: Array | None = None
    bits: int = eqx.field(static=True, default=8)
    axes: tuple[int, ...] = eqx.field(static=True, default=(-1,))
    tracked: bool = eqx.field(static=True, default=False)
    dtype_name: str = eqx.field(static=True, default="float32")

    def aval(self) -> ShapedArray:
        return ShapedArray(self.weight.shape, jnp.dtype(self.dtype_name))

    def lowered(self) -> Quantized:
        codes = self._codes()
        if self.scale is None:
            straight = straight_through(codes.codes * codes.scale, self.weight)
        else:
            straight = learned_scale(self.weight, codes.codes, self.scale, quantizer.quant_bound(self.bits))
        return self._quantized(codes.codes, codes.scale, straight)

    def convert(self) -> Quantized:
        """The quantized weight, with outputs that are the same to the last bit."""
        codes = self._codes()
        return self._quantized(packed(codes.codes, self.bits, -(2 ** (self.bits - 1))), codes.scale, None)

    def _codes(self) -> quantizer.Codes:
        axes = shared_axes(self.weight, self.axes)
        weight, scale = lax.stop_gradient((self.weight, self.scale))
        return quantizer.quantize(weight, axes, scale, self.bits)[0]

    def _quantized(self, codes: Array | CompressedWeight, scale: Array, straight: Array | None) -> Quantized:
        return Quantized(codes, scale, self.input_scale, straight=straight, dtype_name=self.dtype_name)


MOMENTUM = 0.99
"""Of the running mean that a tracked range is."""


def largest_magnitude(path: str, inputs: Array) -> Array:
    """What is observed of a weight's inputs, for `moved_ranges`."""
    return jnp.abs(inputs).max().astype(jnp.float32)


def moved_ranges(variables: Any, observed: Mapping[str, Any]) -> Any:
    """Weights that track the range of their inputs, with that range moved by what one batch showed.

    Args:
      variables: any tree; other leaves stay.
      observed: of `nnc.observe(apply, largest_magnitude)`.
    """

    def moved(path: str, leaf: Any) -> Any:
        if isinstance(leaf, ChannelPruned):
            return dataclasses.replace(leaf, values=moved(path, leaf.values))
        if isinstance(leaf, LowRank):  # the inputs meet the first factor
            first, *others = leaf.factors
            return LowRank((moved(path, first), *others), leaf.dtype_name)
        if not isinstance(leaf, FakeQuantized) or leaf.input_scale is None or not leaf.tracked or path not in observed:
            return leaf
        largest = jnp.stack([jnp.max(seen.value) for seen in observed[path]]).max()
        scale = MOMENTUM * leaf.input_scale + (1 - MOMENTUM) * quantizer.scale_of_range(largest)
        return dataclasses.replace(leaf, input_scale=scale)

    leaves = named_leaves(variables, is_compressed)
    structure = jax.tree.structure(variables, is_leaf=is_compressed)
    return jax.tree.unflatten(structure, [moved(path, leaf) for path, leaf in leaves])
