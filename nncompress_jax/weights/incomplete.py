"""The mark of compressed weights some of whose parts are None: gradients, and what training changes alone."""

from typing import Any

import jax
import quax

from nncompress_jax.errors import InputError


class Incomplete(str):
    """The `dtype_name` of such a weight.

    JAX compares it with the whole weight's where an optimizer takes both for trees of one structure.
    """

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        if type(other) is str and str.__eq__(self, other):
            raise InputError(
                "gradients of compressed weights met whole weights, integers included: wrap the optimizer, "
                "nnc.optimizer(optax.adamw(1e-3)), outside of chain, masked and MultiSteps; nnc.partition(params)[0] "
                "has the structure of the gradients"
            )
        return str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other


def is_incomplete(weight: Any) -> bool:
    """Whether a compressed weight is marked so, or one inside of it."""
    if isinstance(getattr(weight, "dtype_name", ""), Incomplete):
        return True
    inner = jax.tree.leaves(weight, is_leaf=lambda x: x is not weight and isinstance(x, quax.ArrayValue))
    return any(is_incomplete(part) for part in inner if isinstance(part, quax.ArrayValue))
