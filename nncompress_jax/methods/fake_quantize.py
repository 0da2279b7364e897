"""Training through quantization."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from nncompress_jax.errors import InputError
from nncompress_jax.methods.calibration import Rule
from nncompress_jax.methods.layout import input_axis, scaled_axes
from nncompress_jax.methods.quantize import check_bits, static_scales, weight_of
from nncompress_jax.methods.selection import inside, replaced
from nncompress_jax.methods.steps import GivenSteps, Steps, check_given, chosen
from nncompress_jax.ops import quantizer
from nncompress_jax.tree import Where
from nncompress_jax.types import Array, Context, Method
from nncompress_jax.weights.fake_quantized import FakeQuantized
from nncompress_jax.weights.packed import Packed
from nncompress_jax.weights.quantized import Quantized, shared_axes

FIRST_RATE = 3.0
"""Bits of entropy of a weight whose codes have a price, where nothing says how many."""

FIRST_PRICE = 1e-6
"""Of a bit, where a rate is to be reached."""


def fake_quantize(
    *,
    bits: int = 8,
    where: Where = None,
    learned_scales: bool = False,
    ranges: Rule | None = None,
    tracked: bool = False,
    axes: Sequence[int] | None = None,
    step: Steps | None = None,
    rate: float | None = None,
    price: float | None = None,
    target_rate: float | None = None,
    channels: float = 0.0,
) -> Method:
    """Weights that train through their own quantization; `convert` gives the quantized ones.

    Weights that are `Quantized` already, with one scale or one for each channel, train on with the scales that they
    have.

    Args:
      bits: 8, 4, 3 or 2 for each weight; inputs have 8.
      where: which leaves, as in `quantize`; of `LowRank` weights the factors.
      learned_scales: scales train with the weights (LSQ); else they follow the largest magnitude of each channel.
      ranges: static ranges of the inputs to begin with, by a rule of `calibration`; this needs `apply` and `batches`.
        By default each example (each row, in a dot product) brings its own range.
      tracked: training moves the static ranges with the inputs that it sees, by a running mean.
      axes: along which the scale varies, as in `quantize`.
      step: to begin with, as in `quantize`: one learned scale for each weight, whose codes are as large as they have to
        be.
      rate: instead, bits of entropy to begin with, as in `quantize`.
      price: what a bit costs that the codes take in a file, in the unit of the loss, as 1e-7: `nnc.optimizer` adds the
        gradient of their entropy, which pulls weights to frequent codes and makes scales larger. It needs scales that
        are learned: without any of `step`, `rate`, `learned_scales` and quantized weights, it begins with a rate of 3.
      target_rate: instead of a price, the bits of entropy that training brings the codes of all these weights to, on
        average over their entries: `nnc.optimizer` raises the price while they take more, and lowers it else.
      channels: beside a price or a target, what a code in use costs of an input channel as a whole, in bits, as 0.5: it
        draws channels to zero, which `remove_unused_channels` then leaves out.

    Returns:
      A method for `compress` and `chain`.

    Raises:
      InputError: as `quantize` does; for `tracked` without `ranges`, a price that is none, and `channels` without one.

    Example:
      >>> from nncompress_jax.methods.conversion import convert
      >>> weights = fake_quantize(bits=4)({"kernel": jnp.array([[0.5, 2.0], [-1.0, 1.0]])}, Context())
      >>> convert(weights)["kernel"].codes.materialise().tolist()
      [[4, 7], [-7, 4]]

    Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", section 3; learned scales: Esser et al. 2020, "Learned Step Size Quantization"; training against the
    entropy of codes: Oktay et al. 2020, "Scalable Model Compression by Entropy Penalized Reparameterization".
    """
    check_bits(bits)
    check_given(step, rate, {"axes": axes is not None, "learned_scales": learned_scales})
    if price is not None and not 0 < price < math.inf:
        raise InputError(f"price={price}: expected what a bit costs, more than 0, as 1e-7")
    if target_rate is not None:
        if price is not None or not 0 < target_rate <= 8:
            raise InputError(
                f"target_rate={target_rate}, price={price}: expected one of them, a rate above 0, at most 8"
            )
        price = FIRST_PRICE
    if not 0 <= channels < math.inf or (channels and price is None):
        raise InputError(f"channels={channels}: expected 0 or more bits, beside price= or target_rate=")
    if price is not None and step is None and rate is None and not learned_scales:
        rate = FIRST_RATE
    if tracked and ranges is None:
        raise InputError("tracked=True needs ranges=, the rule for the ranges that training begins with")

    def method(variables: Any, context: Context) -> Any:
        known: dict[str, Quantized] = {}
        opened = inside(variables, functools.partial(_opened, known))
        taken = chosen(step, where, opened)
        static = static_scales(opened, context, taken, ranges, FakeQuantized) if ranges else {}
        steps = None if step is None and rate is None else GivenSteps(step, rate, bits)

        def make(path: str, leaf: Array) -> FakeQuantized:
            begun = known.pop(path, None)
            weight, scale, own_bits, varying = leaf.astype(jnp.float32), None, bits, tuple(axes or ())
            if begun is not None:
                scale, own_bits = begun.scale, begun.codes.bits if isinstance(begun.codes, Packed) else 8
                varying = tuple(axis for axis, size in enumerate(scale.shape) if size > 1)
            elif steps is not None:
                _, scale, _ = steps.codes(path, leaf)
            else:
                varying = scaled_axes(path, leaf, context) if axes is None else varying
                scale = _first_scale(weight, shared_axes(leaf, varying), bits) if learned_scales else None
            inputs = input_axis(path, leaf, context)
            input_scale = static.get(weight_of(path), begun.input_scale if begun is not None else None)
            return FakeQuantized(
                weight,
                scale,
                input_scale,
                None if price is None else jnp.float32(price),
                bits=own_bits,
                axes=varying,
                tracked=tracked and input_scale is not None,
                rate=float(target_rate or 0),
                channels=float(channels) if inputs is not None else 0.0,
                channel_axis=-2 if inputs is None else inputs,
                dtype_name=leaf.dtype.name,
            )

        result = replaced(opened, taken, make, makes=FakeQuantized, context=context)
        if steps is not None:
            steps.finish()
        return inside(result, lambda path, leaf: known.get(path, leaf))

    return method


def _opened(known: dict[str, Quantized], path: str, leaf: Any) -> Any:
    """Quantized weights that can train on, as floats; they are written down."""
    if not isinstance(leaf, Quantized) or leaf.zero_point is not None or leaf.has_groups or not leaf.integer:
        return leaf
    known[path] = leaf
    return leaf.materialise()


def _first_scale(weight: Array, axes: tuple[int, ...], bits: int) -> Array:
    """Twice the mean magnitude over the root of the largest code, but no further than the largest magnitude.

    Source: Esser et al. 2020, section 2.1.
    """
    magnitude = jnp.abs(weight)
    scale = 2 * magnitude.mean(axes, keepdims=True) / jnp.sqrt(jnp.float32(2 ** (bits - 1) - 1))
    most = magnitude.max(axes, keepdims=True) / quantizer.quant_bound(bits)
    scale = jnp.minimum(scale, most) if bits == 8 else scale
    return jnp.where(scale > 0, scale, 1)
