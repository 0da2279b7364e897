"""The end of training through compression."""

from typing import Any

import jax

from nncompress_jax.weights.base import is_compressed


def convert(variables: Any) -> Any:
    """Weights that train through their own compression, as what they have become; the outputs stay the same bits.

    Example:
      >>> import jax.numpy as jnp
      >>> from nncompress_jax.methods.binarize import binarize
      >>> from nncompress_jax.types import Context
      >>> weights = convert(binarize(train=True)({"kernel": jnp.array([[0.5, -2.0]])}, Context()))
      >>> type(weights["kernel"]).__name__, weights["kernel"].nbytes
      ('Binary', 9)
    """
    return jax.tree.map(_converted, variables, is_leaf=is_compressed)


def _converted(leaf: Any) -> Any:
    if hasattr(leaf, "convert"):
        return leaf.convert()
    if not is_compressed(leaf):
        return leaf
    return jax.tree.map(_converted, leaf, is_leaf=lambda part: part is not leaf and is_compressed(part))
