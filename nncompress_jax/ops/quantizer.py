"""Rounding floats to symmetric integer codes, by AQT.

Source: AQT (github.com/google/aqt), whose quantizer and clip masks these are; its own convolution multiplies floats.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from aqt.jax.v2 import aqt_quantizer
from aqt.jax.v2.aqt_tensor import QTensor
from jax import lax

from nncompress_jax.types import Array

BITS = (8, 4, 3, 2)
"""Of the codes of weights."""


class Codes(NamedTuple):
    """A quantized array, codes * scale; the scale has size 1 along the axes that share one.

    `straight` is its value once more, or None: where there is one, gradients go there, and none to the scale.
    """

    codes: Any  # int8 array; in gradients, of the type float0
    scale: Array
    straight: Array | None = None


Gradient = Callable[[Array], Array]


def quantize(x: Array, axes: Sequence[int], scale: Array | None = None, bits: int = 8) -> tuple[Codes, Gradient]:
    """Rounds to symmetric codes, by AQT.

    Args:
      x: float array.
      axes: that share a scale.
      scale: float32, broadcastable to x; what does not fit into the bits is clipped. By default the largest
        magnitude along the axes is 127.5 scales of 8 bits (7.5 of 4, 3.5 of 3, 1.5 of 2), and nothing is moved by
        more than half a scale.
      bits: one of `BITS`.

    Returns:
      Codes in [-127, 127] (7 for 4 bits, 3 for 3, 1 for 2), int8, with their scale in float32; and the straight-through
      gradient: from that of the dequantized array to that of x, zero where x was clipped to the range of a given scale.

    Example:
      >>> quantized, _ = quantize(jnp.array([[0.0, 1.0, -2.0]]), axes=(1,))
      >>> quantized.codes.tolist(), round(quantized.scale.item(), 4)
      ([[0, 64, -127]], 0.0157)
    """
    quantizer = aqt_quantizer.quantizer_make(bits)
    quantizer.numerics.dtype = None  # whole numbers, still float32
    x = x.astype(jnp.float32)
    if scale is None:
        quantized, gradient = quantizer.quant(x, calibration_axes=tuple(axes))
    else:
        quantizer.numerics.clip_gradient = True
        scale = jnp.reshape(scale, scale.shape or (1,) * x.ndim)
        template = QTensor(qvalue=None, scale=[scale], scale_t=None, bias=[], dequant_dtype=x.dtype)
        quantized, gradient = quantizer.calculate_qvalue(x, template)
    # A Partial of a Partial is a tree of arrays, fit to be kept for a backward pass.
    return Codes(_int8(quantized.qvalue), quantized.scale[0]), jax.tree_util.Partial(_of_inputs, gradient)


def _int8(whole: Array) -> Array:
    """Whole numbers below 2^22 in float32: behind 1.5 * 2^23 they are the last bits of the sum.

    XLA on the CPU casts floats to int8 one by one, and to int32 with checks for what int32 does not hold.
    """
    return lax.bitcast_convert_type(whole + jnp.float32(1.5 * 2**23), jnp.int32).astype(jnp.int8)


def _of_inputs(gradient: Callable[[Array], tuple[Array, None]], cotangent: Array) -> Array:
    return gradient(cotangent)[0]


def quant_bound(bits: int = 8) -> float:
    """How many scales it is from zero to the end of the range, as AQT counts: 127.5, 7.5, 3.5, 1.5."""
    return float(aqt_quantizer.quantizer_make(bits).numerics.get_quant_bound())


def scale_of_range(largest: Any) -> Any:
    """The scale whose 8-bit codes reach to +-largest."""
    return largest / quant_bound()
