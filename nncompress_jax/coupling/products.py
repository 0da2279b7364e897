"""How convolutions and dot products couple channels: what is summed over together is cut together."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from nncompress_jax.axes.contraction import Axes, axes_of_product, placed, shown
from nncompress_jax.axes.places import along, axes_of
from nncompress_jax.coupling.labelled import Labelled, only
from nncompress_jax.coupling.labels import Labels, Reach
from nncompress_jax.tracing.program import meet, product_of

Rows = np.ndarray | None
MEETS_WHAT_STAYS = "they multiply what cannot be cut"


class Products(Labels):
    """Labels, through products."""

    def product(self, equation: Any, values: list[Labelled], repeats: int) -> Labelled:
        """Channels that are summed over together are cut together; the result has those of the other axes."""
        shapes = [atom.aval.shape for atom in equation.invars]
        axes = axes_of_product(equation.primitive, equation.params, shapes)
        values, others = values[:2], values[2:]
        for labels in (labels for value in others for labels in value.labels):
            self.freeze(labels, "it reads which rows meet which matrix")
        values = [self.slid(value, own) if own else value for value, own in zip(values, axes.windows, strict=True)]
        if equation.params.get("feature_group_count", 1) > 1:
            values = self.grouped(equation.params, values, shapes)
        sides = [self.side(value, axes.places[i], axes) for i, value in enumerate(values)]
        everything = self.joined(sides, None, lambda fills: 0.0 if 0 in fills else None)
        for one, other in zip(sides, reversed(sides), strict=True):
            for labels in one.labels:
                if axes.summed.intersection(axes_of(labels)).difference(*map(axes_of, other.labels)):
                    self.freeze(labels, MEETS_WHAT_STAYS)
        for labels, fill in everything.pairs:
            if fill is None and axes.summed.intersection(axes_of(labels)):
                self.freeze(labels, "they are not zero where they are cut, and would still count")
        self.found.products.append(self.reach(equation, values, sides, everything, axes, repeats))
        free = [(labels, fill) for labels, fill in everything.pairs if set(axes_of(labels)) <= set(axes.results)]
        moved = [(shown(labels, axes), fill) for labels, fill in free]
        return Labelled.of(moved, meet(value.source for value in values))

    def side(self, value: Labelled, places: Sequence[int], axes: Axes) -> Labelled:
        """An operand, in the numbering of the product."""
        labels = [self.one_axis(placed(each, places, sum(map(len, axes.places))), axes) for each in value.labels]
        return dataclasses.replace(value, labels=tuple(labels))

    def reach(
        self,
        equation: Any,
        values: Sequence[Labelled],
        sides: Sequence[Labelled],
        everything: Labelled,
        axes: Axes,
        repeats: int,
    ) -> Reach:
        """What the product says of its weight, if it has one; only zeros are left out of the program."""
        found = product_of(equation)
        assert found is not None
        weight = next((i for i, value in enumerate(values) if value.source and values[1 - i].source is None), None)
        own = sides[weight].labels if weight is not None else ()
        outputs = [labels for labels in own if set(axes_of(labels)) <= set(axes.results)]
        inputs = [labels for labels in own if not set(axes_of(labels)) <= set(axes.results)]
        left_out = tuple(labels for labels, fill in everything.pairs if fill == 0)
        source = next((value.source for value in values if value.source), "")
        return Reach(found.macs * repeats, source, left_out, _labels(inputs), _labels(outputs))

    def one_axis(self, labels: np.ndarray, axes: Axes) -> np.ndarray:
        """Of a split axis, as that of the heads of attention and of what each holds, one part can be cut: the first.

        Where none of it is summed over, nothing has to be decided.
        """
        own = axes_of(labels)
        if not axes.summed.intersection(own):
            return labels
        stays = next((axis for axis in axes.results if axis in own), own[0])
        return self.whole(labels, [axis for axis in own if axis != stays])

    def slid(self, value: Labelled, axes: Sequence[int]) -> Labelled:
        """An operand whose channels along some axes have to stay: along those a window slides, or they are its own."""
        rest = []
        for labels, fill in ((self.divided(labels, axes), fill) for labels, fill in value.pairs):
            if not set(axes) & set(axes_of(labels)):
                rest.append((labels, fill))
                continue
            self.freeze(labels, "a window slides along them, or data choose among them")
            if value.source:
                self.found.inner.append(np.unique(labels))
        return Labelled.of(rest, value.source) if value.labels else value

    def grouped(self, params: Any, values: list[Labelled], shapes: Sequence[Sequence[int]]) -> list[Labelled]:
        """In a grouped convolution: where groups are many they are cut whole, else they stay of equal size."""
        channels, (outputs, inputs) = params["dimension_numbers"].lhs_spec[1], params["dimension_numbers"].rhs_spec[:2]
        groups, each = params["feature_group_count"], shapes[1][inputs]
        data, kernel = values
        own = only(data, channels)
        if groups >= each and own is not None and data.at([channels]) == 0 and not kernel.labels:
            # A fixed filter, as to blur, gives each group's zeros on.
            first = np.repeat(own.reshape(groups, each)[:, 0], shapes[1][outputs] // groups)
            kernel = Labelled((along(outputs, len(shapes[1]), first),), kernel.source, (0.0,))
        cut = self.whole_groups if groups >= each else self.equal_groups
        cut(_by_group(own, groups), _by_group(only(kernel, outputs), groups), only(kernel, inputs))
        for labels in (labels for labels in data.labels if channels in axes_of(labels) and len(axes_of(labels)) > 1):
            self.freeze(labels, "its groups divide them")
        others = [(labels, fill) for labels, fill in data.pairs if channels not in axes_of(labels)]
        return [Labelled.of(others, data.source), kernel]

    def whole_groups(self, data: Rows, outputs: Rows, inputs: Rows) -> None:
        """All channels of a group go together; data and outputs are [groups, channels of each]."""
        for rows in (rows for rows in (data, outputs) if rows is not None):
            self.couple(rows, rows[:, :1])
        if inputs is not None:
            self.freeze(inputs, "its groups are cut whole")
            self.found.inner.append(inputs)
        if data is not None and outputs is not None:
            self.couple(data[:, :1], outputs[:, :1])
        elif data is not None:
            self.freeze(data, MEETS_WHAT_STAYS)

    def equal_groups(self, data: Rows, outputs: Rows, inputs: Rows) -> None:
        """The same channels of every group go together."""
        for rows in (rows for rows in (data, outputs) if rows is not None):
            self.couple(rows, rows[:1])
        if data is not None and inputs is not None:
            self.couple(data, inputs[None])
            return
        for labels in (labels for labels in (data, inputs) if labels is not None):
            self.freeze(labels, MEETS_WHAT_STAYS)


def _by_group(labels: Rows, groups: int) -> Rows:
    return None if labels is None else labels.reshape(groups, -1)


def _labels(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate([labels.ravel() for labels in arrays])) if arrays else np.zeros(0, int)
