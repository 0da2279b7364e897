"""What is known of a value of a program whose weights have labels on their channels."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend import core

from nncompress_jax.marks import Mark, axes_of
from nncompress_jax.program import Owner


@dataclasses.dataclass(frozen=True)
class Marked:
    """What is known of a value of the program.

    Attributes:
      marks: of labels, no two on the same axis; along other axes nothing can be cut.
      owner: the weight alone that it was computed from; None: data; "": constants.
      fill: what channels that are cut are in it; without marks, the one value that it has everywhere. None: unknown.
    """

    marks: tuple[Mark, ...] = ()
    owner: Owner = None
    fill: float | None = None


def only(value: Marked, axis: int) -> np.ndarray | None:
    """Labels along an axis, if they depend on it alone."""
    return next((mark.ravel() for mark in value.marks if axes_of(mark) == [axis]), None)


def read(known: Any, atom: Any) -> Marked:
    """Of a variable, or of a literal."""
    if not isinstance(atom, core.Literal):
        return known.get(atom, Marked(owner=""))
    return Marked(owner="", fill=_number(atom.val) if np.ndim(atom.val) == 0 else None)


def filled(equation: Any, values: Sequence[Marked]) -> float | None:
    """What an elementwise operation makes of missing channels."""
    if equation.primitive is lax.mul_p and any(value.fill == 0 for value in values):
        return 0.0
    if equation.primitive is lax.div_p and values[0].fill == 0:
        return 0.0
    if equation.primitive is lax.select_n_p and all(value.fill == 0 for value in values[1:]):
        return 0.0
    fills = [value.fill for value in values]
    if None in fills:
        return None
    with jax.ensure_compile_time_eval():
        scalars = [np.asarray(fill, atom.aval.dtype) for fill, atom in zip(fills, equation.invars, strict=True)]
        return _number(equation.primitive.bind(*scalars, **equation.params))


def _number(scalar: Any) -> float | None:
    return None if np.iscomplexobj(scalar) else float(scalar)
