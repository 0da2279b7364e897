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
    return jax.tree.map(lambda leaf: leaf.convert() if is_compressed(leaf) else leaf, variables, is_leaf=is_compressed)
