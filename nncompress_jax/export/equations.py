"""Equations of a program that is traced for two numbers of examples: where sizes differ, they go with the number."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from nncompress_jax.errors import InputError
from nncompress_jax.export.graph import Batch, Sizes
from nncompress_jax.export.values import Codes, Known, Value, Writer
from nncompress_jax.leaves import is_key

FIXED = "give any_batch=False"
"""What can be done where a program serves one number of examples."""

EXAMPLES = (2, 3)
"""For which a program is traced."""


@dataclasses.dataclass(frozen=True)
class Equation:
    """An equation of both programs.

    Attributes:
      name: of the primitive.
      params: of the first program.
      others: of the second.
      shapes: of the results.
      dtypes: likewise.
      scope: module of the network that it stands in.
    """

    name: str
    params: Mapping[str, Any]
    others: Mapping[str, Any]
    shapes: Sequence[Sizes]
    dtypes: Sequence[np.dtype]
    scope: str

    def sizes(self, parameter: str) -> Sizes:
        """A parameter that lists sizes."""
        return merged(self.params[parameter], self.others[parameter])

    @property
    def shape(self) -> Sizes:
        """Of the first result."""
        return self.shapes[0]

    @property
    def dtype(self) -> np.dtype:
        """Of the first result."""
        return self.dtypes[0]


Rule = Callable[[Writer, Equation, list[Value]], Value | list[Value] | str]
"""Writes an equation, or says in words why it cannot."""


def merged(first: Sequence[int], second: Sequence[int]) -> Sizes:
    """Sizes for both numbers of examples as sizes for any.

    Example:
      >>> merged((2, 8, 5), (3, 8, 5)), merged((16, 5), (24, 5))
      ((Batch(times=1), 8, 5), (Batch(times=8), 5))
    """
    return tuple(map(_merged, first, second))


def _merged(first: int, second: int) -> int | Batch:
    if first == second:
        return int(first)
    times, rest = divmod(int(first), EXAMPLES[0])
    if rest or second != times * EXAMPLES[1]:
        raise InputError(f"a size of {first} with {EXAMPLES[0]} examples, and of {second} with {EXAMPLES[1]}; {FIXED}")
    return Batch(times)


SIZES = {"shape", "new_sizes", "start_indices", "limit_indices", "slice_sizes", "reps", "sizes", "padding_config"}
"""Parameters that rules read for any number of examples, and `length` of loops."""


def differing(one: Any, other: Any) -> str:
    """What else is not the same in both programs than sizes: a parameter, or a number; empty: nothing."""
    for first, second in zip(one.invars, other.invars, strict=True):
        numbers = [str(np.asarray(atom.val)) for atom in (first, second) if isinstance(atom, core.Literal)]
        if len(set(numbers)) == 2:
            return f"the number {numbers[0]}"
    for name, value in one.params.items():
        if name not in SIZES and name != "length" and _is_plain(value) and repr(value) != repr(other.params[name]):
            return name
    return ""


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | float | str)


def known_array(x: Any, dtype: Any = None) -> Known:
    """Of any array, or of a number, which is to be of this type."""
    if is_key(x):
        return Known(x, x.shape)
    array = np.asarray(x, dtype)
    return Known(array.astype(stored(array.dtype), copy=False), array.shape)


def stored(dtype: Any) -> np.dtype:
    """The type in which an array is written: float32 for all floats, which runtimes multiply in no other."""
    if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        return np.dtype(np.uint32)  # is never written
    return np.dtype(np.float32) if jnp.issubdtype(dtype, jnp.floating) else np.dtype(dtype)


def literal(atom: Any) -> Known:
    """A number in a program."""
    return known_array(atom.val, atom.aval.dtype)


def with_codes(equation: Equation, values: Sequence[Any], results: list[Value]) -> list[Value]:
    """A known result, beside the codes that it is made of: cast to floats, looked up, multiplied by a scale, moved."""
    result = results[0]
    assert isinstance(result, Known)
    if equation.name == "broadcast_in_dim" and values[0].array.size < result.array.size:
        return [Known(compact_broadcast(values[0].array, equation), result.shape)]
    made = _codes_of(equation, values, result)
    if made is None or made.scale.size * 4 > made.codes.size:
        return results
    return [dataclasses.replace(result, codes=made)]


def _codes_of(equation: Equation, values: Sequence[Any], result: Known) -> Codes | None:
    array, ones = result.array, np.ones((1,) * result.array.ndim, np.float32)
    codes = next((value.codes for value in values if value.codes is not None), None)
    if equation.name == "convert_element_type" and array.dtype == np.float32 and values[0].dtype == np.int8:
        return Codes(values[0].array, ones)
    if equation.name == "gather" and array.dtype == np.float32 and values[0].array.shape < (257,):
        places, size = values[1].array, values[0].array.size
        if values[0].array.ndim == 1 and places.size == array.size and 4 * size <= array.size:
            return Codes(np.clip(places, 0, size - 1).astype(np.uint8).reshape(array.shape), ones, values[0].array)
    if codes is None or array.shape != np.broadcast_shapes(codes.codes.shape, array.shape):
        return None
    if equation.name == "mul":
        (other,) = [value.array for value in values if value.codes is None] or [None]
        return None if other is None else Codes(codes.codes, codes.scale * other, codes.book)
    if equation.name == "transpose":
        return codes.transposed(equation.params["permutation"])
    same = equation.name in ("materialised", "copy", "convert_element_type") and array.dtype == np.float32
    return codes if same else None


def compact_broadcast(array: np.ndarray, equation: Equation) -> np.ndarray:
    """What `broadcast_in_dim` makes of an array, with size one along axes that are new or grow."""
    shape = [1] * len(equation.shape)
    for axis, place in enumerate(equation.params["broadcast_dimensions"]):
        shape[place] = array.shape[axis]
    return array.reshape(shape)
