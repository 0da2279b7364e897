"""The end of training through compression."""

from typing import Any

import jax

from nncompress_jax.weights.base import is_compressed


def convert(variables: Any) -> Any:
    """Weights that train through their own compression, as what they have become: the same integers, signs and scales.

    To the last bit, and so are products with the same inputs. What a network computes from a weight in floats before
    its product (weight standardisation, weight normalisation) belongs to a program that is compiled anew, and may be
    rounded otherwise; the next layer's inputs may then round to a neighbouring code. Nine standardised and eight other
    convolutions with GELU: first 1e-6 apart, in the end 2e-3 of outputs up to 0.4.

    Example:
      >>> import jax.numpy as jnp
      >>> from nncompress_jax.methods.binarize import binarize
      >>> from nncompress_jax.types import Context
      >>> weights = convert(binarize(train=True)({"kernel": jnp.array([[0.5, -2.0]])}, Context()))
      >>> type(weights["kernel"]).__name__, weights["kernel"].nbytes
      ('Binary', 9)
    """
    return jax.tree.map(lambda leaf: leaf.convert() if is_compressed(leaf) else leaf, variables, is_leaf=is_compressed)
