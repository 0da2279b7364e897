"""The step with which the codes of a weight have a given entropy."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax.ops import quantizer
from nncompress_jax.types import Array

HALVINGS = 24
"""Of the range in which the step lies: to 2^-20 of itself, on a scale of 2^9."""


def step_of_rate(leaf: Array, rate: float, bits: int = 8) -> float:
    """The least step, one for the whole weight, whose codes have at most so much entropy.

    Args:
      leaf: float array.
      rate: bits for each entry, of the zeroth order.
      bits: of the codes; nothing is clipped.

    Returns:
      A number above zero.

    Example:
      >>> leaf = jnp.asarray(np.random.default_rng(0).laplace(size=(64, 64)), jnp.float32)
      >>> step = step_of_rate(leaf, rate=1.0)
      >>> round(step, 1), 0.99 < entropy_bits(np.rint(leaf / step).astype(np.int8)) <= 1
      (3.1, True)

    Source: Sullivan 1996, "Efficient scalar quantization of exponential and Laplacian random variables": where codes
    are entropy-coded, steps of one size are near the best at every rate.
    """
    largest = float(np.abs(np.asarray(leaf, np.float32)).max(initial=0))
    if not largest:
        return 1.0
    least, most = math.log2(largest / quantizer.quant_bound(bits)), math.log2(4 * largest)

    def fits(logarithm: float) -> bool:
        return entropy_bits(np.asarray(rounded(leaf, _scale(logarithm, leaf.ndim), bits)[0])) <= rate

    if fits(least):
        return float(_scale(least, 1).item())
    for _ in range(HALVINGS):
        middle = (least + most) / 2
        least, most = (least, middle) if fits(middle) else (middle, most)
    return float(_scale(most, 1).item())


def entropy_bits(codes: np.ndarray) -> float:
    """Zeroth-order entropy of codes, int8 of any shape, in bits for each."""
    counts = np.bincount(np.ascontiguousarray(codes).view(np.uint8).ravel(), minlength=256)
    counts = counts[counts > 0]
    return float(counts @ np.log2(codes.size / counts)) / codes.size


def _scale(logarithm: float, rank: int) -> np.ndarray:
    return np.full((1,) * rank, 2**logarithm, np.float32)


@functools.partial(jax.jit, static_argnums=2)
def rounded(leaf: Array, scale: Array, bits: int) -> tuple[Array, Array]:
    """Codes, and how many of the weights were further than half a step from theirs."""
    codes = quantizer.quantize(leaf, (), scale, bits)[0].codes
    bound = quantizer.quant_bound(bits)
    return codes, jnp.sum(jnp.abs(leaf.astype(jnp.float32)) > bound * (1 + 1e-6) * scale)
