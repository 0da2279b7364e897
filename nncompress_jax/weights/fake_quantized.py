"""A float weight that trains through its own quantization."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray

from nncompress_jax.ops import quantizer
from nncompress_jax.ops.ste import learned_scale, scale_factor, straight_through
from nncompress_jax.types import Array
from nncompress_jax.weights.base import CompressedWeight
from nncompress_jax.weights.checks import are_axes, is_array, is_broadcast, unexpected
from nncompress_jax.weights.entropy import channel_norms, entropy_bits
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
      price: float32, a scalar, with a scale: what a bit of the codes' entropy costs, in the loss's unit; training adds
        it to the gradients. None: nothing.
      rate: bits for each entry that all weights of this rate are to take together; training moves their prices, which
        are the same. 0: the price stays.
      channels: what a code in use costs of an input channel as a whole, in bits, beside its own; 0: nothing.
      channel_axis: of the input channels, from the back.
      bits: 8, 4, 3 or 2.
      axes: along which the scale varies.
      tracked: whether training moves `input_scale` with what it sees.
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
    price: Array | None = None
    bits: int = eqx.field(static=True, default=8)
    axes: tuple[int, ...] = eqx.field(static=True, default=(-1,))
    tracked: bool = eqx.field(static=True, default=False)
    rate: float = eqx.field(static=True, default=0.0)
    channels: float = eqx.field(static=True, default=0.0)
    channel_axis: int = eqx.field(static=True, default=-2)
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
        """The quantized weight: the same codes and scales."""
        codes = self._codes()
        return self._quantized(packed(codes.codes, self.bits, -(2 ** (self.bits - 1))), codes.scale, None)

    def entropy_bits(self) -> Array:
        """What its codes take in a file, as `entropy.entropy_bits` has it."""
        assert self.scale is not None
        return entropy_bits(self.weight / self.scale, int(quantizer.quant_bound(self.bits)))

    def preconditioned(self, gradient: Any) -> Any:
        """With the gradient of what the codes cost; that of the scale is as small beside it as LSQ makes its own."""
        price = self.price
        if price is None or self.scale is None:
            return gradient

        def cost(weight: Array, scale: Array) -> Array:
            bits = dataclasses.replace(self, weight=weight, scale=scale).entropy_bits()
            if self.channels:
                bits += self.channels * channel_norms(weight / lax.stop_gradient(scale), self.channel_axis)
            return price * bits

        by_weight, by_scale = jax.grad(cost, (0, 1))(self.weight, self.scale)
        by_scale *= scale_factor(self.weight, self.scale, quantizer.quant_bound(self.bits))
        return dataclasses.replace(gradient, weight=gradient.weight + by_weight, scale=gradient.scale + by_scale)

    @property
    def tracked_parts(self) -> tuple[str, ...]:
        moved = {"input_scale": self.tracked and self.input_scale is not None, "price": self.rate > 0}
        return tuple(name for name, does in moved.items() if does)

    def update_ranges(self, largest: Any) -> "FakeQuantized":
        if self.input_scale is None or not self.tracked:
            return self
        scale = MOMENTUM * self.input_scale + (1 - MOMENTUM) * quantizer.scale_of_range(largest)
        return dataclasses.replace(self, input_scale=scale)

    def check_parts(self) -> str | None:
        if not is_array(self.weight, "float32"):
            return unexpected("weight", self.weight, "float32")
        rank, axes = self.weight.ndim, self.axes
        if self.bits not in quantizer.BITS or type(self.tracked) is not bool:
            return f"bits {str(self.bits)[:20]}, tracked {str(self.tracked)[:20]}"
        if not are_axes(axes, rank):
            return f"axes {str(axes)[:40]} of {rank}"
        scale = self.scale
        if scale is not None and not is_broadcast(scale, self.weight.shape):
            return unexpected("scale", scale, f"float32 that fits {list(self.weight.shape)}")
        if self.input_scale is not None and not (is_array(self.input_scale, "float32") and self.input_scale.ndim < 2):
            return unexpected("input_scale", self.input_scale, "a float32")
        if self.price is not None and not (is_array(self.price, "float32", 0) and scale is not None):
            return unexpected("price", self.price, "a float32, beside a scale")
        if type(self.rate) is not float or not 0 <= self.rate <= 8 or (self.rate and self.price is None):
            return f"rate {str(self.rate)[:20]}, expected from 0 to 8, and a price"
        share, axis = self.channels, self.channel_axis
        if type(share) is not float or not 0 <= share < math.inf or (share and self.price is None):
            return f"channels {str(share)[:20]}, expected 0 or more, and a price"
        if share and not are_axes((axis,), rank):
            return f"channel_axis {str(axis)[:20]} of {rank}"
        return None

    def _codes(self) -> quantizer.Codes:
        axes = shared_axes(self.weight, self.axes)
        weight, scale = lax.stop_gradient((self.weight, self.scale))
        return quantizer.quantize(weight, axes, scale, self.bits)[0]

    def _quantized(self, codes: Array | CompressedWeight, scale: Array, straight: Array | None) -> Quantized:
        return Quantized(codes, scale, self.input_scale, straight=straight, dtype_name=self.dtype_name)


MOMENTUM = 0.99
"""Of the running mean that a tracked range is."""


PROPORTIONAL, INTEGRAL = 2.0, 0.02
"""Of prices: what twice the bits that are to be taken multiply a price by now, and for good with each step; as
logarithms.
"""


@dataclasses.dataclass(frozen=True)
class Prices:
    """Of weights that training brings to a rate: by the id of a price among the leaves.

    Attributes:
      now: what a bit costs in this step.
      steps: how the price itself moves, new less old.
    """

    now: Mapping[int, Array]
    steps: Mapping[int, Array]


def prices(variables: Any) -> Prices:
    """What bits cost that are to come to a rate: more while the weights of this rate take more together.

    Bits fall as long as a price is high, so that a price that only grew while they are too many would end far below
    the rate: what is paid now follows the error at once, too.

    Args:
      variables: before a step of training.

    Source: a multiplier of Lagrange that goes up where its constraint is broken (Arrow, Hurwicz and Uzawa 1958), with a
    proportional part (Stooke et al. 2020, "Responsive Safety in Reinforcement Learning by PID Lagrangian Methods").
    """
    weights = jax.tree.leaves(variables, is_leaf=lambda leaf: isinstance(leaf, FakeQuantized))
    now: dict[int, Array] = {}
    steps: dict[int, Array] = {}
    priced = [weight for weight in weights if isinstance(weight, FakeQuantized) and weight.rate]
    for rate in {weight.rate for weight in priced}:
        together = [weight for weight in priced if weight.rate == rate]
        bits = sum(weight.entropy_bits() for weight in together) / sum(weight.weight.size for weight in together)
        error = jnp.clip(bits / rate - 1, -1, 1)
        for price in (weight.price for weight in together if weight.price is not None):
            now[id(price)], steps[id(price)] = (
                price * jnp.exp(PROPORTIONAL * error),
                price * jnp.expm1(INTEGRAL * error),
            )
    return Prices(now, steps)
