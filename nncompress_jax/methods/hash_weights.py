"""Weight sharing at random: values whose places a hash knows."""

import math

import jax.numpy as jnp
import numpy as np

from nncompress_jax.errors import InputError
from nncompress_jax.methods.selection import replaced
from nncompress_jax.tree import Where
from nncompress_jax.types import Array, Method
from nncompress_jax.weights.hashed import MOST_SHARING, Hashed, places


def hash_weights(*, share: float = 0.125, where: Where = None, seed: int = 0) -> Method:
    """Weights as few values, which stand where a hash of the place says; only the values are stored.

    The values begin as those that are closest to the weights; a trained network does not survive that, and has to be
    trained on, or from the start.

    Args:
      share: values for each weight, above 0 and below 1.
      where: which leaves, as in `quantize`.
      seed: of the hash; each weight has another.

    Returns:
      A method for `compress` and `chain`.

    Raises:
      InputError: for a share out of range; (when applied) for leaves that are compressed, not float, or not finite.

    Example:
      >>> from nncompress_jax.types import Context
      >>> small = hash_weights(share=0.25)({"kernel": jnp.ones((64, 64))}, Context())["kernel"]
      >>> small.shape, small.values.shape, small.nbytes
      ((64, 64), (1024,), 4100)

    Source: Chen et al. 2015, "Compressing Neural Networks with the Hashing Trick".
    """
    if not 1 / MOST_SHARING <= share < 1:
        raise InputError(f"share={share}: expected from {1 / MOST_SHARING:.2g} to below 1")

    def make(path: str, leaf: Array) -> Hashed:
        count = math.ceil(share * leaf.size)
        own = np.random.default_rng([seed, *path.encode()]).integers(2**32, dtype=np.uint32)
        buckets, signs = (np.asarray(part).ravel() for part in places(jnp.asarray(own), leaf.shape, count))
        weights = signs * np.asarray(leaf, np.float32).ravel()
        totals = np.bincount(buckets, weights, count) / np.maximum(np.bincount(buckets, minlength=count), 1)
        return Hashed(jnp.asarray(totals, jnp.float32), jnp.asarray(own), tuple(leaf.shape), leaf.dtype.name)

    return lambda variables, context: replaced(variables, where, make, makes=Hashed, context=context)
