"""Straight-through estimators: rounding that gradients pass.

Source: Bengio et al. 2013, "Estimating or Propagating Gradients Through Stochastic Neurons".
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nncompress_jax.types import Array


def straight_through(value: Array, x: Array) -> Array:
    """The value, to the last bit, with the gradient of x.

    Example:
      >>> import jax
      >>> value, gradient = jax.value_and_grad(lambda x: straight_through(jnp.round(x), 2 * x))(1.4)
      >>> value.item(), gradient.item()
      (1.0, 2.0)
    """
    return lax.stop_gradient(value) + (x - lax.stop_gradient(x))


def sign(x: Array) -> Array:
    """1 where x is not negative, else -1; the gradient passes where x is in [-1, 1].

    Source: Courbariaux et al. 2016, "Binarized Neural Networks", section 1.3.

    Example:
      >>> import jax
      >>> jax.grad(lambda x: sign(x).sum())(jnp.array([-2.0, -0.5, 0.0, 2.0])).tolist()
      [0.0, 1.0, 1.0, 0.0]
    """
    one = jnp.ones((), x.dtype)
    return straight_through(jnp.where(x >= 0, one, -one), jnp.where(jnp.abs(x) <= 1, x, lax.stop_gradient(x)))


def scale_factor(x: Array, scale: Array, quant_bound: float) -> float:
    """What the gradient of a learned scale is multiplied by, so that it is of the size of the weights' gradients.

    Args:
      x: the weights.
      scale: of them.
      quant_bound: the end of the codes' range.

    Source: Esser et al. 2020, "Learned Step Size Quantization", section 2.2.
    """
    return 1 / math.sqrt(int(quant_bound) * x.size / scale.size)


def learned_scale(x: Array, codes: Array, scale: Array, quant_bound: float) -> Array:
    """codes * scale, with gradients for both what was quantized and the scale (LSQ).

    Args:
      x: float32; its gradient is zero where it was clipped.
      codes: x / scale, rounded and clipped.
      scale: float32, broadcastable to x.
      quant_bound: the end of the codes' range, as `quantizer.quant_bound` counts it.

    Source: Esser et al. 2020, "Learned Step Size Quantization", section 2.1.
    """
    gradient_factor = scale_factor(x, scale, quant_bound)
    ratio = lax.stop_gradient(x / scale)
    inside = jnp.abs(ratio) <= quant_bound
    codes = codes.astype(x.dtype)
    # The gradient of codes * scale through x / scale, written out: its square of the scale would be 0 below 1e-19.
    by_scale = codes - jnp.where(inside, ratio, 0)
    gradients = jnp.where(inside, x, lax.stop_gradient(x)) + by_scale * (scale * gradient_factor)
    return straight_through(codes * scale, gradients)


def power_of_two(x: Array) -> Array:
    """The least power of two that no magnitude exceeds, as a scalar of the same dtype; 1, where all is zero.

    Example:
      >>> power_of_two(jnp.array([0.3, -3.0])).item()
      4.0
    """
    most = jnp.max(jnp.abs(x), initial=0).astype(jnp.float32)
    return jnp.where(most > 0, jnp.exp2(jnp.ceil(jnp.log2(jnp.where(most > 0, most, 1)))), 1).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def rounded_errors(x: Array, bits: int) -> Array:
    """x as it is; the gradient that comes back is rounded to so many bits, with a power of two for its range.

    Args:
      x: of any float dtype.
      bits: 2 or more; the sign is one of them.

    Example:
      >>> jax.grad(lambda x: (rounded_errors(x, 3) * jnp.array([1.0, 0.2, -0.6])).sum())(jnp.ones(3)).tolist()
      [0.75, 0.25, -0.5]

    Source: Wu et al. 2018, "Training and Inference with Integers in Deep Neural Networks", section 3.3.3.
    """
    return x


def _forward(x: Array, bits: int) -> tuple[Array, None]:
    return x, None


def _backward(bits: int, _: None, error: Any) -> tuple[Any]:
    largest = 2 ** (bits - 1)
    step = power_of_two(error) / largest
    return (jnp.clip(jnp.round(error / step), 1 - largest, largest - 1) * step,)


rounded_errors.defvjp(_forward, _backward)
