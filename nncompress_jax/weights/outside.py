"""What a compressed weight answers to operations on arrays outside of a program that knows its rules."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import jax

from nncompress_jax.errors import InputError

OUTSIDE = (
    "a compressed weight met an operation outside of nnc.inject: "
    "call nnc.inject(apply)(variables, ...), where apply takes the variables as an argument and closes over none; "
    "nnc.decompress gives dense arrays"
)

NAMES = frozenset(name for name in dir(jax.Array) if not name.startswith("_"))
"""Methods and attributes of arrays."""


_BY_RULES = contextvars.ContextVar("by_rules", default=False)


@contextlib.contextmanager
def by_rules() -> Iterator[None]:
    """Inside, quax does not take compressed weights for what jax.numpy makes arrays of."""
    token = _BY_RULES.set(True)
    try:
        yield
    finally:
        _BY_RULES.reset(token)


class OutsideError(InputError, AttributeError, TypeError):
    """A compressed weight met an operation outside of `nnc.inject`; also what Python expects of a missing one."""


class Refusing:
    """Answers each operation of arrays in one line that says how it can be had."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name == "__jax_array__" and not _BY_RULES.get():  # what jax.numpy asks for
                return self._refuse
            if name in NAMES:
                raise OutsideError(f".{name}: {OUTSIDE}")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise OutsideError(OUTSIDE)

    __array__ = _refuse  # what numpy asks for
    __len__ = __iter__ = __getitem__ = __setitem__ = __contains__ = __bool__ = __float__ = __int__ = __complex__ = (
        _refuse
    )
    __neg__ = __pos__ = __abs__ = __invert__ = __round__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __add__ = __sub__ = __mul__ = __truediv__ = __matmul__ = __floordiv__ = __mod__ = __pow__ = __divmod__ = _refuse
    __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rmatmul__ = __rfloordiv__ = __rmod__ = __rpow__ = _refuse
    __rdivmod__ = _refuse
