"""Values of a program while it is written: known ones, and arrays of the graph, each stored in its order of axes."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from nncompress_jax.export.graph import Graph
from nncompress_jax.leaves import is_key
from nncompress_jax.programs.sizes import Batch, Sizes


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """An array whose entries are known.

    Attributes:
      array: of the shape, or of size one along axes whose entries are all the same.
      shape: of what it stands for.
      codes: what it is made of, if anything that takes less.
    """

    array: np.ndarray
    shape: Sizes
    codes: "Codes | None" = None

    @property
    def dtype(self) -> np.dtype:
        """Of the entries."""
        return self.array.dtype

    @property
    def whole(self) -> np.ndarray:
        """With all its entries; sizes must not depend on the number of examples."""
        return self.array if is_key(self.array) else np.broadcast_to(self.array, self.shape)  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True, eq=False)
class Codes:
    """A float32 array as codes * scale, or as book[codes] * scale.

    Attributes:
      codes: int8, of the array's shape; with a book uint8.
      scale: that broadcasts to them.
      book: float32 [K], K up to 256, or None.
    """

    codes: np.ndarray
    scale: np.ndarray
    book: np.ndarray | None = None

    def transposed(self, axes: Sequence[int]) -> "Codes":
        """With its axes in another order."""
        return Codes(np.transpose(self.codes, axes), np.transpose(self.scale, axes), self.book)


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """An array of the graph.

    Attributes:
      name: in the graph.
      shape: of what it stands for.
      order: axis i of the stored array is axis order[i] of the shape.
      dtype: of the entries.
      sizes: of its axes, as in the shape, or 1 where all entries are the same.
    """

    name: str
    shape: Sizes
    order: tuple[int, ...]
    dtype: np.dtype
    sizes: Sizes

    @property
    def stored(self) -> Sizes:
        """Sizes of the stored array."""
        return tuple(self.sizes[axis] for axis in self.order)


Value = Known | Tensor


class Writer:
    """Puts values into a graph.

    Attributes:
      graph: that is written.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def tensor(self, value: Value) -> Tensor:
        """As an array of the graph."""
        if isinstance(value, Tensor):
            return value
        order = tuple(range(value.array.ndim))
        return Tensor(self.graph.constant(value.array), value.shape, order, value.dtype, value.array.shape)

    def made(
        self,
        operation: str,
        inputs: Sequence[str],
        shape: Sizes,
        dtype: Any,
        *,
        order: Sequence[int] | None = None,
        sizes: Sizes | None = None,
        **attributes: Any,
    ) -> Tensor:
        """The result of a new node; the order of its axes and its sizes are those of the shape, if nothing is said."""
        sizes, order = sizes or shape, tuple(range(len(shape)) if order is None else order)
        stored = [sizes[axis] for axis in order]
        name = self.graph.add(operation, inputs, stored, dtype, **attributes)
        return Tensor(name, shape, order, np.dtype(dtype), sizes)

    def converted(self, value: Value, dtype: Any) -> Value:
        """Cast, where it is of another type."""
        if value.dtype == np.dtype(dtype):
            return value
        if isinstance(value, Known):
            return Known(value.array.astype(dtype), value.shape)
        to = np.dtype(dtype)
        return self.made("Cast", [value.name], value.shape, dtype, order=value.order, sizes=value.sizes, to=to)

    def ordered(self, value: Value, order: Sequence[int]) -> Tensor:
        """Stored with its axes in this order; where no more than axes of size one move, that is no transposition."""
        order, x = tuple(order), self.tensor(value)
        if x.order == order:
            return x
        there, wanted = ([axis for axis in each if x.sizes[axis] != 1] for each in (x.order, order))
        options: Any = {"order": order, "sizes": x.sizes}
        if there == wanted:
            return self.reshaped(x, [x.sizes[axis] for axis in order], x.shape, **options)
        permutation = [x.order.index(axis) for axis in order]
        return self.made("Transpose", [x.name], x.shape, x.dtype, perm=permutation, **options)

    def reshaped(self, x: Tensor, stored: Sequence[int | Batch], shape: Sizes, **options: Any) -> Tensor:
        """The same entries in a stored array of other sizes."""
        target = [-1 if isinstance(size, Batch) else size for size in stored]
        shape_name = self.graph.integers(target) if target.count(-1) < 2 else self.graph.shape(stored)
        return self.made("Reshape", [x.name, shape_name], shape, x.dtype, **options)

    def plain(self, value: Value) -> Tensor:
        """Stored as its shape says, axis by axis, with all its entries."""
        return self.full(self.ordered(value, range(len(value.shape))))

    def full(self, value: Value, axes: Sequence[int] | None = None) -> Tensor:
        """With all its entries along these axes; by default along all."""
        x = self.tensor(value)
        chosen = range(len(x.shape)) if axes is None else axes
        sizes = tuple(x.shape[axis] if axis in chosen else size for axis, size in enumerate(x.sizes))
        if sizes == x.sizes:
            return x
        target = self.graph.shape([sizes[axis] for axis in x.order])
        return self.made("Expand", [x.name, target], x.shape, x.dtype, order=x.order, sizes=sizes)

    def aligned(self, values: Sequence[Value], rank: int) -> tuple[list[str], tuple[int, ...], list[Sizes]]:
        """Names of operands stored in one order, that order, and the sizes of each; scalars stay scalars."""
        tensors = [value for value in values if isinstance(value, Tensor) and len(value.shape) == rank]
        order = next((x.order for x in tensors if x.order != tuple(range(rank))), tuple(range(rank)))
        names: list[str] = []
        sizes: list[Sizes] = []
        for value in values:
            if len(value.shape) != rank or (isinstance(value, Known) and value.array.size == 1):
                x = self.tensor(Known(value.array.reshape(()), ()) if isinstance(value, Known) else value)
                sizes.append((1,) * rank)
            elif isinstance(value, Known):
                x = self.tensor(Known(np.transpose(value.array, order), value.shape))
                sizes.append(value.array.shape)
            else:
                x = self.ordered(value, order)
                sizes.append(x.sizes)
            names.append(x.name)
        return names, order, sizes


def largest(sizes: Sequence[Sizes]) -> Sizes:
    """Of arrays that are combined entry by entry: size one gives way."""
    return tuple(next((size for size in each if size != 1), 1) for each in zip(*sizes, strict=True))
