"""Batch normalizations of a network, as the program of its inference shows them.

What is found: data minus a weight, times one over the square root of another weight and a number, times a further
weight, plus one more. Names do not matter. Not found: normalizations inside of loops, branches and `shard_map`, those
whose statistics are a part of a larger array, and those that multiply by one plus a scale.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from nncompress_jax.axes.places import axes_of
from nncompress_jax.tracing.affine import Value, Values, same_places
from nncompress_jax.tracing.graph import Graph, graph
from nncompress_jax.tracing.positions import Positions, is_movement
from nncompress_jax.tracing.terms import Datum, Monomial, Shifted, Terms
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Apply
from nncompress_jax.weights.base import is_compressed


@dataclasses.dataclass(frozen=True)
class Normalization:
    """A batch normalization.

    Attributes:
      mean: path of the leaf that is subtracted.
      variance: path of the leaf under the square root.
      epsilon: what is added to it.
      scale: path of the leaf that multiplies; None: none does.
      bias: path of the leaf that is added; None: none is.
      axes: of the data, along which the statistics vary; () for one mean of everything.
      weight: path of the weight of the convolution or dot product whose result is normalized; None: it is another one.
      weight_bias: path of the leaf that is added to that result before; None: none is.
      obstacle: why what it multiplies by cannot be moved into that weight, in words; empty: it can.
      value: of the program, the data that it normalizes, after `weight_bias`.
      place: of the first equation of the normalization; it reads the value, and one of the weights.
      places: where the entries of these leaves stand in the data, by path.
    """

    mean: str
    variance: str
    epsilon: float
    scale: str | None
    bias: str | None
    axes: tuple[int, ...]
    weight: str | None
    weight_bias: str | None
    obstacle: str
    value: Any = dataclasses.field(repr=False)
    place: int = dataclasses.field(repr=False)
    places: Mapping[str, Positions] = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Normalizations:
    """Those of a program, in its order.

    Attributes:
      program: flat; its variables are the values of `found`.
      found: the normalizations.
    """

    program: Graph
    found: tuple[Normalization, ...]


def normalizations(apply: Apply, variables: Any, *inputs: Any) -> Normalizations:
    """The batch normalizations of a network in inference.

    Args:
      apply: of (variables, *inputs), in the mode in which it takes the statistics from its variables.
      variables: any tree of arrays, `jax.ShapeDtypeStruct`, or compressed weights, which count as the dense array.
      *inputs: likewise.

    Raises:
      InputError: where apply cannot be traced with these arguments.

    Example:
      >>> import jax.numpy as jnp
      >>> leaves = {"w": jnp.ones((3, 4)), "m": jnp.zeros(4), "v": jnp.ones(4)}
      >>> apply = lambda tree, x: (x @ tree["w"] - tree["m"]) / jnp.sqrt(tree["v"] + 0.5)
      >>> (norm,) = normalizations(apply, leaves, jnp.ones((2, 3))).found
      >>> norm.mean, norm.variance, norm.epsilon, norm.scale, norm.axes, norm.weight
      ('m', 'v', 0.5, None, (1,), 'w')
    """
    program = graph(apply, variables, *inputs)
    values = Values(program, dict(named_leaves(variables, is_compressed)), lambda value: _parts(value) is not None)
    return Normalizations(program, tuple(_Finder(program, values).found()))


@dataclasses.dataclass(frozen=True)
class _Parts:
    """What a sum of terms is made of, if it is a normalization; weights by path."""

    datum: Datum
    mean: str
    variance: Shifted
    scale: str | None
    bias: str | None
    weight_bias: str | None

    @property
    def normalized(self) -> Terms:
        """The terms of what it normalizes."""
        added = {_alone(self.weight_bias): 1.0} if self.weight_bias else {}
        return {_alone(self.datum): 1.0, **added}

    @property
    def leaves(self) -> tuple[str, ...]:
        each = (self.mean, self.variance.path, self.scale, self.bias, self.weight_bias)
        return tuple(path for path in each if path is not None)


def _alone(factor: Any) -> Monomial:
    return frozenset({(factor, 1.0)})


def _parts(value: Value) -> _Parts | None:
    """Of a value that is a normalization."""
    datum = value.datum
    gains = [monomial - _alone(datum) for monomial in value.terms if (datum, 1.0) in monomial]
    if datum is None or len(gains) != 1 or value.terms[gains[0] | _alone(datum)] != 1:
        return None
    roots = [factor for factor, power in gains[0] if isinstance(factor, Shifted) and power == -0.5]
    scales = [factor for factor, power in gains[0] if isinstance(factor, str) and power == 1]
    added: dict[tuple[float, bool], str] = {}
    for monomial, number in value.terms.items():
        is_before = monomial > gains[0]
        match [*(monomial - gains[0] if is_before else monomial)]:
            case [(str(path), 1.0)] if (number, is_before) not in added:
                added[number, is_before] = path
            case [(other, 1.0)] if other == datum:
                pass
            case _:
                return None
    mean, weight_bias, bias = (added.pop(key, None) for key in ((-1.0, True), (1.0, True), (1.0, False)))
    if mean is None or added or len(roots) != 1 or len(scales) > 1 or len(gains[0]) != 1 + len(scales):
        return None
    scale = scales[0] if scales else None
    beside = [path for path in (mean, scale, bias) if path is not None]
    if not all(same_places(value.places[path], value.places[roots[0].path]) for path in beside):
        return None
    return _Parts(datum, mean, roots[0], scale, bias, weight_bias)


class _Finder:
    """Finds normalizations among the values of a program."""

    def __init__(self, program: Graph, values: Values) -> None:
        self.equations = program.equations
        self.values = values
        self.readers = program.readers()
        self.makers = program.makers()

    def found(self) -> Iterator[Normalization]:
        """In the order of the program; of a sum that grows, the whole."""
        whole: dict[Any, tuple[_Parts, Any]] = {}
        for variable, value in self.values.known.items():
            if parts := _parts(value):
                key = (parts.datum, parts.mean, parts.variance)
                if key not in whole or whole[key][0] != parts:  # what is moved afterwards is the same sum
                    whole[key] = (parts, variable)
        for parts, variable in whole.values():
            if normalization := self.normalization(parts, variable):
                yield normalization

    def normalization(self, parts: _Parts, output: Any) -> Normalization | None:
        """None, where no single value is what it normalizes, or entries move on the way."""
        inside = self.between(parts.datum, output)
        terms = {each: self.values.known[each].terms for each in inside}
        terms[parts.datum.variable] = {_alone(parts.datum): 1.0}  # though it is a sum itself, behind a normalization
        before = [each for each in inside if terms[each] == parts.normalized]
        if not before:
            return None
        normalized = max(before, key=self.turn)
        behind = [self.turn(each) for each in inside if self.turn(each) > self.turn(normalized)]
        if any(is_movement(self.equations[place]) for place in behind):
            return None
        value = self.values.known[output]
        variance = value.places[parts.variance.path]
        weight = parts.datum.weight or None
        return Normalization(
            parts.mean,
            parts.variance.path,
            parts.variance.number,
            parts.scale,
            parts.bias,
            tuple(sorted({axis for array in variance.values() for axis in axes_of(array)})),
            weight,
            parts.weight_bias,
            self.obstacle(parts, inside, output),
            normalized,
            min(place for place in behind if normalized in self.equations[place].invars),
            {path: value.places[path] for path in (*parts.leaves, *([weight] if weight else []))},
        )

    def turn(self, variable: Any) -> int:
        """When it is computed; arguments are there before."""
        return self.makers.get(variable, -1)

    def between(self, datum: Datum, output: Any) -> list[Any]:
        """Variables on the way from a datum to a value that is made of it, both included."""
        way, left = {datum.variable: None}, [output]
        while left:
            variable = left.pop()
            if variable in way:
                continue
            way[variable] = None
            for atom in self.equations[self.makers[variable]].invars:
                if self.values.of(atom).datum == datum:
                    left.append(atom)
        return [*way]

    def obstacle(self, parts: _Parts, inside: list[Any], output: Any) -> str:
        """Why the weight cannot take what the normalization multiplies by."""
        weight, meetings = parts.datum.weight, self.values.meetings
        if not weight:
            return "what it normalizes is not the result of a product with one weight"
        if meetings[weight] != {parts.datum.place}:
            return f"{weight} is used at several places"
        own = {self.makers[each] for each in inside if each is not parts.datum.variable}
        if any(self.readers[each] - own for each in inside if each is not output):
            return f"the result of {weight} is used before its normalization"
        elsewhere = [path for path in parts.leaves if meetings[path] - own]
        return f"{', '.join(elsewhere)}: used elsewhere, too" if elsewhere else ""
