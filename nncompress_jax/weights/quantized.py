"""A weight in integers of 8 bits or fewer."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import quax
from jax import lax
from jax.core import ShapedArray
from jax.typing import ArrayLike

from nncompress_jax.axes.contraction import axes_of_product
from nncompress_jax.axes.movements import Movement, Placing
from nncompress_jax.axes.places import repeated
from nncompress_jax.axes.primitives import RAGGED_DOT
from nncompress_jax.axes.rules import axis_rule
from nncompress_jax.ops import int8, quantizer
from nncompress_jax.ops.integer import LONGEST_SUM
from nncompress_jax.types import Array
from nncompress_jax.weights.base import CompressedWeight, bind, dense, on_dense
from nncompress_jax.weights.checks import is_array, is_known_zero, unexpected
from nncompress_jax.weights.delayed import after_inputs
from nncompress_jax.weights.packed import check_codes


class Quantized(CompressedWeight):
    """(codes - zero_point) * scale; as a rule one scale for each output channel, and no zero point.

    In a convolution or dot product with float inputs, an `integer` weight quantizes these too and multiplies
    int8 x int8 -> int32; another is materialised first. Error: each weight is at most half its scale from the one
    that was quantized (half a step of the inputs in the product as well, and what `input_scale` clips). Scales are
    float32 whatever the logical dtype, and are never rounded to it. Nothing in it trains: `FakeQuantized` does.

    Attributes:
      codes: [..., O] int8, or `Packed` of 4, 3 or 2 bits; the logical shape is theirs.
      scale: float32 of the codes' rank. Along an axis of n entries it has n, or 1 that all share, or a divisor of n:
        then groups of neighbours share one, and products run on floats.
      input_scale: float32, a scalar: of the inputs' codes, static; None: one from each example (row) as it comes.
      zero_point: int8 of the scale's shape; None: zero itself is exact, and the codes reach as far below as above.
      straight: float32 of the logical shape, the value of the weight once more, or None. Gradients go there and
        nowhere else, so that they pass the rounding; a program that takes none does not compute it.
      integer: whether products run on integers.
      dtype_name: logical dtype.

    Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", section 2.1.
    """

    FILE_FIELDS: ClassVar[Mapping[str, str]] = {"input_scale": "input_step"}
    WHOLE: ClassVar[tuple[str, ...]] = ("codes", "straight")
    SHARED: ClassVar[tuple[str, ...]] = ("scale", "zero_point")

    codes: Array | CompressedWeight
    scale: Array
    input_scale: Array | None = None
    zero_point: Array | None = None
    straight: Array | None = None
    integer: bool = eqx.field(static=True, default=True)
    dtype_name: str = eqx.field(static=True, default="float32")

    def aval(self) -> ShapedArray:
        return ShapedArray(self.codes.shape, jnp.dtype(self.dtype_name))

    def materialise(self) -> Array:
        if self.straight is not None:
            return self.straight.astype(self.dtype_name)
        codes = dense(self.codes)
        if self.zero_point is not None:
            codes = codes.astype(jnp.float32) - repeated(self.zero_point, codes.shape)
        return (codes * repeated(self.scale, codes.shape)).astype(self.dtype_name)

    def stacked(self, length: int) -> "Quantized":
        """Scales that the first axis shares are repeated along it."""
        step, zero_point = self.input_scale, self.zero_point
        return dataclasses.replace(
            self,
            scale=jnp.broadcast_to(self.scale, (length, *self.scale.shape[1:])),
            input_scale=step if step is None or step.ndim else jnp.broadcast_to(step, (length,)),
            zero_point=zero_point
            if zero_point is None
            else jnp.broadcast_to(zero_point, (length, *zero_point.shape[1:])),
        )

    def moved(self, movement: Movement) -> Any:
        """A scale of the inputs for each entry along the first axis, as of stacked layers, stays with its layer."""
        weight, scales = super().moved(movement), self.input_scale
        if isinstance(weight, str) or scales is None or not scales.ndim:
            return weight
        scales = movement.shared(scales.reshape(-1, *[1] * (self.ndim - 1)))
        if scales.size > 1 and scales.size != scales.shape[0]:
            return "scales of the inputs for several layers"
        return dataclasses.replace(weight, input_scale=scales.reshape(-1 if scales.size > 1 else ()))

    def filled(self, where: Any, value: Any) -> Any:
        """Zero and NaN are scales, too."""
        if value != 0 and not np.isnan(value):
            return super().filled(where, value)
        straight = None if self.straight is None else jnp.where(where, value, self.straight)
        return dataclasses.replace(self, scale=jnp.where(where, value, self.scale), straight=straight)

    def check_parts(self) -> str | None:
        if wrong := check_codes(self.codes, "int8"):
            return wrong
        shape = self.codes.shape
        if not is_array(self.scale, "float32", len(shape)):
            return unexpected("scale", self.scale, f"float32 of {len(shape)} axes")
        sizes = zip(self.scale.shape, shape, strict=True)
        if any(size < 1 or whole % size for size, whole in sizes if size != whole):
            return f"scale {list(self.scale.shape)} for codes {list(shape)}"
        if self.input_scale is not None and not (is_array(self.input_scale, "float32") and self.input_scale.ndim < 2):
            return unexpected("input_scale", self.input_scale, "a float32")
        zero = self.zero_point
        if zero is not None and not (is_array(zero, "int8") and zero.shape == self.scale.shape):
            return unexpected("zero_point", zero, f"int8 {list(self.scale.shape)}")
        if self.straight is not None and not (is_array(self.straight, "float32") and self.straight.shape == shape):
            return unexpected("straight", self.straight, f"float32 {list(shape)}")
        return None if type(self.integer) is bool else f"integer is {str(self.integer)[:20]!r}"

    @property
    def has_groups(self) -> bool:
        """Whether groups of neighbours along an axis share a scale."""
        return any(1 < size < whole for size, whole in zip(self.scale.shape, self.shape, strict=True))


def shared_axes(x: Array, axes: Sequence[int]) -> tuple[int, ...]:
    """All axes of an array but those along which its scale varies; a vector has one scale."""
    varying = {axis % x.ndim for axis in axes} if x.ndim > 1 else set()
    return tuple(axis for axis in range(x.ndim) if axis not in varying)


def _operands(
    weight: Quantized, inputs: Any, pairs: dict[int, int | None]
) -> tuple[Array, quantizer.Codes, Array | None] | str:
    """What a product on integers takes, or why there can be none.

    A scale that varies along contracted axes moves into the inputs: x (codes s) = (x s) codes.

    Args:
      weight: of the product.
      inputs: of the product.
      pairs: contracted axes of the weight, with the one axis of the inputs that each meets; None if there is none.

    Returns:
      Inputs, codes with a scale that no contracted axis varies, and the static step of the inputs, if any.
    """
    if not weight.integer:
        return "the weight is quantized, its inputs are not"
    if weight.has_groups or weight.zero_point is not None:
        return "scales by group" if weight.has_groups else "a zero point"
    if not jnp.issubdtype(inputs.dtype, jnp.floating):
        return f"the inputs are {inputs.dtype}"
    if math.prod(weight.shape[axis] for axis in pairs) > LONGEST_SUM:
        return f"int32 holds sums of {LONGEST_SUM} products"
    held, straight = after_inputs((weight.codes, inputs))[0], weight.straight
    codes = dense(held)
    varying = [axis for axis, size in enumerate(weight.scale.shape) if size > 1]
    inner = [axis for axis in varying if axis in pairs]
    if not inner:
        return inputs, quantizer.Codes(codes, weight.scale, straight), weight.input_scale
    if inner != varying or any(pairs[axis] is None for axis in inner):
        return f"scales vary along axes {varying}, of which {inner} are summed over"
    order = sorted(inner, key=lambda axis: pairs[axis] or 0)
    factor = jnp.transpose(weight.scale, order + [axis for axis in range(weight.ndim) if axis not in order])
    sizes = {pairs[axis]: weight.scale.shape[axis] for axis in order}
    factor = factor.reshape([sizes.get(axis, 1) for axis in range(inputs.ndim)])
    straight = None if straight is None else straight / weight.scale
    kernel = quantizer.Codes(codes, jnp.ones((1,) * weight.ndim, jnp.float32), straight)
    return inputs * factor, kernel, None  # a static step is of the inputs as they came


ROWS_OF_GROUPS = lax.RaggedDotDimensionNumbers((((1,), (1,)), ((), ())), (0,), (0,))


@quax.register(lax.conv_general_dilated_p)
def _(inputs: ArrayLike, kernel: Quantized, **params: Any) -> Any:
    pairs = axes_of_product(lax.conv_general_dilated_p, params, [jnp.shape(inputs), kernel.shape]).partners(1)
    operands = _operands(kernel, inputs, pairs) if params["batch_group_count"] == 1 else "batch groups"
    if isinstance(operands, str):
        return on_dense(lax.conv_general_dilated_p, (inputs, kernel), params, reason=operands)
    return int8.convolve(*operands, **params)


@quax.register(lax.dot_general_p)
def _(inputs: ArrayLike, kernel: Quantized, **params: Any) -> Any:
    pairs = axes_of_product(lax.dot_general_p, params, [jnp.shape(inputs), kernel.shape]).partners(1)
    operands = _operands(kernel, inputs, pairs)
    if isinstance(operands, str):
        return on_dense(lax.dot_general_p, (inputs, kernel), params, reason=operands)
    return int8.contract(*operands, **params)


@quax.register(lax.dot_general_p)
def _(kernel: Quantized, inputs: ArrayLike, **params: Any) -> Any:
    (kernel_axes, inputs_axes), (kernel_batch, inputs_batch) = params["dimension_numbers"]
    if params["out_sharding"] is not None:
        return on_dense(lax.dot_general_p, (kernel, inputs), params, reason="kernel first, with an out_sharding")
    numbers = ((inputs_axes, kernel_axes), (inputs_batch, kernel_batch))
    outputs = bind(lax.dot_general_p, (inputs, kernel), params | {"dimension_numbers": numbers})
    batch = len(kernel_batch)
    free = kernel.ndim - len(kernel_axes) - batch
    return jnp.moveaxis(outputs, range(outputs.ndim - free, outputs.ndim), range(batch, batch + free))


@quax.register(RAGGED_DOT)
def _(inputs: ArrayLike, kernel: Quantized, counts: ArrayLike, **params: Any) -> Any:
    plain = params["ragged_dot_dimension_numbers"] == ROWS_OF_GROUPS
    operands = _operands(kernel, inputs, {1: 1}) if plain else "groups along other axes than those of `lax.ragged_dot`"
    if isinstance(operands, str):
        return on_dense(RAGGED_DOT, (inputs, kernel, counts), params, reason=operands)
    rows, codes, scale = operands
    return int8.contract_ragged(rows, codes, jnp.asarray(counts), scale, **params)


@quax.register(lax.mul_p)
def _(weight: Quantized, factor: ArrayLike, **params: Any) -> Any:
    return _scaled(lax.mul_p, weight, factor, params)


@quax.register(lax.mul_p)
def _(factor: ArrayLike, weight: Quantized, **params: Any) -> Any:
    return _scaled(lax.mul_p, weight, factor, params)


@quax.register(lax.div_p)
def _(weight: Quantized, divisor: ArrayLike, **params: Any) -> Any:
    return _scaled(lax.div_p, weight, divisor, params)


def _scaled(primitive: Any, weight: Quantized, factor: Any, params: dict[str, Any]) -> Any:
    """By a scalar; another factor would need scales of its own shape."""
    if jnp.ndim(factor):
        return on_dense(primitive, (weight, factor), params, reason=f"{primitive} with an array")
    factor = jnp.asarray(factor, jnp.float32)
    straight = None if weight.straight is None else primitive.bind(weight.straight, factor, **params)
    return dataclasses.replace(weight, scale=primitive.bind(weight.scale, factor, **params), straight=straight)


@quax.register(lax.pad_p)
def _(weight: Quantized, padding: ArrayLike, **params: Any) -> Any:
    if weight.zero_point is not None or not is_known_zero(padding):
        return on_dense(lax.pad_p, (weight, padding), params, reason="padded with what its codes do not stand for")
    rule = axis_rule("pad", params, [weight.shape, ()])
    return weight.moved(Placing(weight.shape, rule.places()))
