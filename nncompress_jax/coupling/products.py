"""How convolutions and dot products tie channels: what is summed over together is cut together."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax import lax

from nncompress_jax.axes.contraction import Axes, of_convolution, of_dot, placed
from nncompress_jax.axes.labels import Mark, along, axes_of
from nncompress_jax.coupling.labelled import Marked, only
from nncompress_jax.coupling.labels import Labels
from nncompress_jax.tracing.program import meet, product_of


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


class Products(Labels):
    """Labels, and the products that were met.

    Attributes:
      products: in the order of the program.
    """

    def __init__(self) -> None:
        super().__init__()
        self.products: list[Reach] = []

    def product(self, equation: Any, values: list[Marked], repeats: int) -> Marked:
        """Channels that are summed over together are cut together; the result has those of the other axes."""
        shapes = [atom.aval.shape for atom in equation.invars]
        if equation.primitive is lax.dot_general_p:
            axes = of_dot(equation.params, shapes)
        else:
            axes = of_convolution(equation.params, shapes)
            values = [self.slid(value, own) for value, own in zip(values, axes.windows, strict=True)]
            if equation.params["feature_group_count"] > 1:
                values = self.grouped(equation.params, values, shapes)
        sides = [self.side(value, axes.places[i], axes) for i, value in enumerate(values)]
        everything = self.joined(sides, None, lambda fills: 0.0 if 0 in fills else None)
        for one, other in zip(sides, reversed(sides), strict=True):
            for mark in one.marks:
                if axes.summed.intersection(axes_of(mark)).difference(*map(axes_of, other.marks)):
                    self.hold(mark, "they multiply what cannot be cut")
        for mark, fill in everything.pairs:
            if fill is None and axes.summed.intersection(axes_of(mark)):
                self.hold(mark, "they are not zero where they are cut, and would still count")
        self.products.append(self.reach(equation, values, sides, everything, axes, repeats))
        free = [(mark, fill) for mark, fill in everything.pairs if set(axes_of(mark)) <= set(axes.results)]
        shape = [[mark.shape[axis] for axis in axes.results] for mark, _ in free]
        moved = [(mark.transpose(axes.order).reshape(own), fill) for (mark, fill), own in zip(free, shape, strict=True)]
        return Marked.of(moved, meet(value.source for value in values))

    def side(self, value: Marked, places: Sequence[int], axes: Axes) -> Marked:
        """An operand, in the numbering of the product."""
        marks = [self.one_axis(placed(mark, places, len(axes.order)), axes) for mark in value.marks]
        return dataclasses.replace(value, marks=tuple(marks))

    def reach(
        self,
        equation: Any,
        values: Sequence[Marked],
        sides: Sequence[Marked],
        everything: Marked,
        axes: Axes,
        repeats: int,
    ) -> Reach:
        """What the product says of its weight, if it has one; only zeros are left out of the program."""
        found = product_of(equation)
        assert found is not None
        weight = next((i for i, value in enumerate(values) if value.source and values[1 - i].source is None), None)
        own = sides[weight].marks if weight is not None else ()
        outputs = [mark for mark in own if set(axes_of(mark)) <= set(axes.results)]
        inputs = [mark for mark in own if not set(axes_of(mark)) <= set(axes.results)]
        left_out = tuple(mark for mark, fill in everything.pairs if fill == 0)
        return Reach(found.macs * repeats, left_out, _labels(inputs), _labels(outputs))

    def one_axis(self, mark: Mark, axes: Axes) -> Mark:
        """Of a split axis, as that of the heads of attention and of what each holds, one part can be cut: the first.

        Where none of it is summed over, nothing has to be decided.
        """
        here = [axis for axis in axes.order if axis in axes_of(mark)]
        if not axes.summed.intersection(here):
            return mark
        stays = next((axis for axis in here if axis not in axes.summed), here[0])
        return self.whole(mark, [axis for axis in here if axis != stays])

    def slid(self, value: Marked, axes: Sequence[int]) -> Marked:
        """An operand whose channels along some axes have to stay: along those a window slides, or they are its own."""
        rest = []
        for mark, fill in ((self.divided(mark, axes), fill) for mark, fill in value.pairs):
            if not set(axes) & set(axes_of(mark)):
                rest.append((mark, fill))
                continue
            self.hold(mark, "a window slides along them")
            if value.source:
                self.inner.append(np.unique(mark))
        return Marked.of(rest, value.source) if value.marks else value

    def grouped(self, params: Any, values: list[Marked], shapes: Sequence[Sequence[int]]) -> list[Marked]:
        """Where groups are many they are cut whole, else the same places in each: they stay of equal size."""
        channels, (outputs, inputs) = params["dimension_numbers"].lhs_spec[1], params["dimension_numbers"].rhs_spec[:2]
        groups, each = params["feature_group_count"], shapes[1][inputs]
        data, kernel = values
        c, i, o = (only(*pair) for pair in ((data, channels), (kernel, inputs), (kernel, outputs)))
        whole = groups >= each
        if whole and c is not None and data.at([channels]) == 0 and not kernel.marks:  # a fixed filter, as to blur
            o = np.repeat(c.reshape(groups, each)[:, 0], shapes[1][outputs] // groups)
            kernel = Marked((along(outputs, len(shapes[1]), o),), kernel.source, (0.0,))
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
        kept = [(mark, fill) for mark, fill in data.pairs if channels not in axes_of(mark)]
        return [Marked.of(kept, data.source), kernel]


def _labels(marks: Sequence[Mark]) -> np.ndarray:
    return np.unique(np.concatenate([mark.ravel() for mark in marks])) if marks else np.zeros(0, int)
