"""Values of a program as sums of products of weights and of one datum, as far as they are that.

`(x @ w - mean) / sqrt(variance + epsilon) * scale + bias` is four such terms, in whatever order a program computes
them. What is no such sum is a datum of its own.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from nncompress_jax.axes.contraction import PRODUCTS
from nncompress_jax.axes.primitives import NAME
from nncompress_jax.leaves import described, is_donated, is_key
from nncompress_jax.tracing.graph import OUTPUT, Graph
from nncompress_jax.tracing.positions import Positions, is_movement, moved, positions, through_product
from nncompress_jax.tracing.terms import ONE, TERM_RULES, Datum, Terms

MOST_TERMS = 8


@dataclasses.dataclass(frozen=True)
class Value:
    """Of a program.

    Attributes:
      terms: products with the number that multiplies each.
      places: by path, where the entries of each weight in the terms stand.
      weights: paths of all weights that it was computed from; only of values without data.
    """

    terms: Terms
    places: Mapping[str, Positions] = dataclasses.field(default_factory=dict)
    weights: frozenset[str] = frozenset()

    @property
    def datum(self) -> Datum | None:
        """What it is made of beside weights; None: weights alone."""
        factors = (factor for monomial in self.terms for factor, _ in monomial)
        return next((factor for factor in factors if isinstance(factor, Datum) and factor.is_data), None)

    @property
    def number(self) -> float | None:
        """That it is everywhere, if it is known."""
        return self.terms.get(ONE, 0.0) if self.terms.keys() <= {ONE} else None

    @property
    def leaf(self) -> str | None:
        """The weight that it is, up to a number and to the places of the entries."""
        if len(self.terms) != 1:
            return None
        (monomial,) = self.terms
        (factor, power), *others = [*monomial] or [("", 0.0)]
        return factor if isinstance(factor, str) and power == 1 and not others else None


class Values:
    """All values of a program.

    Attributes:
      known: by variable.
      meetings: by path of a weight, the places of the equations where it, or what was made of it alone, meets data;
        `OUTPUT` where it is returned.
    """

    def __init__(
        self, program: Graph, leaves: Mapping[str, Any], is_whole: Callable[[Value], bool] = lambda value: False
    ) -> None:
        """Goes through a program.

        Args:
          program: of a network.
          leaves: its variables by path; the value of a scalar, where it has one, is a number of the program.
          is_whole: whether a sum is a datum for what is not whole itself.
        """
        self.is_whole = is_whole
        self.known: dict[Any, Value] = {}
        self.meetings: dict[str, set[int]] = {}
        jaxpr = program.program.jaxpr
        for path, variable in zip(program.paths, jaxpr.invars, strict=False):
            number = _scalar(leaves.get(path)) if not variable.aval.shape else None
            shown = {path: positions(variable.aval.shape)}
            single = Value({frozenset({(path, 1.0)}): 1.0}, shown, frozenset({path}))
            self.known[variable] = single if number is None else _constant(number, frozenset({path}))
        for variable in jaxpr.invars[len(program.paths) :]:
            self.known[variable] = _datum(Datum(variable, True))
        for variable, constant in zip(jaxpr.constvars, program.program.consts, strict=True):
            number = _scalar(constant)
            self.known[variable] = _datum(Datum(variable, False)) if number is None else _constant(number)
        for place in sorted(program.needed):
            self.step(place, program.equations[place])
        for value in map(self.of, jaxpr.outvars):
            self.meet(value, OUTPUT)

    def of(self, atom: Any) -> Value:
        """Of a variable or a literal."""
        if not isinstance(atom, core.Literal):
            return self.known[atom]
        number = _scalar(atom.val)
        return _datum(Datum(None, False)) if number is None else _constant(number)

    def meet(self, value: Value, place: int) -> None:
        for path in value.weights if value.datum is None else ():
            self.meetings.setdefault(path, set()).add(place)

    def step(self, place: int, equation: Any) -> None:
        """Adds the results of an equation."""
        values = [self.of(atom) for atom in equation.invars]
        is_data = any(value.datum for value in values)
        for value in values if is_data else ():
            self.meet(value, place)
        weights = frozenset() if is_data else frozenset().union(*(value.weights for value in values))
        for result, variable in enumerate(equation.outvars):
            made = _made(equation, result, values)
            if made and not self.is_whole(made) and any(map(self.is_whole, values)):
                pairs = zip(values, equation.invars, strict=True)
                made = _made(equation, result, [_closed(atom) if self.is_whole(v) else v for v, atom in pairs])
            if made is None:
                own, shown = _product(equation, values)
                made = _datum(Datum(variable, is_data, own, place), shown)
            self.known[variable] = dataclasses.replace(made, weights=weights)


def _scalar(value: Any) -> float | None:
    """The number that a concrete value is, if it has one entry."""
    shape = None if isinstance(value, jax.ShapeDtypeStruct | jax.core.Tracer) else described(value)
    if shape is None or shape.size != 1 or is_donated(value) or is_key(value):
        return None
    return None if jnp.issubdtype(shape.dtype, jnp.complexfloating) else float(np.asarray(value).ravel()[0])


def _constant(number: float, weights: frozenset[str] = frozenset()) -> Value:
    return Value({ONE: number} if number else {}, weights=weights)


def _closed(variable: Any) -> Value:
    return _datum(Datum(variable, True))


def _datum(datum: Datum, places: Mapping[str, Positions] | None = None) -> Value:
    return Value({frozenset({(datum, 1.0)}): 1.0}, places or {})


def _product(equation: Any, values: Sequence[Value]) -> tuple[str, Mapping[str, Positions]]:
    """The weight that meets data in a product, and where its entries stand in the result."""
    if equation.primitive in PRODUCTS:
        for operand, (one, other) in enumerate((values[:2], values[1::-1])):
            if one.datum is None and other.datum is not None and (path := one.leaf):
                return path, {path: through_product(equation, operand, one.places[path])}
    return "", {}


def _made(equation: Any, result: int, values: Sequence[Value]) -> Value | None:
    """A result as a sum of terms; None: it is none."""
    name = equation.primitive.name
    if equation.primitive in _SAME and jnp.issubdtype(equation.outvars[0].aval.dtype, jnp.inexact):
        return values[0]
    if name == "optimization_barrier":
        return values[result]
    if is_movement(equation, result):
        places = {
            path: {axis: moved(equation, array, result) for axis, array in own.items()}
            for path, own in values[0].places.items()
        }
        return Value(values[0].terms, places)
    rule = TERM_RULES.get(name)
    terms = rule(equation.params, [value.terms for value in values]) if rule else None
    if terms is None or len(terms) > MOST_TERMS:
        return None
    together: dict[str, Positions] = {}
    for path, own in (item for value in values for item in value.places.items()):
        if not same_places(together.setdefault(path, own), own):
            return None
    data = {factor for monomial in terms for factor, _ in monomial if isinstance(factor, Datum) and factor.is_data}
    return Value(terms, together) if len(data) <= 1 else None


def same_places(one: Positions, other: Positions) -> bool:
    """Whether two weights' entries stand at the same places; axes of one entry do not count."""
    pairs = list(zip(one.values(), other.values(), strict=False))
    return len(one) == len(other) and all(np.array_equal(*pair) for pair in pairs)


_SAME = (lax.convert_element_type_p, lax.stop_gradient_p, lax.copy_p, lax.reduce_precision_p, NAME)
"""Operations that change no number, but by rounding."""
