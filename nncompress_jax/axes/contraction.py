"""How the axes of the operands of a convolution or dot product meet."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax import lax

from nncompress_jax.axes.primitives import RAGGED_DOT


@dataclasses.dataclass(frozen=True)
class Axes:
    """Both operands' axes in one numbering.

    Attributes:
      places: for each operand, the number of each axis; those that meet have the same.
      results: numbers of the result's axes, in its order; the others are summed over, or groups stand along them.
      windows: for each operand, its own axes along which a window slides, or of which data choose a place.
    """

    places: tuple[tuple[int, ...], tuple[int, ...]]
    results: tuple[int, ...]
    windows: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())

    @property
    def summed(self) -> frozenset[int]:
        """Numbers of axes along which both operands are summed over."""
        return frozenset(set(self.places[0]) & set(self.places[1])).difference(self.results)

    def partners(self, operand: int) -> dict[int, int | None]:
        """Axes of an operand that the result lacks, with the axis of the other that each meets; None: it meets none."""
        own, other = self.places[operand], self.places[1 - operand]
        pairs = {axis: other.index(place) if place in other else None for axis, place in enumerate(own)}
        return {axis: partner for axis, partner in pairs.items() if own[axis] not in self.results}


PRODUCTS = (lax.conv_general_dilated_p, lax.dot_general_p, RAGGED_DOT)
"""The operations that multiply and accumulate."""


def axes_of_product(primitive: Any, params: Mapping[str, Any], shapes: Sequence[Sequence[int]]) -> Axes:
    """Of one of `PRODUCTS`; further operands than two only say which rows meet which matrix.

    Example:
      >>> numbers = (((1,), (0,)), ((), ()))
      >>> axes_of_product(lax.dot_general_p, {"dimension_numbers": numbers}, [(2, 3), (3, 4)]).places
      ((0, 1), (1, 3))
    """
    if primitive is lax.conv_general_dilated_p:
        return _of_convolution(params, shapes)
    if primitive is lax.dot_general_p:
        return _of_dot(params["dimension_numbers"], shapes)
    numbers = params["ragged_dot_dimension_numbers"]
    plain, groups = _of_dot(numbers.dot_dimension_numbers, shapes), tuple(numbers.rhs_group_dimensions)
    if not groups:  # rows of each group are summed up apart, along a first axis that no operand has
        return Axes(plain.places, (), (tuple(range(len(shapes[0]))), tuple(range(len(shapes[1])))))
    chosen = {plain.places[1][axis] for axis in groups}
    return Axes(plain.places, tuple(axis for axis in plain.results if axis not in chosen), ((), groups))


def _of_dot(numbers: Any, shapes: Sequence[Sequence[int]]) -> Axes:
    (left, right), (left_batch, right_batch) = numbers
    ranks = [len(shape) for shape in shapes]
    partner = dict(zip((*right, *right_batch), (*left, *left_batch), strict=True))
    places = tuple(partner.get(axis, ranks[0] + axis) for axis in range(ranks[1]))
    free = [axis for axis in range(ranks[0]) if axis not in left and axis not in left_batch]
    results = (*left_batch, *free, *(ranks[0] + axis for axis in range(ranks[1]) if axis not in partner))
    return Axes((tuple(range(ranks[0])), places), results)


def _of_convolution(params: Mapping[str, Any], shapes: Sequence[Sequence[int]]) -> Axes:
    """Input channels meet where it has one group, the kernel's inputs else stand alone."""
    numbers, rank = params["dimension_numbers"], len(shapes[0])
    images, channels, *space = numbers.lhs_spec
    outputs, inputs, *window = numbers.rhs_spec
    places = tuple(
        channels if axis == inputs and params["feature_group_count"] == 1 else rank + axis for axis in range(rank)
    )
    shown = dict(zip(numbers.out_spec, (images, rank + outputs, *space), strict=True))
    results = tuple(shown[axis] for axis in range(rank))
    batch = () if params["batch_group_count"] == 1 else (images, channels)
    windows = ((*space, *batch), tuple(window) if params["batch_group_count"] == 1 else tuple(range(rank)))
    return Axes((tuple(range(rank)), places), results, windows)


def placed(x: np.ndarray, places: Sequence[int], rank: int) -> np.ndarray:
    """What broadcasts to an operand, in the numbering of its product."""
    order = sorted(range(len(places)), key=lambda axis: places[axis])
    shape = [1] * rank
    for axis in order:
        shape[places[axis]] = x.shape[axis]
    return x.transpose(order).reshape(shape)


def shown(x: np.ndarray, axes: Axes) -> np.ndarray:
    """The reverse, for the result: of what depends on its axes alone."""
    rest = [axis for axis in range(x.ndim) if axis not in axes.results]
    return x.transpose((*axes.results, *rest)).reshape([x.shape[axis] for axis in axes.results])
