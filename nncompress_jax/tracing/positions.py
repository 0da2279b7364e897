"""Where the entries of a weight stand in a value of a program: for each of its axes an array that broadcasts to it.

The array of an axis holds, for each place of the value, the place on that axis of the weight. It has size 1 along the
value's axes on which it does not depend.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nncompress_jax.axes.contraction import axes_of_product, placed, shown
from nncompress_jax.axes.places import along, axes_of, move, reshaped, simplest
from nncompress_jax.axes.rules import RULES, axis_rule

Positions = Mapping[int, np.ndarray]
"""By axis of a weight, of those of more than one entry that the value shows."""


def positions(shape: Sequence[int]) -> Positions:
    """Of a weight of this shape in itself.

    Example:
      >>> {axis: array.shape for axis, array in positions((2, 1, 3)).items()}
      {0: (2, 1, 1), 2: (1, 1, 3)}
    """
    return {axis: along(axis, len(shape), np.arange(size)) for axis, size in enumerate(shape) if size > 1}


def is_movement(equation: Any, result: int = 0) -> bool:
    """Whether a result shows entries of the first operand alone, in other places."""
    name = equation.primitive.name
    if name == "reshape":
        return True
    if name not in RULES:
        return False
    rule = axis_rule(name, equation.params, [atom.aval.shape for atom in equation.invars])
    others = [places for operand, places in enumerate(rule.results[result]) if operand]
    return rule.padding is None and not rule.addresses and not any(rule.needed) and not any(others)


def moved(equation: Any, array: np.ndarray, result: int = 0) -> np.ndarray:
    """What broadcasts to the first operand of a movement, as it broadcasts to a result."""
    shapes = [atom.aval.shape for atom in equation.invars]
    if equation.primitive.name == "reshape":
        return simplest(reshaped(array, shapes[0], equation.outvars[0].aval.shape))
    places = axis_rule(equation.primitive.name, equation.params, shapes).places(result=result)
    return move(array, places, -1)


def through_product(equation: Any, operand: int, positions: Positions) -> Positions:
    """Of a product's operand, in its result: what is summed over is not shown."""
    shapes = [atom.aval.shape for atom in equation.invars]
    axes = axes_of_product(equation.primitive, equation.params, shapes)
    rank = sum(map(len, axes.places))
    numbered = {axis: placed(array, axes.places[operand], rank) for axis, array in positions.items()}
    return {axis: shown(array, axes) for axis, array in numbered.items() if set(axes_of(array)) <= set(axes.results)}


def entries(own: Positions, shape: Sequence[int], other: Positions, other_shape: Sequence[int]) -> np.ndarray | None:
    """Which entry of another weight each entry of a weight meets in a value.

    Args:
      own: positions of the weight in the value.
      shape: of the weight.
      other: positions of the other weight in it.
      other_shape: of the other weight.

    Returns:
      Numbers of entries, in C order, in an array that broadcasts to the weight; None where an entry meets several, or
      none.

    Example:
      >>> kernel, vector = {1: np.arange(3)[None]}, {0: np.arange(3)[None]}
      >>> entries(kernel, (4, 3), vector, (3,)).tolist()
      [[0, 1, 2]]
    """
    met = np.zeros((), int)
    for axis, size in enumerate(other_shape):
        met = met * size + other.get(axis, 0)
    table = beside(own, shape, met)
    return table if (table >= 0).all() and (at(own, table, met.ndim) == met).all() else None


def beside(own: Positions, shape: Sequence[int], array: np.ndarray) -> np.ndarray:
    """What stands in a value at the places of a weight's entries, in an array that broadcasts to the weight.

    Args:
      own: positions of the weight in the value.
      shape: of the weight.
      array: broadcasts to the value; where it has several entries for one of the weight's, one of them is taken.

    Returns:
      -1 for entries that the value does not show; of size 1 along axes on which nothing depends.
    """
    met = set(axes_of(array))
    varying = {axis for axis, each in own.items() if met.intersection(axes_of(each))}
    table = np.full([size if axis in varying else 1 for axis, size in enumerate(shape)], -1)
    whole = np.broadcast_shapes(array.shape, *(own[axis].shape for axis in varying))
    table[_index(own, table, whole)] = np.broadcast_to(array, whole)
    return table


def at(own: Positions, table: np.ndarray, rank: int) -> np.ndarray:
    """The reverse: what broadcasts to a weight, as it stands in a value of this rank, and broadcasts to that."""
    varying = [own[axis].shape for axis in own if table.shape[axis] > 1]
    return table[_index(own, table, np.broadcast_shapes((1,) * rank, *varying))]


def _index(own: Positions, table: np.ndarray, whole: Sequence[int]) -> tuple[np.ndarray, ...]:
    nowhere = np.zeros((), int)
    places = (own[axis] if size > 1 else nowhere for axis, size in enumerate(table.shape))
    return tuple(np.broadcast_to(each, whole) for each in places)
