"""Equations of a program that is traced for two numbers of examples: where sizes differ, they go with the number."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax.export.values import Codes, Known, Value, Writer
from nncompress_jax.leaves import is_key
from nncompress_jax.programs.sizes import Sizes, merged


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
    if codes is None or not _broadcasts(codes.codes.shape, array.shape):
        return None
    if equation.name == "mul":
        (other,) = [value.array for value in values if value.codes is None] or [None]
        return None if other is None else Codes(codes.codes, codes.scale * other, codes.book)
    if equation.name == "transpose":
        return codes.transposed(equation.params["permutation"])
    same = equation.name in ("materialised", "copy", "convert_element_type") and array.dtype == np.float32
    return codes if same else None


def _broadcasts(shape: Sequence[int], to: Sequence[int]) -> bool:
    sizes = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(size in (1, other) for size, other in sizes)


def compact_broadcast(array: np.ndarray, equation: Equation) -> np.ndarray:
    """What `broadcast_in_dim` makes of an array, with size one along axes that are new or grow."""
    shape = [1] * len(equation.shape)
    for axis, place in enumerate(equation.params["broadcast_dimensions"]):
        shape[place] = array.shape[axis]
    return array.reshape(shape)
