"""What is seen of a program at the places where weights multiply data."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from nncompress_jax.types import Array


class Meeting(NamedTuple):
    """A weight and data, at a place where they multiply.

    Attributes:
      path: of the weight.
      inputs: the data.
      weight: the operand that was made of the weight, compressed or not.
      operand: its place among the operands, 0 or 1.
      primitive: the operation, one of `PRODUCTS`.
      params: its parameters.
    """

    path: str
    inputs: Array
    weight: Any
    operand: int
    primitive: Any
    params: Mapping[str, Any]


Statistic = Callable[[Meeting], Any]


class Observation(NamedTuple):
    """What entered a weight at one of the places where it multiplies.

    Attributes:
      value: the inputs, or the statistic of them; stacked along a first axis inside a `scan`.
      reached: bool; False where the place is in a branch that was not taken, and `value` is zeros.
    """

    value: Any
    reached: Array


Observations = dict[str, list[Observation]]
