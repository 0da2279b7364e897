"""Which channels of a network may be multiplied by a positive number, as long as the weights behind are divided by it.

What a weight makes of data has channels with labels. Operations that are positive-homogeneous in each channel (sums,
ReLU, pooling, products with weights) hand labels on, and couple those that meet; all others freeze them.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jax import lax
from jax.extend import core
from jax.extend.core.primitives import add_jaxvals_p

from nncompress_jax.axes.contraction import PRODUCTS, axes_of_product, placed
from nncompress_jax.axes.places import along, axes_of, move
from nncompress_jax.axes.primitives import NAME
from nncompress_jax.axes.rules import axis_rule
from nncompress_jax.coupling.labels import Labels
from nncompress_jax.tracing.affine import Value, Values
from nncompress_jax.tracing.graph import Graph
from nncompress_jax.tracing.positions import Positions, at, beside, is_movement, moved, through_product

Channels = np.ndarray | None
"""Labels that broadcast to a value; None: nothing of it may be multiplied."""


@dataclasses.dataclass(frozen=True)
class Share:
    """What the numbers of channels do to a weight: its entries are multiplied by those of `outputs`, and divided by
    those of `inputs`.

    Attributes:
      path: of the weight.
      outputs: labels that broadcast to the weight; None: none.
      inputs: likewise.
      multiplies: whether it is the weight of a convolution or dot product.
    """

    path: str
    outputs: Channels
    inputs: Channels
    multiplies: bool


class Scalable(Labels):
    """Goes through a program and labels channels.

    Attributes:
      shares: of weights, by path; where one is used several times, labels of all uses are coupled.
    """

    def __init__(self, program: Graph, values: Values, shapes: Mapping[str, Sequence[int]]) -> None:
        """`values`: of the program; `shapes`: of its weights, by path."""
        super().__init__()
        self.values, self.shapes = values, shapes
        self.shares: dict[str, Share] = {}
        self.known: dict[Any, Channels] = {}
        uses: dict[str, set[int]] = {}
        for place in sorted(program.needed):
            equation = program.equations[place]
            self.here, self.shared = equation.primitive.name, set[str]()
            self.known |= dict(zip(equation.outvars, self.step(equation), strict=True))
            for path in self.shared:
                uses.setdefault(path, set()).add(place)
        self.here = ""
        for atom in program.program.jaxpr.outvars:
            self.hold([self.of(atom)], RETURNED)
        for path, share in self.shares.items():
            if values.meetings[path] - uses[path]:
                self.hold([share.outputs, share.inputs], f"{path} is used in other ways, too")

    def of(self, atom: Any) -> Channels:
        """Of a variable or a literal."""
        return None if isinstance(atom, core.Literal) else self.known.get(atom)

    def hold(self, channels: Iterable[Channels], reason: str) -> None:
        """Channels that cannot be multiplied."""
        for each in channels:
            if each is not None:
                self.freeze(each, reason)

    def tie(self, one: Channels, other: Channels) -> Channels:
        """Channels of values that are combined entry by entry."""
        if one is None or other is None:
            self.hold([one, other], FIXED)
            return None
        self.couple(one, other)
        return np.broadcast_to(one, np.broadcast_shapes(one.shape, other.shape))

    def share(self, path: str, outputs: Channels, inputs: Channels, *, multiplies: bool) -> None:
        """Notes what becomes of a weight."""
        self.shared.add(path)
        old = self.shares.setdefault(path, Share(path, outputs, inputs, multiplies))
        if old.outputs is not outputs:
            self.tie(old.outputs, outputs)
        if old.inputs is not inputs:
            self.tie(old.inputs, inputs)

    def step(self, equation: Any) -> list[Channels]:
        """Channels of the results of an equation."""
        values = [self.values.of(atom) for atom in equation.invars]
        channels = [self.of(atom) for atom in equation.invars]
        nothing: list[Channels] = [None] * len(equation.outvars)
        if not any(value.datum for value in values):
            return nothing
        if equation.primitive in PRODUCTS:
            return [self.product(equation, values, channels)]
        if not any(each is not None for each in channels):
            return nothing
        name = equation.primitive.name
        if equation.primitive in _UNARY:
            return [channels[0]]
        if name in _RULES:
            return [_RULES[name](self, equation, values, channels)]
        if all(is_movement(equation, result) for result in range(len(equation.outvars))):
            found = channels[0]
            return nothing if found is None else [moved(equation, found, n) for n in range(len(equation.outvars))]
        if name == "optimization_barrier":
            return channels
        self.hold(channels, UNKNOWN)
        return nothing

    def product(self, equation: Any, values: Sequence[Value], channels: Sequence[Channels]) -> Channels:
        """Of data and a weight: the data's channels enter the weight, and its outputs have their own."""
        weight = next((n for n, value in enumerate(values[:2]) if value.datum is None and value.leaf), None)
        if weight is None or len(values) > 2 or equation.params.get("batch_group_count", 1) > 1:
            self.hold(channels, UNKNOWN)
            return None
        path, data = str(values[weight].leaf), channels[1 - weight]
        shape, own = self.shapes[path], values[weight].places[path]
        shown = through_product(equation, weight, own)
        sizes = [size if axis in shown else 1 for axis, size in enumerate(shape)]
        outputs = self.new(math.prod(sizes)).reshape(sizes)
        met = None if data is None else _meeting(equation, weight, data)
        self.hold([data] if met is None else [], "they meet no weight along axes of its own")
        inputs = None if met is None else self.entering(own, shape, met)
        self.share(path, outputs, inputs, multiplies=True)
        return at(shown, outputs, equation.outvars[0].aval.ndim)

    def entering(self, own: Positions, shape: Sequence[int], channels: np.ndarray) -> np.ndarray:
        """Channels of a value, as labels of a weight's entries that stand there; those of one entry are coupled."""
        there = np.maximum(beside(own, shape, channels), 0)
        self.couple(at(own, there, channels.ndim), channels)
        return there

    def added(self, equation: Any, values: Sequence[Value], channels: Sequence[Channels]) -> Channels:
        """Of data and data, or weights: these are multiplied as the data are; zero may be added to anything."""
        first = int(equation.primitive is lax.select_n_p)
        cases, channels = values[first:], channels[first:]
        found = next((each for each in channels if each is not None), None)
        for value, each in zip(cases, channels, strict=True):
            if value.datum is not None:
                found = self.tie(found, each) if each is not found else found
            elif value.number != 0 and found is not None and (path := value.leaf):
                there = self.entering(value.places[path], self.shapes[path], found)
                self.share(path, there, None, multiplies=False)
            elif value.number != 0:
                self.hold([found], "they meet what is not zero, and no weight alone")
        return found

    def multiplied(self, equation: Any, values: Sequence[Value], channels: Sequence[Channels]) -> Channels:
        """By weights or numbers; data by data is not known."""
        if values[1].datum is None:
            return channels[0]
        if values[0].datum is None and equation.primitive is lax.mul_p:
            return channels[1]
        self.hold(channels, UNKNOWN)
        return None

    def compared(self, equation: Any, values: Sequence[Value], channels: Sequence[Channels]) -> Channels:
        """With zero: the result is the same, whatever is multiplied."""
        if not any(value.number == 0 for value in values):
            self.hold(channels, UNKNOWN)
        return None

    def reduced(self, equation: Any, values: Sequence[Value], channels: Sequence[Channels]) -> Channels:
        """Combined, or read at places that data say: channels along these axes are multiplied by the same number."""
        labels, *others = channels
        if labels is None or any(each is not None for each in others) or equation.params.get("fill_value"):
            self.hold(channels, UNKNOWN)
            return None
        shapes = [atom.aval.shape for atom in equation.invars]
        rule = axis_rule(equation.primitive.name, equation.params, shapes)
        return move(self.whole(labels, rule.needs(0) & set(axes_of(labels))), rule.places())

    def joined_up(self, equation: Any, values: Sequence[Value], channels: Sequence[Channels]) -> Channels:
        """One behind the other, or between zeros, which have channels of their own."""
        rule = axis_rule(equation.primitive.name, equation.params, [atom.aval.shape for atom in equation.invars])
        if rule.padding is not None and values[rule.padding].number != 0:
            self.hold(channels, "they stand between other numbers than zero")
            return None
        rank = equation.outvars[0].aval.ndim
        joined = np.full((1,) * rank, -1)
        for places, labels in zip(rule.results[0], channels, strict=True):
            if places is not None:
                own = np.zeros((1,) * rank, int) if labels is None else move(labels, places, -1)
                picked = [(axis, each) for axis, each in enumerate(places.picked) if each is not None]
                there = [along(axis, rank, each >= 0) for axis, each in picked]
                joined = np.where(functools.reduce(np.logical_and, there, own >= 0), own, joined)
        joined[joined < 0] = self.new(int((joined < 0).sum()))
        return joined


