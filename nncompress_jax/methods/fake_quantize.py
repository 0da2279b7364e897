"""Training through quantization."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from nncompress_jax.errors import InputError
from nncompress_jax.methods.calibration import Rule
from nncompress_jax.methods.layout import scaled_axes
from nncompress_jax.methods.quantize import check_bits, static_scales, weight_of
from nncompress_jax.methods.selection import replaced
from nncompress_jax.ops import quantizer
from nncompress_jax.tree import Where
from nncompress_jax.types import Array, Context, Method
from nncompress_jax.weights.fake_quantized import FakeQuantized
from nncompress_jax.weights.quantized import shared_axes


def fake_quantize(
    *,
    bits: int = 8,
    where: Where = None,
    learned_scales: bool = False,
    ranges: Rule | None = None,
    tracked: bool = False,
    axes: Sequence[int] | None = None,
) -> Method:
    """Weights that train through their own quantization; `convert` gives the quantized ones.

    Args:
      bits: 8, 4, 3 or 2 for each weight; inputs have 8.
      where: which leaves, as in `quantize`; of `LowRank` weights the factors.
      learned_scales: scales train with the weights (LSQ); else they follow the largest magnitude of each channel.
      ranges: static ranges of the inputs to begin with, by a rule of `calibration`; this needs `apply` and `batches`.
        By default each example (each row, in a dot product) brings its own range.
      tracked: training moves the static ranges with the inputs that it sees, by a running mean.
      axes: along which the scale varies, as in `quantize`.

    Returns:
      A method for `compress` and `chain`.

    Raises:
      InputError: as `quantize` does; for `tracked` without `ranges`.

    Example:
      >>> from nncompress_jax.methods.conversion import convert
      >>> weights = fake_quantize(bits=4)({"kernel": jnp.array([[0.5, 2.0], [-1.0, 1.0]])}, Context())
      >>> convert(weights)["kernel"].codes.materialise().tolist()
      [[4, 7], [-7, 4]]

    Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", section 3; learned scales: Esser et al. 2020, "Learned Step Size Quantization".
    """
    check_bits(bits)
    if tracked and ranges is None:
        raise InputError("tracked=True needs ranges=, the rule for the ranges that training begins with")

    def method(variables: Any, context: Context) -> Any:
        static = static_scales(variables, context, where, ranges, FakeQuantized) if ranges else {}

        def make(path: str, leaf: Array) -> FakeQuantized:
            weight = leaf.astype(jnp.float32)
            varying = scaled_axes(path, leaf, context) if axes is None else tuple(axes)
            scale = _first_scale(weight, shared_axes(leaf, varying), bits) if learned_scales else None
            input_scale = static.get(weight_of(path))
            follows = tracked and input_scale is not None
            return FakeQuantized(weight, scale, input_scale, bits, varying, follows, leaf.dtype.name)

        return replaced(variables, where, make, makes=FakeQuantized, context=context)

    return method


def _first_scale(weight: Array, axes: tuple[int, ...], bits: int) -> Array:
    """Twice the mean magnitude over the root of the largest code, but no further than the largest magnitude.

    Source: Esser et al. 2020, section 2.1.
    """
    magnitude = jnp.abs(weight)
    scale = 2 * magnitude.mean(axes, keepdims=True) / jnp.sqrt(jnp.float32(2 ** (bits - 1) - 1))
    most = magnitude.max(axes, keepdims=True) / quantizer.quant_bound(bits)
    scale = jnp.minimum(scale, most) if bits == 8 else scale
    return jnp.where(scale > 0, scale, 1)
