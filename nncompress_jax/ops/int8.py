"""Convolution and dot product on true 8-bit integers, with AQT's quantizer and straight-through gradients.

Inputs are quantized with one scale for each example (each row, in a dot product), or with a static range; kernels
with one scale for each output channel, unless they come as codes. Codes are symmetric: `x` is about `codes * scale`,
and zero is exact. The product of the codes is `ops.integer`'s; the scales multiply its int32 result.

`conv_general_dilated` and `dot_general` are callables for linen's arguments of those names: the layer then trains
through its own quantization.

Source: straight-through estimator: Bengio et al. 2013, "Estimating or Propagating Gradients Through Stochastic
Neurons".
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from nncompress_jax.errors import InputError
from nncompress_jax.ops import portable
from nncompress_jax.ops.conv import Layout, window_of
from nncompress_jax.ops.operations import Convolution, Dot, Operation, RaggedDot
from nncompress_jax.ops.quantizer import Codes, Gradient, quantize, scale_of_range
from nncompress_jax.types import Array

Kernel = Array | Codes


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def product(
    operation: Operation, inputs: Array, kernel: Kernel, scale: Array | None = None, more: tuple[Array, ...] = ()
) -> Array:
    """The operation on 8-bit integers.

    Args:
      operation: what is computed.
      inputs: float32; quantized here.
      kernel: float32, quantized here; or its codes, whose scale has size 1 along `operation.kernel_axes`.
      scale: of the inputs' codes; by default from the largest magnitude along `operation.input_axes`.
      more: integer operands of the operation.

    Returns:
      float32. Its derivatives are those of the float operation at the dequantized operands, straight through the
      rounding: by the inputs, a float kernel, and the scale or `straight` of a kernel's codes; none by `scale`.
    """
    if portable.products_are_floats():
        codes = kernel if isinstance(kernel, Codes) else quantize(kernel, operation.kernel_axes(kernel))[0]
        given = () if scale is None else (scale,)
        weights = portable.dequantized_p.bind(codes.codes, codes.scale)
        return operation.of_rounded(portable.rounded_p.bind(inputs, *given), weights, *more)
    left, right, *_ = _quantized(operation, inputs, kernel, scale)
    sums = operation.of_codes(left.codes, right.codes, *more)
    return sums.astype(jnp.float32) * operation.output_scale(left.scale, right.scale, *more)


def _quantized(
    operation: Operation, inputs: Array, kernel: Kernel, scale: Array | None
) -> tuple[Codes, Codes, Gradient, Gradient | None]:
    """Both operands, and how derivatives pass the rounding of each that was rounded here."""
    left, of_inputs = quantize(inputs, operation.input_axes(inputs), scale)
    if isinstance(kernel, Codes):
        return left, kernel, of_inputs, None
    right, of_kernel = quantize(kernel, operation.kernel_axes(kernel))
    return left, right, of_inputs, of_kernel


@functools.partial(product.defjvp, symbolic_zeros=True)
def _(operation: Operation, primals: Any, tangents: Any) -> tuple[Array, Array]:
    inputs, kernel, scale, more = primals
    left, right, of_inputs, of_kernel = _quantized(operation, inputs, kernel, scale)
    right = right._replace(straight=None)
    keeping_codes = functools.partial(jax.checkpoint, prevent_cse=False)  # a backward pass keeps them, not floats

    @keeping_codes
    def by_inputs(right: Codes, tangent: Array) -> Array:
        return operation.of_floats(tangent, right.codes * right.scale, *more)

    @keeping_codes
    def by_kernel(left: Codes, tangent: Array) -> Array:
        return operation.of_floats(left.codes * left.scale, tangent, *more)

    terms = [] if isinstance(tangents[0], SymbolicZero) else [by_inputs(right, of_inputs(tangents[0]))]
    if of_kernel is not None:
        changed, spread = tangents[1], of_kernel
    elif kernel.straight is not None:
        changed, spread = tangents[1].straight, lambda tangent: tangent
    else:
        changed, spread = tangents[1].scale, lambda tangent: right.codes * tangent
    terms += [] if isinstance(changed, SymbolicZero) else [by_kernel(left, spread(changed))]
    outputs = product(operation, *primals)
    return outputs, functools.reduce(jnp.add, terms) if terms else jnp.zeros_like(outputs)


def convolve(inputs: Array, kernel: Kernel, scale: Array | None = None, **params: Any) -> Array:
    """`lax.conv_general_dilated_p` on 8-bit integers.

    Args:
      inputs: float, in the layout that the parameters say.
      kernel: float, or codes, in the layout that the parameters say.
      scale: of the inputs' codes, a scalar; by default one for each example.
      **params: the primitive's parameters; `batch_group_count` must be 1.

    Returns:
      In the primitive's layout and element type.
    """
    layout = Layout.of(params["dimension_numbers"])
    operation = Convolution(window_of(params))
    kernel = jax.tree.map(lambda part: jnp.transpose(part, layout.kernel), kernel)
    outputs = product(operation, _float32(jnp.transpose(inputs, layout.images)), _float32(kernel), scale)
    return layout.restored(outputs).astype(params["preferred_element_type"] or inputs.dtype)


def contract(inputs: Array, kernel: Kernel, scale: Array | None = None, **params: Any) -> Array:
    """`lax.dot_general_p` of inputs and a kernel, in this order, on 8-bit integers.

    Args:
      inputs: float.
      kernel: float, or codes.
      scale: of the inputs' codes, a scalar; by default one for each row.
      **params: the primitive's parameters.

    Returns:
      In the primitive's layout and element type.
    """
    operation = Dot(params["dimension_numbers"], params["out_sharding"])
    outputs = product(operation, _float32(inputs), _float32(kernel), scale)
    return outputs.astype(params["preferred_element_type"] or inputs.dtype)


def contract_ragged(inputs: Array, kernel: Kernel, counts: Array, scale: Array | None = None, **params: Any) -> Array:
    """`lax.ragged_dot_general_p` of rows [M, I] and kernels [G, I, O] on 8-bit integers; further as `contract`."""
    outputs = product(RaggedDot(inputs.shape[0]), _float32(inputs), _float32(kernel), scale, (counts,))
    return outputs.astype(params["preferred_element_type"] or inputs.dtype)


def _float32(x: Kernel) -> Kernel:
    return x if isinstance(x, Codes) else x.astype(jnp.float32)


def conv_general_dilated(lhs: Array, rhs: Array, *args: Any, input_range: float | None = None, **kwargs: Any) -> Array:
    """`jax.lax.conv_general_dilated` on 8-bit integers, for linen's argument of that name.

    Args:
      lhs: float images.
      rhs: float kernel; one scale for each output channel.
      *args: as `jax.lax.conv_general_dilated`'s, which `**kwargs` are too.
      input_range: largest magnitude of the images that is not clipped; by default that of each example.

    Returns:
      As `jax.lax.conv_general_dilated`'s.

    Raises:
      InputError: for a batch_group_count other than 1.

    Example:
      >>> import flax.linen as nn
      >>> layer = nn.Conv(4, (3, 3), conv_general_dilated=conv_general_dilated)
      >>> layer.init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 3)))[0].shape
      (1, 8, 8, 4)
    """
    params = _params(functools.partial(lax.conv_general_dilated, **kwargs), lhs, rhs, *args)
    if params["batch_group_count"] != 1:
        raise InputError(f"batch_group_count={params['batch_group_count']}: expected 1; use lax.conv_general_dilated")
    return convolve(lhs, rhs, _scale(input_range), **params)


def dot_general(lhs: Array, rhs: Array, *args: Any, input_range: float | None = None, **kwargs: Any) -> Array:
    """`jax.lax.dot_general` on 8-bit integers, for linen's argument of that name.

    Args:
      lhs: float inputs.
      rhs: float kernel; one scale for each output channel.
      *args: as `jax.lax.dot_general`'s, which `**kwargs` are too.
      input_range: largest magnitude of the inputs that is not clipped; by default that of each row.

    Returns:
      As `jax.lax.dot_general`'s.

    Example:
      >>> product = dot_general(jnp.array([[1.0, 2.0]]), jnp.array([[3.0], [4.0]]), (((1,), (0,)), ((), ())))
      >>> round(product.item(), 1)
      11.0
    """
    params = _params(functools.partial(lax.dot_general, **kwargs), lhs, rhs, *args)
    return contract(lhs, rhs, _scale(input_range), **params)


def _params(operation: Callable[..., Array], lhs: Array, rhs: Array, *args: Any) -> dict[str, Any]:
    """What lax makes of the arguments: the parameters of the one primitive that it binds."""
    program = jax.make_jaxpr(lambda lhs, rhs: operation(lhs, rhs, *args))(lhs, rhs)
    return program.eqns[-1].params


def _scale(input_range: float | None) -> Array | None:
    return None if input_range is None else jnp.float32(scale_of_range(input_range))
