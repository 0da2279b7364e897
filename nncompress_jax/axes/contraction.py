"""How the axes of the operands of a convolution or dot product meet."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from nncompress_jax.axes.labels import Mark


@dataclasses.dataclass(frozen=True)
class Axes:
    """Both operands' axes in one numbering.

    Attributes:
      places: for each operand, the number of each axis; those that meet have the same.
      summed: numbers of axes that are summed over.
      order: all numbers, those of the result first and in its order.
      results: numbers of the result's axes, in its order.
      windows: for each operand, its own axes along which a window slides.
    """

    places: tuple[tuple[int, ...], tuple[int, ...]]
    summed: frozenset[int]
    order: tuple[int, ...]
    results: tuple[int, ...]
    windows: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())


def of_dot(params: Any, shapes: Sequence[Sequence[int]]) -> Axes:
    """Of a dot product."""
    (left, right), (left_batch, right_batch) = params["dimension_numbers"]
    ranks = [len(shape) for shape in shapes]
    partner = dict(zip((*right, *right_batch), (*left, *left_batch), strict=True))
    places = tuple(partner.get(axis, ranks[0] + axis) for axis in range(ranks[1]))
    free = [axis for axis in range(ranks[0]) if axis not in left and axis not in left_batch]
    results = (*left_batch, *free, *(ranks[0] + axis for axis in range(ranks[1]) if axis not in partner))
    rest = [axis for axis in range(sum(ranks)) if axis not in results]
    return Axes((tuple(range(ranks[0])), places), frozenset(left), (*results, *rest), results)


def of_convolution(params: Any, shapes: Sequence[Sequence[int]]) -> Axes:
    """Of a convolution; input channels meet where it has one group, the kernel's inputs else stand alone."""
    numbers, rank = params["dimension_numbers"], len(shapes[0])
    images, channels, *space = numbers.lhs_spec
    outputs, inputs, *window = numbers.rhs_spec
    places = tuple(
        channels if axis == inputs and params["feature_group_count"] == 1 else rank + axis for axis in range(rank)
    )
    shown = dict(zip(numbers.out_spec, (images, rank + outputs, *space), strict=True))
    results = tuple(shown[axis] for axis in range(rank))
    rest = [axis for axis in range(2 * rank) if axis not in results]
    summed = {channels} if params["feature_group_count"] == 1 else set()
    batch = (images,) if params["batch_group_count"] == 1 else (images, channels)
    windows = ((*space, *batch), tuple(window) if params["batch_group_count"] == 1 else tuple(range(rank)))
    return Axes((tuple(range(rank)), places), frozenset(summed), (*results, *rest), results, windows)


def placed(mark: Mark, places: Sequence[int], rank: int) -> Mark:
    """A mark of an operand in the numbering of its product."""
    order = sorted(range(len(places)), key=lambda axis: places[axis])
    shape = [1] * rank
    for axis in order:
        shape[places[axis]] = mark.shape[axis]
    return mark.transpose(order).reshape(shape)
