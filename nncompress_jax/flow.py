"""Following the channels of weights through a program: which of them meet, and which have to stay.

Every position of every axis of a weight has a label. Operations carry labels along, and tie those that meet: channels
that have to be cut together. Labels of channels that an operation needs, or of which nothing is known, are held.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax import lax

from nncompress_jax.contraction import of_convolution, of_dot, placed
from nncompress_jax.marked import Marked, filled, only, read
from nncompress_jax.marks import MIXED_AXES, Mark, along, axes_of, followed
from nncompress_jax.program import ELEMENT_PROGRAMS, PRODUCTS, Owner, meet, product_of
from nncompress_jax.weights.kept_elementwise import ELEMENTWISE

WINDOW = "a window slides along them"


@dataclasses.dataclass(frozen=True)
class Reach:
    """A convolution or dot product that depends on channels.

    Attributes:
      macs: multiply-accumulates, over the whole batch, with all channels.
      marks: each of labels; the share of those that stay is the share of the multiply-accumulates that does.
      inputs: labels of the weight that are summed over; none where data meets data.
      outputs: labels of the weight that are not.
    """

    macs: int
    marks: tuple[np.ndarray, ...]
    inputs: np.ndarray
    outputs: np.ndarray


class Flow:
    """What was found: pairs of labels that are tied, labels that are held with the reason, and products.

    Label 0 is that of everything that cannot be cut.
    """

    def __init__(self) -> None:
        self.count = 1
        self.ties: list[np.ndarray] = []
        self.held: list[tuple[np.ndarray, str]] = []
        self.products: list[Reach] = []

    def labels(self, number: int) -> np.ndarray:
        """New ones."""
        self.count += number
        return np.arange(self.count - number, self.count)

    def leaf(self, path: str, shape: Sequence[int]) -> Marked:
        """A weight with new labels along each axis."""
        sizes = [(axis, size) for axis, size in enumerate(shape) if size > 1]
        return Marked(tuple(along(axis, len(shape), self.labels(size)) for axis, size in sizes), path, 0.0)

    def tie(self, one: Mark, other: Mark) -> None:
        """Channels that have to be cut together."""
        pairs = np.stack(np.broadcast_arrays(one, other), -1).reshape(-1, 2)
        self.ties.append(np.unique(pairs, axis=0))

    def hold(self, mark: Mark, reason: str) -> None:
        """Channels that have to stay."""
        self.held.append((np.unique(mark), reason))

    def run(self, jaxpr: Any, values: Sequence[Marked], repeats: int = 1) -> list[Marked]:
        """Through a program."""
        known: dict[Any, Marked] = dict(zip(jaxpr.invars, values, strict=True))
        for equation in jaxpr.eqns:
            results = self.step(equation, [read(known, atom) for atom in equation.invars], repeats)
            known.update(zip(equation.outvars, results, strict=True))
        return [read(known, atom) for atom in jaxpr.outvars]

    def step(self, equation: Any, values: list[Marked], repeats: int) -> list[Marked]:
        """Through one equation."""
        name, marked = equation.primitive.name, any(value.marks for value in values)
        owner = meet(value.owner for value in values)
        inside = [equation.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in equation.params]
        if equation.primitive in PRODUCTS:
            return [self.product(equation, values, repeats)]
        if name == "scan":
            return self.scan(equation, values, repeats)
        if name == "cond":
            branches = [self.run(branch.jaxpr, values[1:], repeats) for branch in equation.params["branches"]]
            return [self.joined(results, meet(r.owner for r in results)) for results in zip(*branches, strict=True)]
        if inside and name not in ELEMENT_PROGRAMS:
            return self.run(getattr(inside[0], "jaxpr", inside[0]), values, repeats)
        if equation.primitive in ELEMENTWISE:
            return [dataclasses.replace(self.joined(values, owner), fill=filled(equation, values))]
        if not marked:
            fill = values[0].fill if name == "broadcast_in_dim" else None
            return [Marked(owner=owner, fill=fill)] * len(equation.outvars)
        if name == "concatenate":
            return [self.concatenated(equation, values, owner)]
        if name == "pad":
            return [self.padded(equation, values, owner)]
        return self.moved(equation, values, owner)

    def joined(self, values: Sequence[Marked], owner: Owner) -> Marked:
        """Values of one shape, combined entry by entry: what lies at the same place is cut together."""
        result: list[Mark] = []
        for mark in (mark for value in values for mark in value.marks):
            overlapping = [other for other in result if set(axes_of(other)) & set(axes_of(mark))]
            for other in overlapping:
                self.tie(mark, other)
            if not overlapping:
                result.append(mark)
        fills = {value.fill for value in values}
        return Marked(tuple(result), owner, fills.pop() if len(fills) == 1 else None)

    def moved(self, equation: Any, values: Sequence[Marked], owner: Owner) -> list[Marked]:
        """Transposed, reshaped, sliced, reduced over axes that are not cut; other operations hold what they take."""
        name, count = equation.primitive.name, len(equation.outvars)
        if len(values) != 1:
            for mark in (mark for value in values for mark in value.marks):
                self.hold(mark, f"{name}: what it does to channels is not known")
            return [Marked(owner=owner)] * count
        (value,), shape = values, equation.invars[0].aval.shape
        results: list[list[Mark]] = [[] for _ in range(count)]
        for mark in value.marks:
            mixed = set(MIXED_AXES[name](equation.params)) & set(axes_of(mark)) if name in MIXED_AXES else set()
            if mixed and mixed < set(axes_of(mark)):  # as in group normalization: whole groups can be cut
                first = functools.reduce(lambda mark, axis: mark.take([0], axis), sorted(mixed), mark)
                self.tie(mark, first)
                mark = first
            found = followed(name, equation.params, mark, shape)
            if found is None:
                needed = f"{name} over all channels, as normalization does"
                self.hold(mark, needed if mixed else f"{name}: what it does to channels is not known")
            for result, each in zip(results, found or (), strict=False):
                if any(set(axes_of(other)) & set(axes_of(each)) for other in result):
                    self.hold(mark, f"{name} merges them with other channels")
                elif each.size > 1:
                    result.append(each)
        fill = value.fill if value.fill == 0 or name not in MIXED_AXES else None
        return [Marked(tuple(result), owner, fill) for result in results]

    def concatenated(self, equation: Any, values: Sequence[Marked], owner: Owner) -> Marked:
        """Along one axis, labels one after the other; operands without any there cannot be cut."""
        axis = equation.params["dimension"]
        rank = equation.outvars[0].aval.ndim
        pieces, others = [], []
        for atom, value in zip(equation.invars, values, strict=True):
            here = [mark for mark in value.marks if axis in axes_of(mark)]
            others.append(Marked(tuple(mark for mark in value.marks if axis not in axes_of(mark))))
            if here and axes_of(here[0]) != [axis]:
                self.hold(here[0], "concatenate of split channels")
                here = []
            pieces.append(here[0].ravel() if here else np.zeros(atom.aval.shape[axis], int))
        rest = self.joined(others, owner).marks
        own = np.concatenate(pieces)
        zero = all(value.fill == 0 for value in values if value.marks)
        return Marked((*rest, *([along(axis, rank, own)] if own.any() else [])), owner, 0.0 if zero else None)

    def padded(self, equation: Any, values: Sequence[Marked], owner: Owner) -> Marked:
        """What is padded along marked axes has new labels."""
        marks = []
        for mark in values[0].marks:
            config = [
                each if size > 1 else (0, 0, 0)
                for size, each in zip(mark.shape, equation.params["padding_config"], strict=True)
            ]
            spread = np.asarray(lax.pad(mark.astype(np.int32), np.int32(-1), config)).astype(int)
            spread[spread < 0] = self.labels(int((spread < 0).sum()))  # nothing depends on what is padded
            marks.append(spread)
        return Marked(tuple(marks), owner, values[0].fill if values[0].fill == values[1].fill else None)

    def scan(self, equation: Any, values: list[Marked], repeats: int) -> list[Marked]:
        """The body, until what it hands on has the marks that it takes."""
        params = equation.params
        first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
        rows = []
        for value in values[last:]:
            for mark in value.marks:
                if 0 in axes_of(mark):
                    self.hold(mark, "scan walks along them")
            inner = [mark for mark in value.marks if 0 not in axes_of(mark)]
            rows.append(dataclasses.replace(value, marks=tuple(mark[0] for mark in inner)))
        carry, counted = values[first:last], len(self.products)
        while True:
            results = self.run(params["jaxpr"].jaxpr, [*values[:first], *carry, *rows], repeats * params["length"])
            after = [self.joined(pair, meet(v.owner for v in pair)) for pair in zip(carry, results, strict=False)]
            if [len(value.marks) for value in after] == [len(value.marks) for value in carry]:
                break
            carry, self.products = after, self.products[:counted]
        columns = [
            dataclasses.replace(value, marks=tuple(mark[None] for mark in value.marks))
            for value in results[len(carry) :]
        ]
        return [*after, *columns]

    def product(self, equation: Any, values: list[Marked], repeats: int) -> Marked:
        """Channels that are summed over together are cut together; the result has those of the other axes."""
        shapes = [atom.aval.shape for atom in equation.invars]
        if equation.primitive is lax.dot_general_p:
            axes = of_dot(equation.params, shapes)
        else:
            axes = of_convolution(equation.params, shapes)
            values = [self.without(value, drop, WINDOW) for value, drop in zip(values, axes.windows, strict=True)]
            if equation.params["feature_group_count"] > 1:
                values = self.grouped(equation.params, values, shapes)
        sides = [
            tuple(placed(mark, axes.places[i], len(axes.order)) for mark in value.marks)
            for i, value in enumerate(values)
        ]
        touched = [{axis for mark in marks for axis in axes_of(mark)} for marks in sides]
        for marks, there in zip(sides, reversed(touched), strict=True):
            for mark in marks:
                if set(axes_of(mark)) & axes.summed - there:
                    self.hold(mark, "they multiply what cannot be cut")
        everything = self.joined([Marked(marks) for marks in sides], None).marks
        over = [mark for mark in everything if set(axes_of(mark)) & axes.summed]
        for mark in over:
            if set(axes_of(mark)) - axes.summed:
                self.hold(mark, "only a part of a split axis is summed over")
            elif all(value.fill != 0 for value in values):
                self.hold(mark, "channels without weights would still count")
        free = [mark for mark in everything if set(axes_of(mark)) <= set(axes.results)]
        result = [mark.transpose(axes.order).reshape([mark.shape[axis] for axis in axes.results]) for mark in free]
        found = product_of(equation)
        assert found is not None
        weight = next((i for i, value in enumerate(values) if value.owner and values[1 - i].owner is None), None)
        own = sides[weight] if weight is not None else ()
        outputs = [mark for mark in own if set(axes_of(mark)) <= set(axes.results)]
        inputs = [mark for mark in own if not set(axes_of(mark)) <= set(axes.results)]
        self.products.append(
            Reach(
                found.macs * repeats,
                tuple(everything),
                _labels(inputs),
                _labels(outputs),
            )
        )
        zero = all(value.fill == 0 for value, marks in zip(values, sides, strict=True) if marks)
        return Marked(tuple(result), meet(value.owner for value in values), 0.0 if zero else None)

    def without(self, value: Marked, axes: Sequence[int], reason: str) -> Marked:
        """A value whose channels along some axes have to stay."""
        for mark in value.marks:
            if set(axes) & set(axes_of(mark)):
                self.hold(mark, reason)
        return dataclasses.replace(
            value, marks=tuple(mark for mark in value.marks if not set(axes) & set(axes_of(mark)))
        )

    def grouped(self, params: Any, values: list[Marked], shapes: Sequence[Sequence[int]]) -> list[Marked]:
        """Where groups are many they are cut whole, else the same places in each: they stay of equal size."""
        channels, (outputs, inputs) = params["dimension_numbers"].lhs_spec[1], params["dimension_numbers"].rhs_spec[:2]
        groups, each = params["feature_group_count"], shapes[1][inputs]
        data, kernel = values
        c, i, o = (only(*pair) for pair in ((data, channels), (kernel, inputs), (kernel, outputs)))
        whole = groups >= each
        rows = [None if mark is None else mark.reshape(groups, -1) for mark in (c, o)]
        ones = [row if row is None else row[:, :1] if whole else row[:1] for row in rows]
        for row, one in zip(rows, ones, strict=True):
            if row is not None and one is not None:
                self.tie(row, one)
        if whole and ones[0] is not None and ones[1] is not None:
            self.tie(ones[0], ones[1])
        elif not whole and rows[0] is not None and i is not None:
            self.tie(rows[0], i.reshape(1, each))
        if whole and i is not None:
            self.hold(i, WINDOW)
        if (c is None and i is not None and not whole) or (c is not None and (o if whole else i) is None):
            for mark in (mark for mark in (c, i) if mark is not None):
                self.hold(mark, "they multiply what cannot be cut")
        split = [mark for mark in data.marks if channels in axes_of(mark) and len(axes_of(mark)) > 1]
        for mark in split:
            self.hold(mark, "a grouped convolution of split channels")
        kept = tuple(mark for mark in data.marks if channels not in axes_of(mark))
        return [dataclasses.replace(data, marks=kept), kernel]


def _labels(marks: Sequence[Mark]) -> np.ndarray:
    return np.unique(np.concatenate([mark.ravel() for mark in marks])) if marks else np.zeros(0, int)
