"""Weights of signs."""

from typing import Any

import jax.numpy as jnp

from nncompress_jax.errors import InputError
from nncompress_jax.methods.in_sequence import replaced_in_sequence
from nncompress_jax.methods.layout import scaled_axes
from nncompress_jax.methods.rounding import Rounding, check_rounding, closest_codes, nearest_sign
from nncompress_jax.methods.second_order import Problem
from nncompress_jax.methods.selection import replaced
from nncompress_jax.tree import Where
from nncompress_jax.types import Array, Context, Method
from nncompress_jax.weights.binary import Binary, FakeBinary, Inputs
from nncompress_jax.weights.quantized import shared_axes

FACTORS = tuple(0.5 + 0.1 * turn for turn in range(11))
"""Of the mean magnitude: scales that are tried where outputs are to stay closest."""


def binarize(
    *,
    where: Where = None,
    scaled: bool = True,
    inputs: Inputs = "float",
    train: bool = False,
    rounding: Rounding = "nearest",
) -> Method:
    """Weights as signs, with a scale for each output channel, as `quantize` finds it.

    Args:
      where: which leaves, as in `quantize`.
      scaled: signs times the mean magnitude (XNOR-Net); else signs alone (BinaryConnect).
      inputs: what they multiply: "float", "int8" (codes of 8 bits), or "sign" (signs, times their mean magnitude).
      train: float weights that train through their signs (`FakeBinary`), for `convert`; else the signs (`Binary`).
      rounding: "nearest", or "second_order", as in `quantize`; each output then has the best of several scales.

    Returns:
      A method for `compress` and `chain`.

    Raises:
      InputError: for other inputs, and signs of inputs in the second order, which knows them as floats; (when applied)
        for leaves that are compressed, not float, or not finite.

    Example:
      >>> from nncompress_jax.types import Context
      >>> small = binarize()({"kernel": jnp.array([[0.5, 2.0], [-1.5, 1.0]])}, Context())
      >>> small["kernel"].materialise().tolist()
      [[1.0, 1.5], [-1.0, 1.5]]

    Source: Courbariaux et al. 2015, "BinaryConnect"; Rastegari et al. 2016, "XNOR-Net".
    """
    if inputs not in ("float", "int8", "sign"):
        raise InputError(f"inputs={inputs!r}: expected 'float', 'int8' or 'sign'")

    check_rounding(rounding)
    if rounding == "second_order" and inputs == "sign":
        raise InputError(
            "inputs='sign' with rounding='second_order': expected 'float' or 'int8'; leave one of them out"
        )

    def method(variables: Any, context: Context) -> Any:
        def make(path: str, leaf: Array, problem: Problem | None = None) -> Any:
            axes = scaled_axes(path, leaf, context)
            values = leaf.astype(jnp.float32)
            if problem is not None:
                magnitude = jnp.abs(values).mean(shared_axes(leaf, axes), keepdims=True)
                scale, factors = (magnitude, FACTORS) if scaled else (jnp.ones_like(magnitude), (1.0,))
                codes, scale = closest_codes(problem, leaf, scale, None, 2, factors=factors, choose=nearest_sign)
                values = jnp.where(codes == 0, jnp.where(values < 0, -scale, scale), codes * scale)
            weight = FakeBinary(values, scaled, inputs, axes, leaf.dtype.name)
            return weight if train else weight.convert()

        change = replaced if rounding == "nearest" else replaced_in_sequence
        return change(variables, where, make, makes=FakeBinary if train else Binary, context=context)

    return method