RETURNED = "they are an output of the network"
FIXED = "they meet what cannot be multiplied"
UNKNOWN = "what it computes is not multiplied as its operands are"

_UNARY = (
    *(lax.neg_p, lax.abs_p, lax.convert_element_type_p, lax.stop_gradient_p, lax.copy_p, lax.reduce_precision_p, NAME),
)
"""Operations whose result is multiplied as their operand is."""

_RULES: Mapping[str, Callable[[Scalable, Any, Sequence[Value], Sequence[Channels]], Channels]] = {
    **dict.fromkeys(("add", add_jaxvals_p.name, "sub", "max", "min", "select_n"), Scalable.added),
    **dict.fromkeys(("mul", "div"), Scalable.multiplied),
    **dict.fromkeys(("eq", "ge", "gt", "le", "lt", "ne"), Scalable.compared),
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "cumsum", "cummax", "cummin"), Scalable.reduced),
    **dict.fromkeys(("reduce_window_sum", "reduce_window_max", "reduce_window_min"), Scalable.reduced),
    **dict.fromkeys(("gather", "dynamic_slice"), Scalable.reduced),
    **dict.fromkeys(("concatenate", "pad", "stack"), Scalable.joined_up),
}
"""By the primitive's name."""


def _meeting(equation: Any, weight: int, data: np.ndarray) -> Channels:
    """Channels of data, as they meet the entries of a product's weight; None: they do not depend on its axes alone."""
    shapes = [atom.aval.shape for atom in equation.invars]
    axes = axes_of_product(equation.primitive, equation.params, shapes)
    groups = equation.params.get("feature_group_count", 1)
    if groups > 1:
        numbers = equation.params["dimension_numbers"]
        channels, (outputs, inputs) = numbers.lhs_spec[1], numbers.rhs_spec[:2]
        if set(axes_of(data)) - {channels}:
            return None
        rows = np.broadcast_to(data.ravel(), shapes[1 - weight][channels]).reshape(groups, -1)
        met = np.repeat(rows, shapes[weight][outputs] // groups, axis=0)
        sizes = [shapes[weight][axis] if axis in (outputs, inputs) else 1 for axis in range(len(shapes[weight]))]
        return (met if outputs < inputs else met.T).reshape(sizes)
    rank = sum(map(len, axes.places))
    joint = placed(data, axes.places[1 - weight], rank)
    mine = axes.places[weight]
    if set(axes_of(joint)) - set(mine):
        return None
    return joint.transpose([*mine, *(axis for axis in range(rank) if axis not in mine)]).reshape(
        [joint.shape[axis] for axis in mine]
    )
