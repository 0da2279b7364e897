"""A weight of signs, stored and in training."""

import dataclasses
import math
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import quax
from jax import lax
from jax.core import ShapedArray
from jax.typing import ArrayLike

from nncompress_jax.axes.contraction import axes_of_product
from nncompress_jax.ops import ste
from nncompress_jax.types import Array
from nncompress_jax.weights.base import CompressedWeight, bind, dense, on_dense, run
from nncompress_jax.weights.checks import are_axes, is_array, is_broadcast, unexpected
from nncompress_jax.weights.delayed import filled_for
from nncompress_jax.weights.packed import Packed, check_codes, packed
from nncompress_jax.weights.quantized import Quantized, shared_axes

Inputs = Literal["float", "int8", "sign"]
"""What a binary weight multiplies: its inputs as they are, 8-bit codes, or signs with the inputs' mean magnitude."""


class _Signs(CompressedWeight):
    """What both binary types do: they are `Quantized` with codes of -1 and 1.

    With "sign" inputs a product is XNOR-Net's: of signs, in int8 x int8 -> int32, times the mean magnitude of the
    inputs under the kernel. The gradient of a sign passes where the input is in [-1, 1].
    """


class Binary(_Signs):
    """signs * scale.

    Attributes:
      signs: [..., O] -1 or 1, eight to a byte; the logical shape is theirs.
      scale: float32 of the signs' rank, with size 1 along the axes that share one.
      inputs: what it multiplies.
      dtype_name: logical dtype.

    Source: Rastegari et al. 2016, "XNOR-Net", sections 3.1 and 3.2.
    """

    WHOLE: ClassVar[tuple[str, ...]] = ("signs",)
    SHARED: ClassVar[tuple[str, ...]] = ("scale",)

    signs: Array | Packed
    scale: Array
    inputs: Inputs = eqx.field(static=True, default="float")
    dtype_name: str = eqx.field(static=True, default="float32")

    def aval(self) -> ShapedArray:
        return ShapedArray(self.signs.shape, jnp.dtype(self.dtype_name))

    def check_parts(self) -> str | None:
        wrong = check_codes(self.signs, "int8", most=1)
        if wrong or not is_broadcast(self.scale, self.signs.shape) or self.inputs not in ("float", "int8", "sign"):
            return wrong or f"scale {list(np.shape(self.scale))}, inputs {str(self.inputs)[:20]!r}"
        return None

    def lowered(self) -> Quantized:
        return _quantized(self, 2 * dense(self.signs) - 1, self.scale)


class FakeBinary(_Signs):
    """A float weight that trains through its signs.

    Scaled by the mean magnitude of each output channel it is XNOR-Net's, else BinaryConnect's, whose weights training
    keeps in [-1, 1] (`projected`).

    Attributes:
      weight: [..., O] float32; the logical shape is its.
      scaled: whether signs are multiplied by the mean magnitude.
      inputs: what it multiplies.
      axes: along which the scale varies.
      dtype_name: logical dtype.

    Source: Courbariaux et al. 2015, "BinaryConnect", section 2; Rastegari et al. 2016, "XNOR-Net", section 3.1.
    """

    TRAINS: ClassVar[tuple[str, ...]] = ("weight",)

    weight: Array
    scaled: bool = eqx.field(static=True, default=True)
    inputs: Inputs = eqx.field(static=True, default="float")
    axes: tuple[int, ...] = eqx.field(static=True, default=(-1,))
    dtype_name: str = eqx.field(static=True, default="float32")

    def aval(self) -> ShapedArray:
        return ShapedArray(self.weight.shape, jnp.dtype(self.dtype_name))

    def lowered(self) -> Quantized:
        signs, scale = ste.sign(self.weight), self._scale()
        codes = lax.stop_gradient(signs).astype(jnp.int8)
        return _quantized(self, codes, lax.stop_gradient(scale), straight=signs * scale)

    def convert(self) -> Binary:
        """The weight in bits: the same signs and scales."""
        signs = packed((self.weight >= 0).astype(jnp.int8), bits=1)
        return Binary(signs, self._scale(), self.inputs, self.dtype_name)

    def check_parts(self) -> str | None:
        if not is_array(self.weight, "float32") or self.weight.ndim < 1:
            return unexpected("weight", self.weight, "float32")
        known = self.inputs in ("float", "int8", "sign") and type(self.scaled) is bool
        known = known and are_axes(self.axes, self.weight.ndim)
        return None if known else f"inputs {str(self.inputs)[:20]!r}, scaled {str(self.scaled)[:20]}"

    def projected(self) -> "FakeBinary":
        """BinaryConnect's weights stay in [-1, 1]: outside, no gradient would bring them back."""
        return self if self.scaled else dataclasses.replace(self, weight=jnp.clip(self.weight, -1, 1))

    def _scale(self) -> Array:
        magnitude = jnp.abs(self.weight).mean(shared_axes(self.weight, self.axes), keepdims=True)
        return magnitude if self.scaled else jnp.ones_like(magnitude)


def _quantized(weight: Any, codes: Array, scale: Array, straight: Array | None = None) -> Quantized:
    integer = weight.inputs != "float"
    input_scale = jnp.ones((), jnp.float32) if weight.inputs == "sign" else None
    return Quantized(codes, scale, input_scale, straight=straight, integer=integer, dtype_name=weight.dtype_name)


@quax.register(lax.conv_general_dilated_p)
def _(inputs: ArrayLike, kernel: _Signs, **params: Any) -> Any:
    return _product(lax.conv_general_dilated_p, inputs, kernel, params)


@quax.register(lax.dot_general_p)
def _(inputs: ArrayLike, kernel: _Signs, **params: Any) -> Any:
    return _product(lax.dot_general_p, inputs, kernel, params)


def _product(primitive: Any, inputs: Any, kernel: Any, params: dict[str, Any]) -> Any:
    """The inputs' magnitudes meet a kernel of equal parts, with one output instead of many."""
    if kernel.inputs != "sign":
        return bind(primitive, (inputs, kernel.lowered()), params)
    if params.get("feature_group_count", 1) != 1 or params.get("batch_group_count", 1) != 1:
        return on_dense(primitive, (inputs, kernel), params, reason="signs of the inputs in a grouped convolution")
    axes = axes_of_product(primitive, params, [inputs.shape, kernel.shape])
    summed, batch = axes.partners(1), set(axes.places[0])
    sizes = [*enumerate(zip(axes.places[1], kernel.shape, strict=True))]
    shape = tuple(size if axis in summed or place in batch else 1 for axis, (place, size) in sizes)
    share = 1 / math.prod(kernel.shape[axis] for axis in summed)
    box = filled_for(jax.tree.leaves(kernel)[0], share, shape, inputs.dtype)
    magnitude = run(primitive, (jnp.abs(inputs), box), params)
    return bind(primitive, (ste.sign(inputs), kernel.lowered()), params) * magnitude
