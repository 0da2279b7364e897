"""Programs for any number of examples: traced for two numbers, and where sizes differ, they go with the number."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from nncompress_jax.errors import InputError
from nncompress_jax.inputs import is_array
from nncompress_jax.leaves import is_key

EXAMPLES = (2, 128)
"""For which a program is traced: so far apart that what goes with half of them, or with at most 16, shows."""

FIXED = "give any_batch=False"
"""What can be done where a program serves one number of examples."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """A size that goes with the number of examples: so many times as large."""

    times: int = 1


Sizes = tuple[int | Batch, ...]


def merged(first: Sequence[int], second: Sequence[int]) -> Sizes:
    """Sizes for both numbers of examples as sizes for any.

    Example:
      >>> merged((2, 8, 5), (128, 8, 5)), merged((16, 5), (1024, 5))
      ((Batch(times=1), 8, 5), (Batch(times=8), 5))
    """
    return tuple(map(size_of_both, first, second))


def size_of_both(first: int, second: int) -> int | Batch:
    """One of them.

    Raises:
      InputError: where it goes with the number of examples otherwise.
    """
    if first == second:
        return int(first)
    times, rest = divmod(int(first), EXAMPLES[0])
    if rest or second != times * EXAMPLES[1]:
        raise InputError(f"a size of {first} with {EXAMPLES[0]} examples, and of {second} with {EXAMPLES[1]}; {FIXED}")
    return Batch(times)


SIZES = {"shape", "new_sizes", "start_indices", "limit_indices", "slice_sizes", "reps", "sizes", "padding_config"}
"""Parameters that may go with the number of examples, and `length` of loops."""


def differing(one: Any, other: Any) -> str:
    """What else is not the same in both programs than sizes: a parameter, or a number; empty: nothing."""
    for first, second in zip(one.invars, other.invars, strict=True):
        numbers = [str(np.asarray(atom.val)) for atom in (first, second) if isinstance(atom, core.Literal)]
        if len(set(numbers)) == 2:
            return f"the number {numbers[0]}"
    return differing_parameter(one.params, other.params)


def differing_parameter(one: Any, other: Any) -> str:
    """Name of a parameter that is no size, and not the same in both."""
    for name, value in one.items():
        if name not in SIZES and name != "length" and _is_plain(value) and repr(value) != repr(other[name]):
            return str(name)
    return ""


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | float | str)


def resized(inputs: Any, examples: int, count: int) -> Any:
    """An argument of so many examples, with another number of them."""

    def leaf_of(leaf: Any) -> Any:
        if not is_array(leaf) or is_key(leaf):
            return leaf
        shape = (count, *leaf.shape[1:]) if leaf.ndim and leaf.shape[0] == examples else leaf.shape
        return jax.ShapeDtypeStruct(shape, leaf.dtype)

    return jax.tree.map(leaf_of, inputs)
