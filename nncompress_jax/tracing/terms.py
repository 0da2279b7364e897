"""Sums of products of weights, of numbers, and of data: what they are, and what operations make of them."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax.extend.core.primitives import add_jaxvals_p


@dataclasses.dataclass(frozen=True)
class Shifted:
    """The sum of a weight and a number."""

    path: str
    number: float


@dataclasses.dataclass(frozen=True)
class Datum:
    """A value that is no sum of terms.

    Attributes:
      variable: of the program.
      is_data: whether inputs of the network, and not weights alone, went into it.
      weight: path of the weight, where it is the result of a product of data and one weight; "": it is not.
      place: of the product's equation.
    """

    variable: Any
    is_data: bool
    weight: str = ""
    place: int = -1


Factor = str | Shifted | Datum
Monomial = frozenset[tuple[Factor, float]]
"""Factors with their powers; a weight is its path. Of the number 1: none."""

ONE: Monomial = frozenset()

Terms = Mapping[Monomial, float]
"""Products with the number that multiplies each."""


def _sum(params: Any, operands: Sequence[Terms], sign: float = 1.0) -> Terms:
    total = dict(operands[0])
    for monomial, number in operands[1].items():
        total[monomial] = total.get(monomial, 0.0) + sign * number
    return {monomial: number for monomial, number in total.items() if number}


def _difference(params: Any, operands: Sequence[Terms]) -> Terms:
    return _sum(params, operands, -1.0)


def _negative(params: Any, operands: Sequence[Terms]) -> Terms:
    return {monomial: -number for monomial, number in operands[0].items()}


def _times(one: Monomial, other: Monomial) -> Monomial:
    powers = dict(one)
    for factor, power in other:
        powers[factor] = powers.get(factor, 0.0) + power
    return frozenset((factor, power) for factor, power in powers.items() if power)


def _products(params: Any, operands: Sequence[Terms]) -> Terms:
    total: dict[Monomial, float] = {}
    for one, number in operands[0].items():
        for other, another in operands[1].items():
            monomial = _times(one, other)
            total[monomial] = total.get(monomial, 0.0) + number * another
    return {monomial: number for monomial, number in total.items() if number}


def _power(terms: Terms, exponent: float) -> Terms | None:
    """Of what is positive: a number, or a weight and a number, as variances are."""
    if len(terms) == 1:
        ((monomial, number),) = terms.items()
        if number > 0 and all(isinstance(factor, Shifted) for factor, _ in monomial):
            return {frozenset((factor, power * exponent) for factor, power in monomial): number**exponent}
    number = terms.get(ONE, 0.0)
    paths = [[*monomial] for monomial in terms if monomial]
    match paths:
        case [[(str(path), 1.0)]] if terms[frozenset({(path, 1.0)})] == 1:
            return {frozenset({(Shifted(path, number), exponent)}): 1.0}
    return None


def _quotient(params: Any, operands: Sequence[Terms]) -> Terms | None:
    if len(operands[1]) != 1:
        return None
    ((monomial, number),) = operands[1].items()
    inverse: Terms = {frozenset((factor, -power) for factor, power in monomial): 1 / number}
    return _products(params, [operands[0], inverse])


def _pow(params: Any, operands: Sequence[Terms]) -> Terms | None:
    exponent = operands[1].get(ONE, math.nan) if len(operands[1]) == 1 else math.nan
    return None if math.isnan(exponent) else _power(operands[0], exponent)


TERM_RULES: Mapping[str, Callable[[Any, Sequence[Terms]], Terms | None]] = {
    "add": _sum,
    add_jaxvals_p.name: _sum,
    "sub": _difference,
    "neg": _negative,
    "mul": _products,
    "div": _quotient,
    "rsqrt": lambda params, operands: _power(operands[0], -0.5),
    "sqrt": lambda params, operands: _power(operands[0], 0.5),
    "integer_pow": lambda params, operands: _power(operands[0], params["y"]),
    "pow": _pow,
}
"""By the primitive's name, of the terms of its operands."""
