"""Straight-through estimators: rounding that gradients pass.

Source: Bengio et al. 2013, "Estimating or Propagating Gradients Through Stochastic Neurons".
"""

import math

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


def learned_step(x: Array, codes: Array, step: Array, steps_to_the_end: float) -> Array:
    """codes * step, with gradients for both what was quantized and the step (LSQ).

    Args:
      x: float32; its gradient is zero where it was clipped.
      codes: x / step, rounded and clipped.
      step: float32, broadcastable to x.
      steps_to_the_end: of the range.

    Source: Esser et al. 2020, "Learned Step Size Quantization", sections 2.1 and 2.2 (the gradient's scale).
    """
    scale = 1 / math.sqrt(int(steps_to_the_end) * x.size / step.size)
    step = straight_through(step, step * scale)
    inside = jnp.clip(x / step, -steps_to_the_end, steps_to_the_end)
    return straight_through(codes.astype(x.dtype), inside) * step
