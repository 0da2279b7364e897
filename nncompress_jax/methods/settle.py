"""The end of training through compression."""

from typing import Any

import jax

from nncompress_jax.weights.base import is_compressed


def settle(variables: Any) -> Any:
    """Weights that train through their own compression, as what they have become; the outputs stay the same bits.

    Example:
      >>> import jax.numpy as jnp
      >>> from nncompress_jax.methods.binarize import binarize
      >>> from nncompress_jax.types import Context
      >>> weights = settle(binarize(train=True)({"kernel": jnp.array([[0.5, -2.0]])}, Context()))
      >>> type(weights["kernel"]).__name__, weights["kernel"].nbytes
      ('Binary', 9)
    """
    return jax.tree.map(_settled, variables, is_leaf=is_compressed)


def _settled(leaf: Any) -> Any:
    if hasattr(leaf, "settle"):
        return leaf.settle()
    if not is_compressed(leaf):
        return leaf
    return jax.tree.map(_settled, leaf, is_leaf=lambda part: part is not leaf and is_compressed(part))
