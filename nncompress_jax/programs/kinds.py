"""What parameters of operations may be in a file: written as JSON, and read back of the right type or not at all."""

import enum
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import lax

from nncompress_jax.errors import InputError
from nncompress_jax.leaves import DTYPES
from nncompress_jax.programs.sizes import Batch, size_of_both

Kind = Callable[[Any], Any]
"""What JSON holds -> what an operation takes. Raises ValueError for anything else."""

LONGEST = 4096
"""Entries of a list at most."""

UNUSUAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
"""Numbers that JSON has none of."""


def to_json(value: Any) -> Any:
    """A parameter as JSON.

    Raises:
      InputError: for what no file holds.

    Example:
      >>> to_json((2, None, np.dtype("int8"), lax.Precision.HIGHEST, -math.inf))
      [2, None, 'int8', 'HIGHEST', '-inf']
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, Batch):
        return {"batch": value.times}
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return number_to_json(float(value))
    if str(getattr(value, "name", None)) in KEYS:
        return str(value.name)
    if isinstance(value, tuple | list):
        return [to_json(each) for each in value]
    if isinstance(value, np.dtype | type) and np.dtype(value).name in DTYPES:
        return np.dtype(value).name
    raise InputError(f"{str(value)[:60]}, of which no file holds any")


def number_to_json(value: float) -> Any:
    """One that may be infinite, or none."""
    return value if math.isfinite(value) else str(value)


def of_both(first: Any, second: Any) -> Any:
    """A parameter of sizes, of both programs, as one."""
    if isinstance(first, tuple | list):
        return tuple(of_both(*pair) for pair in zip(first, second, strict=True))
    return size_of_both(int(first), int(second))


def at(value: Any, examples: int) -> Any:
    """A parameter for this number of examples."""
    if isinstance(value, Batch):
        return value.times * examples
    return tuple(at(each, examples) for each in value) if type(value) is tuple else value


KEYS = ("threefry2x32", "rbg", "unsafe_rbg")
"""Of random numbers, by the names that JAX gives them."""


def integer(value: Any) -> int:
    """One of 32 bits."""
    if type(value) is not int or not -(2**31) <= value < 2**31:
        raise ValueError
    return value


def size(value: Any) -> int | Batch:
    """One that may go with the number of examples."""
    if isinstance(value, dict) and value.keys() == {"batch"}:
        return Batch(positive(value["batch"]))
    return length(value)


def length(value: Any) -> int:
    """0 or more."""
    if integer(value) < 0:
        raise ValueError
    return int(value)


def edge(value: Any) -> int | Batch:
    """As `size`; negative, where entries are cut off."""
    return integer(value) if type(value) is int else size(value)


def positive(value: Any) -> int:
    """1 or more."""
    if integer(value) < 1:
        raise ValueError
    return int(value)


def flag(value: Any) -> bool:
    """True or false."""
    if type(value) is not bool:
        raise ValueError
    return value


def number(value: Any) -> float | int | bool:
    """Any."""
    if type(value) is str and value in UNUSUAL:
        return UNUSUAL[value]
    if type(value) not in (bool, int, float):
        raise ValueError
    return value


def dtype(value: Any) -> np.dtype:
    """Of an array that a file can hold."""
    if type(value) is not str or value not in DTYPES:
        raise ValueError
    return DTYPES[value]


def some(kind: Kind) -> Kind:
    """A list."""

    def read(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) > LONGEST:
            raise ValueError
        return tuple(map(kind, value))

    return read


def each_of(*kinds: Kind) -> Kind:
    """A list with these entries."""

    def read(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) != len(kinds):
            raise ValueError
        return tuple(kind(one) for kind, one in zip(kinds, value, strict=True))

    return read


def maybe(kind: Kind) -> Kind:
    """That, or null."""
    return lambda value: None if value is None else kind(value)


def one_of(choices: Mapping[str, Any]) -> Kind:
    """One of these, by name."""

    def read(value: Any) -> Any:
        if type(value) is not str or value not in choices:
            raise ValueError
        return choices[value]

    return read


integers, sizes, strides = some(integer), some(size), some(positive)
pairs = some(each_of(integer, integer))
precision = maybe(each_of(*[one_of(lax.Precision.__members__)] * 2))
mode = one_of(lax.GatherScatterMode.__members__)
rounding = one_of(lax.RoundingMethod.__members__)
key_kind = one_of({name: name for name in KEYS})
fft_kind = one_of(jax.lax.FftType.__members__)


def order(value: Any) -> tuple[int, ...]:
    """Each axis once."""
    axes = integers(value)
    if sorted(axes) != list(range(len(axes))):
        raise ValueError
    return tuple(axes)


def axes_of(kind: Callable[..., Any], parts: int, each: Kind = integers) -> Kind:
    """What says which axis is which, in so many lists."""
    read = each_of(*[each] * parts)
    return lambda value: kind(*read(value))
