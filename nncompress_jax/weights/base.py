"""What every compressed weight is: an array that knows how to multiply, stored in compressed parts."""

from collections.abc import Sequence
from typing import Any, NoReturn, TypeGuard

import jax
import quax

from nncompress_jax.errors import InputError
from nncompress_jax.tree import stored_bytes

OUTSIDE = (
    "a compressed weight met an operation outside of nnc.inject: "
    "call nnc.inject(apply)(variables, ...), where apply takes the variables as an argument and closes over none"
)


class CompressedWeight(quax.ArrayValue):
    """A pytree that stands for a dense array: same logical shape and dtype, only compressed parts stored.

    A type has fields for its parts, `aval` (the logical shape and dtype, read off the parts' shapes so that `scan`
    and `vmap` can slice them), `materialise` (the dense array) and, under `quax.register(primitive)`, rules for what
    it can do in compressed form. For every rule, materialising the result equals running the primitive on
    the materialised operands: exactly, or up to the error that the type states. `nnc.inject` makes functions
    follow the rules.
    """

    @staticmethod
    def default(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
        """What happens where there is no rule: the operands are materialised. Right, only not smaller."""
        return on_dense(primitive, values, params, reason=f"no rule for {primitive}")

    def stacked(self, length: int) -> "CompressedWeight":
        """The same array, every part with a first axis of `length`, so that `scan` can walk along it."""
        if any(part.shape[:1] != (length,) for part in jax.tree.leaves(self)):
            raise NotImplementedError(f"{type(self).__name__} is not stored by the steps of a scan")
        return self

    @property
    def nbytes(self) -> int:
        """Bytes of the stored parts."""
        return stored_bytes(self)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise InputError(OUTSIDE)

    __array__ = _refuse  # what jnp.asarray asks for
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __matmul__ = (
        __rmatmul__
    ) = _refuse


def is_compressed(x: Any) -> TypeGuard[CompressedWeight]:
    """For `is_leaf=`: compressed weights are leaves, whatever they hold."""
    return isinstance(x, CompressedWeight)


def dense(x: Any) -> Any:
    """Materialised if compressed, else as it is."""
    return type(x).materialise(x) if is_compressed(x) else x


MATERIALISED = "materialised: "
"""Begins the name of the scope in which operands are materialised for a primitive; the reason follows."""


def on_dense(primitive: Any, values: Sequence[Any], params: dict[str, Any], *, reason: str) -> Any:
    """Runs a primitive on materialised operands, under a named scope that says in the program why."""
    with jax.named_scope(f"{MATERIALISED}{reason}"):
        values = [dense(value) for value in values]
    return primitive.bind(*values, **params)
