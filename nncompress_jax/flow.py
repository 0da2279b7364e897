"""Following the channels of weights through a program: which of them meet, and which have to stay.

Operations carry labels along, and tie those that meet: channels that have to be cut together. Labels of channels that
an operation needs, or of which nothing is known, are held.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax import lax

from nncompress_jax.contraction import Axes, of_convolution, of_dot, placed
from nncompress_jax.labels import Labels
from nncompress_jax.marked import Marked, filled, only, read
from nncompress_jax.marks import MIXED_AXES, Mark, along, axes_of, followed, gathered, simplest, taken_apart
from nncompress_jax.program import ELEMENT_PROGRAMS, PRODUCTS, Owner, meet, product_of
from nncompress_jax.weights.kept_elementwise import ELEMENTWISE


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


class Flow(Labels):
    """What was found on the way through a program: labels that are tied, and held, and products."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[Reach] = []

    def run(self, jaxpr: Any, values: Sequence[Marked], repeats: int = 1, scope: str = "") -> list[Marked]:
        """Through a program, which stands in a scope."""
        known: dict[Any, Marked] = dict(zip(jaxpr.invars, values, strict=True))
        around = self.here
        for equation in jaxpr.eqns:
            within = f"{scope}/{equation.source_info.name_stack}"
            names = [name for name in within.split("/") if name and "(" not in name]  # not those of transformations
            self.here = " in ".join(filter(None, (equation.primitive.name, "/".join(names))))
            results = self.step(equation, [read(known, atom) for atom in equation.invars], repeats, within)
            known.update(zip(equation.outvars, results, strict=True))
        self.here = around
        return [read(known, atom) for atom in jaxpr.outvars]

    def step(self, equation: Any, values: list[Marked], repeats: int, scope: str) -> list[Marked]:
        """Through one equation."""
        name, marked = equation.primitive.name, any(value.marks for value in values)
        owner = meet(value.owner for value in values)
        inside = [equation.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in equation.params]
        if equation.primitive in PRODUCTS:
            return [self.product(equation, values, repeats)]
        if name == "scan":
            return self.scan(equation, values, repeats, scope)
        if name == "cond":
            branches = [self.run(branch.jaxpr, values[1:], repeats, scope) for branch in equation.params["branches"]]
            return [self.joined(results, meet(r.owner for r in results)) for results in zip(*branches, strict=True)]
        if inside and name not in ELEMENT_PROGRAMS:
            return self.run(getattr(inside[0], "jaxpr", inside[0]), values, repeats, scope)
        if equation.primitive in ELEMENTWISE:
            return [dataclasses.replace(self.joined(values, owner), fill=filled(equation, values))]
        if not marked:
            fill = values[0].fill if name == "broadcast_in_dim" else None
            return [Marked(owner=owner, fill=fill)] * len(equation.outvars)
        if name == "concatenate":
            return [self.concatenated(equation, values, owner)]
        if name == "stack":
            axis = equation.params["axis"]
            marks = [tuple(np.expand_dims(mark, axis) for mark in value.marks) for value in values]
            values = [dataclasses.replace(value, marks=own) for value, own in zip(values, marks, strict=True)]
            return [self.joined(values, owner)]
        if name == "optimization_barrier":
            return values
        if name in ("gather", "dynamic_slice"):
            return [self.gathered(equation, values, owner)]
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
                self.hold(mark, "what it does to channels is not known")
            return [Marked(owner=owner)] * count
        (value,), shape = values, equation.invars[0].aval.shape
        results: list[list[Mark]] = [[] for _ in range(count)]
        for mark in value.marks:
            mixed = set(MIXED_AXES[name](equation.params)) & set(axes_of(mark)) if name in MIXED_AXES else set()
            mark = self.divided(mark, mixed | set(taken_apart(name, equation.params, shape)))
            found = followed(name, equation.params, mark, shape)
            if found is None:
                needed = "it needs all channels, as normalization does"
                self.hold(mark, needed if mixed else "what it does to channels is not known")
            for result, each in zip(results, found or (), strict=False):
                if any(set(axes_of(other)) & set(axes_of(each)) for other in result):
                    self.hold(mark, "it merges them with other channels")
                elif each.size > 1:
                    result.append(each)
                else:
                    self.hold(each, "it takes one channel on its own")
        fill = value.fill if value.fill == 0 or name not in MIXED_AXES else None
        return [Marked(tuple(result), owner, fill) for result in results]

    def gathered(self, equation: Any, values: Sequence[Marked], owner: Owner) -> Marked:
        """Reading at places that are not known: channels of axes that are read whole are still there."""
        (value, *_), name = values, equation.primitive.name
        shape, rank = equation.invars[0].aval.shape, equation.outvars[0].aval.ndim
        found = [(mark, gathered(name, equation.params, mark, shape, rank)) for mark in value.marks]
        for mark, result in found:
            if result is None:
                self.hold(mark, "which of them it reads is not known")
        for mark in (mark for place in values[1:] for mark in place.marks):
            self.hold(mark, "it reads where they say")
        return Marked(tuple(result for _, result in found if result is not None), owner, value.fill)

    def concatenated(self, equation: Any, values: Sequence[Marked], owner: Owner) -> Marked:
        """Along one axis, labels one after the other; operands without any there cannot be cut."""
        axis = equation.params["dimension"]
        here = [[mark for mark in value.marks if axis in axes_of(mark)] for value in values]
        over = {axis}.union(*(axes_of(mark) for marks in here for mark in marks))
        pieces, others = [], []
        for atom, value, marks in zip(equation.invars, values, here, strict=True):
            shape = [size if place in over else 1 for place, size in enumerate(atom.aval.shape)]
            pieces.append(np.broadcast_to(marks[0] if marks else 0, shape))
            others.append(Marked(tuple(mark for mark in value.marks if axis not in axes_of(mark))))
        own = simplest(np.concatenate(pieces, axis))
        together = self.joined([*others, *([Marked((own,))] if own.any() else [])], owner)
        zero = all(value.fill == 0 for value in values if value.marks)
        return dataclasses.replace(together, fill=0.0 if zero else None)

    def padded(self, equation: Any, values: Sequence[Marked], owner: Owner) -> Marked:
        """What is padded along marked axes has new labels."""
        marks = []
        for mark in values[0].marks:
            config = [
                each if size > 1 else (0, 0, 0)
                for size, each in zip(mark.shape, equation.params["padding_config"], strict=True)
            ]
            spread = np.asarray(lax.pad(mark.astype(np.int32), np.int32(-1), config)).astype(int)
            spread[spread < 0] = self.new(int((spread < 0).sum()))  # nothing depends on what is padded
            marks.append(spread)
        return Marked(tuple(marks), owner, values[0].fill if values[0].fill == values[1].fill else None)

    def scan(self, equation: Any, values: list[Marked], repeats: int, scope: str) -> list[Marked]:
        """The body, until what it hands on has the marks that it takes."""
        params = equation.params
        first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
        rows = []
        for value in values[last:]:
            for mark in value.marks:
                if 0 in axes_of(mark):
                    self.hold(mark, "it walks along them")
            inner = [mark for mark in value.marks if 0 not in axes_of(mark)]
            rows.append(dataclasses.replace(value, marks=tuple(mark[0] for mark in inner)))
        carry, counted = values[first:last], len(self.products)
        while True:
            turn, times = [*values[:first], *carry, *rows], repeats * params["length"]
            results = self.run(params["jaxpr"].jaxpr, turn, times, scope)
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
            values = [self.slid(value, along) for value, along in zip(values, axes.windows, strict=True)]
            if equation.params["feature_group_count"] > 1:
                values = self.grouped(equation.params, values, shapes)
        sides = [
            tuple(self.one_axis(placed(mark, axes.places[i], len(axes.order)), axes) for mark in value.marks)
            for i, value in enumerate(values)
        ]
        touched = [{axis for mark in marks for axis in axes_of(mark)} for marks in sides]
        for marks, there in zip(sides, reversed(touched), strict=True):
            for mark in marks:
                if set(axes_of(mark)) & axes.summed - there:
                    self.hold(mark, "they multiply what cannot be cut")
        everything = self.joined([Marked(marks) for marks in sides], None).marks
        over = [mark for mark in everything if set(axes_of(mark)) & axes.summed]
        if all(value.fill != 0 for value in values):
            for mark in over:
                self.hold(mark, "they are not zero where they are cut, and would still count")
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

    def one_axis(self, mark: Mark, axes: Axes) -> Mark:
        """Of a split axis, as that of the heads of attention and of what each holds, one part can be cut: the first."""
        here = [axis for axis in axes.order if axis in axes_of(mark)]
        stays = next((axis for axis in here if axis not in axes.summed), here[0])
        return self.whole(mark, [axis for axis in here if axis != stays])

    def slid(self, value: Marked, axes: Sequence[int]) -> Marked:
        """An operand whose channels along some axes have to stay: along those a window slides, or they are its own."""
        rest = []
        for mark in (self.divided(mark, axes) for mark in value.marks):
            if not set(axes) & set(axes_of(mark)):
                rest.append(mark)
                continue
            self.hold(mark, "a window slides along them")
            if value.owner:
                self.inner.append(np.unique(mark))
        return dataclasses.replace(value, marks=tuple(rest))

    def grouped(self, params: Any, values: list[Marked], shapes: Sequence[Sequence[int]]) -> list[Marked]:
        """Where groups are many they are cut whole, else the same places in each: they stay of equal size."""
        channels, (outputs, inputs) = params["dimension_numbers"].lhs_spec[1], params["dimension_numbers"].rhs_spec[:2]
        groups, each = params["feature_group_count"], shapes[1][inputs]
        data, kernel = values
        c, i, o = (only(*pair) for pair in ((data, channels), (kernel, inputs), (kernel, outputs)))
        whole = groups >= each
        if (
            whole and c is not None and data.fill == 0 and not kernel.marks
        ):  # a fixed filter of each channel, as to blur it
            o = np.repeat(c.reshape(groups, each)[:, 0], shapes[1][outputs] // groups)
            kernel = dataclasses.replace(kernel, marks=(along(outputs, len(shapes[1]), o),))
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
            self.hold(i, "its groups are cut whole")
            self.inner.append(i)
        if (c is None and i is not None and not whole) or (c is not None and (o if whole else i) is None):
            for mark in (mark for mark in (c, i) if mark is not None):
                self.hold(mark, "they multiply what cannot be cut")
        split = [mark for mark in data.marks if channels in axes_of(mark) and len(axes_of(mark)) > 1]
        for mark in split:
            self.hold(mark, "its groups divide them")
        kept = tuple(mark for mark in data.marks if channels not in axes_of(mark))
        return [dataclasses.replace(data, marks=kept), kernel]


def _labels(marks: Sequence[Mark]) -> np.ndarray:
    return np.unique(np.concatenate([mark.ravel() for mark in marks])) if marks else np.zeros(0, int)
