"""What each axis of a weight is for, read off the traced program."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
from jax.extend import core

from nncompress_jax.axes.contraction import Axes, axes_of_product
from nncompress_jax.axes.places import runs
from nncompress_jax.axes.primitives import RAGGED_DOT
from nncompress_jax.axes.rules import REDUCTIONS, RULES, axis_rule
from nncompress_jax.inputs import is_array
from nncompress_jax.tracing.primitives import scan_operands
from nncompress_jax.tracing.program import Source, inner_programs, inner_sources, meet, product_of
from nncompress_jax.tracing.trace import traced
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Apply
from nncompress_jax.weights.base import is_compressed

Role = Literal["input", "window", "output", "stacked"]
"""Of an axis: summed over with the inputs; slid over them; of the outputs; or along which weights lie side by side that
multiply each on its own: layers of `scan`, experts, members, rows that are looked up."""

_STRONGEST: Sequence[Role] = ("input", "window", "output")


@dataclasses.dataclass(frozen=True)
class Use:
    """Of a weight, in one place of the program.

    Attributes:
      operation: as `program.Product` has it, or "look-up": entries are read at places that the inputs say.
      roles: of the weight's axes; an axis of one entry is "stacked".
    """

    operation: str
    roles: tuple[Role, ...]

    def axes(self, *roles: Role) -> tuple[int, ...]:
        """Those that have one of these roles."""
        return tuple(axis for axis, role in enumerate(self.roles) if role in roles)


Uses = Mapping[str, Sequence[Use]]
"""By path, in the order of the program: products, or look-ups of a weight that has no product."""

_Depends = tuple[frozenset[int], ...]
"""For each axis of a weight, axes of a value along which the place on it changes."""


class _Value(NamedTuple):
    source: Source = None
    weights: Mapping[str, _Depends] = {}


def uses(apply: Apply, variables: Any, *inputs: Any) -> Uses:
    """Where each weight multiplies data, or is looked up, and what its axes do there.

    Nothing is computed: of each value that weights alone make, it is known which of its axes come from which of
    theirs, through all that moves entries or changes them one by one.

    Args:
      apply: of (variables, *inputs).
      variables: any tree of arrays, `jax.ShapeDtypeStruct`, or compressed weights, which count as the dense array.
      *inputs: likewise.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"kernel": jnp.ones((4, 2, 3))}
      >>> uses(lambda w, x: jnp.einsum("bi,ihk->bhk", x, w["kernel"]), weights, jnp.ones((5, 4)))["kernel"][0].roles
      ('input', 'output', 'output')
    """
    leaves = named_leaves(variables, is_compressed)
    program, _ = traced(apply, variables, *inputs, stand_in=lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    paths = [path for path, leaf in leaves if is_compressed(leaf) or is_array(leaf)]
    own = zip(paths, program.invars, strict=False)
    weights = [_Value(path, {path: _whole(variable.aval.shape)}) for path, variable in own]
    follower = _Follower()
    follower.run(program, [*weights, *[_Value()] * (len(program.invars) - len(weights))])
    return {path: follower.products.get(path) or follower.read[path] for path in follower.read | follower.products}


class _Follower:
    """Goes through a program once and keeps what it finds."""

    def __init__(self) -> None:
        self.products: dict[str, list[Use]] = {}
        self.read: dict[str, list[Use]] = {}

    def run(self, jaxpr: Any, values: Sequence[_Value]) -> list[_Value]:
        known: dict[Any, _Value] = dict(zip(jaxpr.invars, values, strict=True))

        def value_of(atom: Any) -> _Value:
            return _Value("") if isinstance(atom, core.Literal) else known.get(atom, _Value(""))

        for equation in jaxpr.eqns:
            results = self.step(equation, [value_of(atom) for atom in equation.invars])
            known.update(zip(equation.outvars, results, strict=True))
        return [value_of(atom) for atom in jaxpr.outvars]

    def step(self, equation: Any, values: list[_Value]) -> list[_Value]:
        if inner := inner_programs(equation):
            return self.inside(equation, [body for body, _ in inner], values)
        source = meet(value.source for value in values)
        if product := product_of(equation):
            self.multiplied(equation, values, product.operation)
            return [_Value(source)] * len(equation.outvars)
        weights = [self.shown(equation, values, result) for result in range(len(equation.outvars))]
        return [_Value(source, each) for each in weights]

    def inside(self, equation: Any, bodies: Sequence[Any], values: list[_Value]) -> list[_Value]:
        """Of several programs one runs, and the results are those of the first, from the sources of all."""
        values = values[len(values) - len(bodies[0].invars) :]
        sources = inner_sources(equation, bodies[0], [value.source for value in values])
        values = [_Value(source, value.weights) for source, value in zip(sources, values, strict=True)]
        rows = columns = len(values)
        if equation.primitive.name == "scan":
            loop = scan_operands(equation.params)
            rows, columns = sum(loop), loop.carried
        values = [_row(value) if i >= rows else value for i, value in enumerate(values)]
        every = [self.run(body, values) for body in bodies]
        met = [meet(value.source for value in each) for each in zip(*every, strict=True)]
        pairs = enumerate(zip(met, every[0], strict=True))
        return [_Value(source, _column(value) if i >= columns else value.weights) for i, (source, value) in pairs]

    def multiplied(self, equation: Any, values: Sequence[_Value], operation: str) -> None:
        """Rows that were looked up are data, where they meet a weight."""
        axes = axes_of_product(equation.primitive, equation.params, [atom.aval.shape for atom in equation.invars])
        chosen = equation.primitive is RAGGED_DOT
        for operand, value in enumerate(values[:2]):
            if value.source is None and values[1 - operand].weights:
                continue
            there = [_role(axes, operand, axis, chosen) for axis in range(len(axes.places[operand]))]
            for path, depends in value.weights.items():
                use = Use(operation, tuple(_strongest([there[axis] for axis in each]) for each in depends))
                self.products.setdefault(path, []).append(use)

    def shown(self, equation: Any, values: Sequence[_Value], result: int) -> dict[str, _Depends]:
        """The weights that a result shows; none where they meet data entry by entry, and are no weights any more."""
        name, shapes = equation.primitive.name, [atom.aval.shape for atom in equation.invars]
        shape = equation.outvars[result].aval.shape
        weights = [value.weights for value in values]
        if not any(weights) or name in REDUCTIONS:
            return {}
        if name == "reshape":
            return _through(weights[0], lambda axis: _reshaped(axis, shapes[0], shape), shape)
        if name in RULES:
            shown = axis_rule(name, equation.params, shapes).results[result]
            if any(value.source is None for value in values[1:]) and weights[0] and shown[0]:
                self.looked_up(weights[0], [axis for axis in shown[0].axes if axis is not None])
            moved = [
                _through(each, functools.partial(_shown, places.axes), shape)
                for each, places in zip(weights, shown, strict=True)
                if places is not None
            ]
            return _together(moved)
        if None in (met := [value.source for value in values if value.source != ""]) and len(met) > 1:
            return {}
        return _together([each for each, own in zip(weights, shapes, strict=True) if len(own) == len(shape)])

    def looked_up(self, weights: Mapping[str, _Depends], kept: Sequence[int]) -> None:
        for path, depends in weights.items():
            roles: list[Role] = ["output" if each.intersection(kept) else "stacked" for each in depends]
            self.read.setdefault(path, []).append(Use("look-up", tuple(roles)))


def _whole(shape: Sequence[int]) -> _Depends:
    return tuple(frozenset([axis]) if size > 1 else frozenset() for axis, size in enumerate(shape))


def _through(
    weights: Mapping[str, _Depends], to: Callable[[int], Iterable[int]], shape: Sequence[int]
) -> dict[str, _Depends]:
    """In a result of this shape, `to` whose axes an axis goes."""

    def moved(axes: frozenset[int]) -> frozenset[int]:
        return frozenset(new for axis in axes for new in to(axis) if shape[new] > 1)

    return {path: tuple(map(moved, depends)) for path, depends in weights.items()}


def _together(values: Iterable[Mapping[str, _Depends]]) -> dict[str, _Depends]:
    """Of one shape, entry by entry."""
    found: dict[str, _Depends] = {}
    for path, depends in (item for value in values for item in value.items()):
        pairs = zip(found.get(path, depends), depends, strict=True)
        found[path] = tuple(one | other for one, other in pairs)
    return found


def _reshaped(axis: int, old: Sequence[int], new: Sequence[int]) -> list[int]:
    return next(news for olds, news in runs(old, new) if axis in olds)


def _shown(axes: Sequence[int | None], axis: int) -> list[int]:
    return [new for new, old in enumerate(axes) if old == axis]


def _row(value: _Value) -> _Value:
    """What `scan` sees of it in a turn."""
    return _Value(
        value.source,
        {path: tuple(_down(each) for each in depends) for path, depends in value.weights.items()},
    )


def _down(axes: frozenset[int]) -> frozenset[int]:
    return frozenset(axis - 1 for axis in axes if axis)


def _column(value: _Value) -> dict[str, _Depends]:
    """Of the results of all turns; along the turns a weight may be anything."""
    return {
        path: tuple(frozenset(axis + 1 for axis in each) for each in depends) for path, depends in value.weights.items()
    }


def _role(axes: Axes, operand: int, axis: int, chosen: bool) -> Role:
    """Of an axis of an operand; `chosen`: what windows are, is what rows choose among."""
    if axis in axes.windows[operand]:
        return "stacked" if chosen else "window"
    place = axes.places[operand][axis]
    if place not in axes.results:
        return "input"
    return "stacked" if place in axes.places[1 - operand] else "output"


def _strongest(roles: Collection[Role]) -> Role:
    return next((role for role in _STRONGEST if role in roles), "stacked")
