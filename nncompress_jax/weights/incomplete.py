"""The mark of compressed weights some of whose parts are None: gradients, and what training changes alone."""

from typing import Any

import jax
import quax

ADVICE = "parts are missing, as in gradients: wrap the whole optimizer, nnc.optimizer(optax.adamw(1e-3))"


class Incomplete(str):
    """The `dtype_name` of such a weight: another than the whole weight's.

    Where an optimizer takes both for trees of one structure, JAX refuses and shows how they differ: by `repr`, which
    says what to do. To compare them is no error by itself: caches of compiled programs do.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is Incomplete and str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((Incomplete, str(self)))

    def __repr__(self) -> str:
        return f"{str.__repr__(self)} ({ADVICE})"


def is_incomplete(weight: Any) -> bool:
    """Whether a compressed weight is marked so, or one inside of it."""
    if isinstance(getattr(weight, "dtype_name", ""), Incomplete):
        return True
    inner = jax.tree.leaves(weight, is_leaf=lambda x: x is not weight and isinstance(x, quax.ArrayValue))
    return any(is_incomplete(part) for part in inner if isinstance(part, quax.ArrayValue))
