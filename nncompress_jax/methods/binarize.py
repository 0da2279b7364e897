"""Weights of signs."""

from typing import Any

import jax.numpy as jnp

from nncompress_jax.errors import InputError
from nncompress_jax.methods.layout import scaled_axes
from nncompress_jax.methods.selection import replaced
from nncompress_jax.tree import Where
from nncompress_jax.types import Array, Context, Method
from nncompress_jax.weights.binary import Binary, FakeBinary, Inputs


def binarize(*, where: Where = None, scaled: bool = True, inputs: Inputs = "float", train: bool = False) -> Method:
    """Weights as signs, with a scale for each output channel, as `quantize` finds it.

    Args:
      where: which leaves, as in `quantize`.
      scaled: signs times the mean magnitude (XNOR-Net); else signs alone (BinaryConnect).
      inputs: what they multiply: "float", "int8" (codes of 8 bits), or "sign" (signs, times their mean magnitude).
      train: float weights that train through their signs (`FakeBinary`), for `convert`; else the signs (`Binary`).

    Returns:
      A method for `compress` and `chain`.

    Raises:
      InputError: for other inputs; (when applied) for leaves that are compressed, not float, or not finite.

    Example:
      >>> from nncompress_jax.types import Context
      >>> small = binarize()({"kernel": jnp.array([[0.5, 2.0], [-1.5, 1.0]])}, Context())
      >>> small["kernel"].materialise().tolist()
      [[1.0, 1.5], [-1.0, 1.5]]

    Source: Courbariaux et al. 2015, "BinaryConnect"; Rastegari et al. 2016, "XNOR-Net".
    """
    if inputs not in ("float", "int8", "sign"):
        raise InputError(f"inputs={inputs!r}: expected 'float', 'int8' or 'sign'")

    def method(variables: Any, context: Context) -> Any:
        def make(path: str, leaf: Array) -> Any:
            axes = scaled_axes(path, leaf, context)
            weight = FakeBinary(leaf.astype(jnp.float32), scaled, inputs, axes, leaf.dtype.name)
            return weight if train else weight.convert()

        return replaced(variables, where, make, makes=FakeBinary if train else Binary, context=context)

    return method
