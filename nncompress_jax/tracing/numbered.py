"""Which entries of its leaf stand where in a weight that a program has moved: transposed, reshaped, sliced, cast."""

import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray

from nncompress_jax.leaves import native
from nncompress_jax.types import Array
from nncompress_jax.weights.base import CompressedWeight, dense, is_compressed

HALF = 2**12
"""Numbers of entries go through float32, which holds whole numbers up to 2^24, in two halves."""


class _Numbered(CompressedWeight):
    """A dense weight that knows which entry each of its entries is. It stands in no variables and in no file.

    Attributes:
      values: float, of the weight's shape.
      places: int32, of the same shape: number of the entry in the flat float array of the leaf; -1 where none is.
      path: of the leaf.
      dtype_name: logical dtype.
    """

    WHOLE: ClassVar[tuple[str, ...]] = ("values", "places")

    values: Array
    places: Array
    path: str = eqx.field(static=True)
    dtype_name: str = eqx.field(static=True, default="float32")

    def aval(self) -> ShapedArray:
        return ShapedArray(self.values.shape, jnp.dtype(self.dtype_name))

    def materialise(self) -> Array:
        return self.values.astype(self.dtype_name)

    def stacked(self, length: int) -> Any:
        """Both parts have the first axis already."""
        return self


def numbered(path: str, leaf: Any) -> Any:
    """A leaf as a weight that knows its entries' numbers.

    Args:
      path: of the leaf.
      leaf: a float array, or a compressed weight that holds one at last; then the numbers are those of this array.

    Example:
      >>> places_of(numbered("kernel", jnp.ones((2, 2)))).tolist()
      [[0, 1], [2, 3]]
    """
    if not is_compressed(leaf):
        values = jnp.asarray(native(leaf))
        return _Numbered(
            values, jnp.arange(values.size, dtype=jnp.int32).reshape(values.shape), path, values.dtype.name
        )
    values = dense(leaf)
    size = innermost(leaf).size
    # Of zeros and fills nothing is left in the difference of two numberings.
    halves = [_spread(leaf, part) for part in (np.arange(size) // HALF + 1, np.arange(size) % HALF + 1)]
    places = (halves[0] - 1) * HALF + halves[1] - 1
    places = jnp.where((halves[0] > 0) & (halves[1] > 0), places, -1)
    return _Numbered(values, places, path, values.dtype.name)


def _spread(leaf: Any, numbers: np.ndarray) -> Array:
    """Numbers in the places of the innermost array's entries, and zero elsewhere."""

    def of(part: Any, numbers: Array) -> Any:
        if not is_compressed(part):
            return numbers.reshape(part.shape)
        return dataclasses.replace(part.cast(jnp.float32), **{part.HELD[0]: of(part.held()[0], numbers)})

    ones, twice = (dense(of(leaf, jnp.asarray(numbers * factor, jnp.float32))) for factor in (1, 2))
    return (twice - ones).astype(jnp.int32)


def innermost(leaf: Any) -> Any:
    """The float array that a leaf is, or holds at last; itself, where it holds none, or several."""
    while is_compressed(leaf) and len(leaf.held()) == 1:
        (leaf,) = leaf.held()
    return leaf


def places_of(weight: Any) -> Array | None:
    """Numbers of the entries of a weight that was only moved since; None: it was computed with."""
    return weight.places if isinstance(weight, _Numbered) else None


def path_of(weight: Any) -> str:
    """Of the leaf that a numbered weight is."""
    return weight.path


def is_numbered(weight: Any) -> bool:
    """Whether a value is such a weight."""
    return isinstance(weight, _Numbered)


def without_numbers(tree: Any) -> Any:
    """The dense arrays again."""
    return jax.tree.map(lambda leaf: dense(leaf) if is_numbered(leaf) else leaf, tree, is_leaf=is_numbered)
