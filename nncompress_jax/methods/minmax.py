"""Quantization as the original project simulated it: float values rounded to a grid between minimum and maximum.

Nothing becomes smaller or faster here; this is the baseline that real integers are compared with.
The grid spans the whole tensor, so one outlier coarsens it for every value.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nncompress_jax.errors import InputError
from nncompress_jax.types import Apply, Array, Variables

OPERATIONS = (nn.Conv, nn.ConvLocal, nn.ConvTranspose, nn.Dense, nn.DenseGeneral, nn.Einsum, nn.BatchNorm)
"""The linen modules whose outputs `simulate` quantizes."""


def minmax(x: Array, bits: int) -> Array:
    """Rounds to 2^bits evenly spaced values, the minimum and the maximum of x among them.

    Args:
      x: float array of any shape.
      bits: 1 to 16; with 1 the result is sign(x).

    Returns:
      x's shape and dtype; a constant x comes back unchanged.

    Raises:
      InputError: for other bits.

    Example:
      >>> minmax(jnp.array([0.0, 0.4, 3.0]), 2).tolist()
      [0.0, 0.0, 3.0]
    """
    x = _checked(x, bits)
    if bits == 1:
        return jnp.sign(x)
    n = 2**bits - 1
    low, high = x.min(), x.max()
    spread = high - low
    quantized = jnp.round((x - low) / spread * n) / n * spread + low
    return jnp.where(spread > 0, quantized, x)


def minmax_adjusted(x: Array, bits: int) -> Array:
    """Rounds to a grid of 2^bits values that is shifted by a rounded zero point.

    With n = 2^bits and scale s = (n - 1) / (maximum - minimum): (round(x s) - round(m s) + m s) / s, where m is
    the minimum. The zero point m s is rounded in one place and not in the other, as in the original.

    Args:
      x: float array of any shape.
      bits: 1 to 16; with 1 the result is sign(x).

    Returns:
      x's shape and dtype; an x that is constant, or too nearly so for s to be a number, comes back unchanged.

    Raises:
      InputError: for other bits.

    Example:
      >>> minmax_adjusted(jnp.array([0.0, 0.4, 3.0]), 2).tolist()
      [0.0, 0.0, 3.0]
    """
    x = _checked(x, bits)
    if bits == 1:
        return jnp.sign(x)
    n = 2**bits
    # The original forms these scalars in double precision and applies them in single.
    with jax.enable_x64(True):
        low, high = x.min().astype(jnp.float64), x.max().astype(jnp.float64)
        scale = n / ((high - low) * n / (n - 1))
        zero = low * scale
        rounded_zero, zero, scale = (a.astype(x.dtype) for a in (jnp.round(zero), zero, scale))
    quantized = (jnp.round(x * scale) - rounded_zero + zero) / scale
    return jnp.where(jnp.isfinite(scale), quantized, x)


def quantize_variables(variables: Variables, bits: int) -> Variables:
    """`minmax_adjusted` on every float leaf: kernels, biases, batch-norm scales and batch statistics alike.

    Args:
      variables: any tree of arrays.
      bits: 1 to 16.

    Returns:
      The same tree; leaves that are not float are passed through.

    Example:
      >>> quantize_variables({"kernel": jnp.array([0.0, 0.4, 3.0]), "step": jnp.array(7)}, 2)["kernel"].tolist()
      [0.0, 0.0, 3.0]
    """
    return jax.tree.map(
        lambda leaf: minmax_adjusted(leaf, bits) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        variables,
    )


def simulate(apply: Apply, bits: int) -> Apply:
    """Quantizes, by `minmax` over the whole batch, what every convolution, batch norm and dense layer puts out.

    Args:
      apply: a linen module's `apply`, unedited, or any function that calls one.
      bits: 1 to 16.

    Returns:
      A function of apply's own arguments and outputs.

    Example:
      >>> dense = nn.Dense(3)
      >>> x = jnp.ones((1, 2))
      >>> variables = dense.init(jax.random.key(0), x)
      >>> simulate(dense.apply, bits=1)(variables, x).shape
      (1, 3)
    """
    _check(bits)

    def intercept(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        outputs = call(*args, **kwargs)
        quantized = isinstance(context.module, OPERATIONS) and context.method_name == "__call__"
        return minmax(outputs, bits) if quantized else outputs

    def simulated(*args: Any, **kwargs: Any) -> Any:
        with nn.intercept_methods(intercept):
            return apply(*args, **kwargs)

    return simulated


def _check(bits: int) -> None:
    if not 1 <= bits <= 16:
        raise InputError(f"bits={bits}: expected 1 to 16")


def _checked(x: Array, bits: int) -> Array:
    _check(bits)
    if not jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating):
        raise InputError(f"x is {jnp.asarray(x).dtype}, expected floating point; convert it first")
    return jnp.asarray(x)
