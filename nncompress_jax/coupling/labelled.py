"""What is known of a value of a program whose weights have labels on their channels."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend import core

from nncompress_jax.axes.places import axes_of
from nncompress_jax.axes.rule import Fill
from nncompress_jax.tracing.program import Source


@dataclasses.dataclass(frozen=True)
class Labelled:
    """What is known of a value of the program.

    Attributes:
      labels: arrays that broadcast to the value, no two on the same axis; along other axes nothing can be cut.
      source: the weight alone that it was computed from; None: data; "": constants.
      fills: for each of them, what the value is where its channels are cut.
      number: the one value that it has everywhere, if there are no labels and it is known.
    """

    labels: tuple[np.ndarray, ...] = ()
    source: Source = None
    fills: tuple[Fill, ...] = ()
    number: Fill = None

    @staticmethod
    def of(pairs: Iterable[tuple[np.ndarray, Fill]], source: Source = None) -> "Labelled":
        """With these labels and fills."""
        pairs = tuple(pairs)
        return Labelled(tuple(labels for labels, _ in pairs), source, tuple(fill for _, fill in pairs))

    @property
    def pairs(self) -> tuple[tuple[np.ndarray, Fill], ...]:
        """Labels with their fills."""
        return tuple(zip(self.labels, self.fills, strict=True))

    def at(self, axes: Iterable[int]) -> Fill:
        """What it is where channels along these axes are cut."""
        over = [fill for labels, fill in self.pairs if set(axes_of(labels)) & set(axes)]
        return over[0] if over else None if self.labels else self.number


def only(value: Labelled, axis: int) -> np.ndarray | None:
    """Labels along an axis, if they depend on it alone."""
    return next((labels.ravel() for labels in value.labels if axes_of(labels) == [axis]), None)


def read(known: Any, atom: Any) -> Labelled:
    """Of a variable, or of a literal."""
    if not isinstance(atom, core.Literal):
        return known.get(atom, Labelled(source=""))
    return Labelled(source="", number=_number(atom.val) if np.ndim(atom.val) == 0 else None)


def shared(fills: Iterable[Fill]) -> Fill:
    """The number that all are."""
    each = set(fills)
    return each.pop() if len(each) == 1 else None


def filled(equation: Any, fills: Sequence[Fill]) -> Fill:
    """What an elementwise operation makes of these operands."""
    primitive = equation.primitive
    decides = {lax.mul_p: fills, lax.div_p: fills[:1]}.get(primitive, ())
    if 0 in decides or (primitive is lax.select_n_p and all(fill == 0 for fill in fills[1:])):
        return 0.0
    if None in fills:
        return None
    with jax.ensure_compile_time_eval():
        scalars = [np.asarray(fill, atom.aval.dtype) for fill, atom in zip(fills, equation.invars, strict=True)]
        return _number(primitive.bind(*scalars, **equation.params))


def is_undefined(equation: Any, fills: Sequence[Fill]) -> bool:
    """Whether zero is divided by zero, or multiplied by the inverse of zero, and so taken for zero."""
    numbers = np.array([np.nan if fill is None else fill for fill in fills])
    if equation.primitive is lax.div_p:
        return bool((numbers == 0).all())
    return equation.primitive is lax.mul_p and 0 in numbers and bool(np.isinf(numbers).any())


def _number(scalar: Any) -> Fill:
    return (None if scalar else 0.0) if np.iscomplexobj(scalar) else float(scalar)
