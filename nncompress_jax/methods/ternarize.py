"""Weights of three values."""

import jax.numpy as jnp

from nncompress_jax.methods.selection import replaced
from nncompress_jax.tree import Where
from nncompress_jax.types import Array, Method
from nncompress_jax.weights.clustered import Clustered
from nncompress_jax.weights.ternary import FakeTernary, parted


def ternarize(*, where: Where = None, train: bool = False) -> Method:
    """Weights as a positive value, zero and a negative value; the two are the means of what they stand for.

    Args:
      where: which leaves, as in `quantize`; of `LowRank` ones the factors.
      train: float weights that train through this (`FakeTernary`), the two values with them, for `convert`; else
        codes (`Clustered`), whose values train.

    Returns:
      A method for `compress` and `chain`.

    Raises:
      InputError: (when applied) for leaves that are compressed, not float, or not finite.

    Example:
      >>> from nncompress_jax.types import Context
      >>> small = ternarize()({"kernel": jnp.array([[0.1, 2.0, 3.0], [-1.5, 0.2, -0.1]])}, Context())["kernel"]
      >>> small.codebook.tolist(), small.materialise().tolist()
      ([-1.5, 0.0, 2.5], [[0.0, 2.5, 2.5], [-1.5, 0.0, 0.0]])

    Source: Zhu et al. 2017, "Trained Ternary Quantization"; Li et al. 2016, "Ternary Weight Networks".
    """

    def make(path: str, leaf: Array) -> FakeTernary | Clustered:
        weight = leaf.astype(jnp.float32)
        positive, negative = (
            jnp.where(side, jnp.abs(weight), 0).sum() / jnp.maximum(side.sum(), 1) for side in parted(weight)
        )
        fake = FakeTernary(weight, positive, negative, leaf.dtype.name)
        return fake if train else fake.convert()

    makes = FakeTernary if train else Clustered
    return lambda variables, context: replaced(variables, where, make, makes=makes, context=context)
