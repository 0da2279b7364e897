"""What codes take in a file, and channels in a network, as something that training can lower."""

import jax.numpy as jnp
from jax import lax

from nncompress_jax.ops.ste import straight_through
from nncompress_jax.types import Array


def entropy_bits(ratio: Array, largest: int = 127) -> Array:
    """The bits that codes take together by how often each occurs among them, as an entropy coder needs them.

    The value is that of the rounded codes. Gradients are those of a price of each place between two codes, which goes
    straight from that of the one to that of the other: so far they pull an entry to where codes are frequent. How
    frequent codes are is taken as it is.

    Args:
      ratio: float32 of any shape, weights over their scale.
      largest: code; what is beyond is clipped.

    Returns:
      [] float32.

    Example:
      >>> import jax
      >>> bits, pull = jax.value_and_grad(entropy_bits)(jnp.array([0.2, -0.3, 0.1, 1.2]))
      >>> round(bits.item(), 4), [round(slope, 2) for slope in pull.tolist()]
      (3.2451, [1.58, -2.58, 1.58, 1.0])

    Source: the zeroth-order entropy (Shannon 1948) in place of the densities that Oktay et al. 2020, "Scalable Model
    Compression by Entropy Penalized Reparameterization", learn beside the weights.
    """
    ratio = jnp.clip(ratio, -largest, largest)
    known = lax.stop_gradient(ratio)
    codes = jnp.round(known).astype(jnp.int32) + largest
    below = jnp.minimum(jnp.floor(known), largest - 1).astype(jnp.int32) + largest
    counts = jnp.zeros(2 * largest + 1, jnp.float32).at[codes.ravel()].add(1)
    prices = jnp.log2(ratio.size / jnp.maximum(counts, 0.5))  # what does not occur is as dear as half an occurrence
    return straight_through(counts @ prices, jnp.sum((prices[below + 1] - prices[below]) * ratio))


def channel_norms(ratio: Array, axis: int) -> Array:
    """Norms of the channels along an axis, times the root of their entries: about how many codes they have in use.

    Its gradient draws each channel to zero as a whole, small ones no less than large ones.

    Args:
      ratio: float32 of any shape, weights over their scale.
      axis: of the channels.

    Returns:
      [] float32.

    Example:
      >>> round(channel_norms(jnp.array([[1.0, -1.0], [0.0, 0.0]]), 0).item(), 4)
      2.0

    Source: the group lasso (Yuan and Lin 2006), beside a price of bits as in Girish et al. 2023, "LilNetX".
    """
    squares = jnp.sum(jnp.square(ratio), [other for other in range(ratio.ndim) if other != axis % ratio.ndim])
    there = squares > 0
    norms = jnp.where(there, jnp.sqrt(jnp.where(there, squares, 1)), 0)
    return jnp.sqrt(ratio.size / ratio.shape[axis]) * norms.sum()
