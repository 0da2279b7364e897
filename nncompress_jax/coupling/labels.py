"""Labels of channels, and what was found of them."""

import functools
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from nncompress_jax.axes.labels import Mark, along, axes_of
from nncompress_jax.coupling.labelled import Fill, Marked, shared
from nncompress_jax.tracing.program import Source


class Labels:
    """Every position of every axis of a weight has a label; label 0 is that of everything that cannot be cut.

    Attributes:
      count: of labels.
      ties: [N, 2] each, pairs of labels whose channels have to be cut together.
      like: [N, 2] each, pairs of labels of places where several weights lie side by side before they meet data.
      held: labels whose channels have to stay, with the reason.
      inner: labels of places within a kernel's window, or within its groups, which are no channels of their own.
      here: the operation at hand, as reasons name it; empty: none.
    """

    def __init__(self) -> None:
        self.count = 1
        self.ties: list[np.ndarray] = []
        self.like: list[np.ndarray] = []
        self.held: list[tuple[np.ndarray, str]] = []
        self.inner: list[np.ndarray] = []
        self.here = ""

    def new(self, number: int) -> np.ndarray:
        """So many new labels."""
        self.count += number
        return np.arange(self.count - number, self.count)

    def leaf(self, path: str, shape: Sequence[int]) -> Marked:
        """A weight with new labels along each axis."""
        sizes = [(axis, size) for axis, size in enumerate(shape) if size > 1]
        marks = tuple(along(axis, len(shape), self.new(size)) for axis, size in sizes)
        return Marked(marks, path, (0.0,) * len(marks))

    def tie(self, one: Mark, other: Mark) -> np.ndarray:
        """Channels that have to be cut together; returns the pairs of their labels."""
        pairs = np.unique(np.stack(np.broadcast_arrays(one, other), -1).reshape(-1, 2), axis=0)
        apart = (pairs == 0).any(1)
        self.ties.append(pairs[~apart])
        if apart.any():
            self.hold(pairs[apart].max(1), "they meet what cannot be cut")
        return self.ties[-1]

    def hold(self, mark: Mark, reason: str) -> None:
        """Channels that have to stay."""
        self.held.append((np.unique(mark), f"{self.here}: {reason}" if self.here else reason))

    def divided(self, mark: Mark, axes: Iterable[int]) -> Mark:
        """As `whole`, of channels that stand along other axes, too: as in group normalization whole groups go."""
        own = set(axes_of(mark))
        return self.whole(mark, own & set(axes)) if own - set(axes) else mark

    def whole(self, mark: Mark, axes: Iterable[int]) -> Mark:
        """Of channels along several axes, those along some are cut together."""
        first = functools.reduce(lambda mark, axis: mark.take([0], axis), axes, mark)
        if first is not mark:
            self.tie(mark, first)
        return first

    def joined(self, values: Sequence[Marked], source: Source, fill: Callable[[list[Fill]], Fill] = shared) -> Marked:
        """Values of one shape, combined entry by entry: what lies at the same place is cut together.

        Args:
          values: the operands.
          source: of the result.
          fill: what the result is, where the operands are these numbers.
        """
        marks: list[Mark] = []
        for mark in (mark for value in values for mark in value.marks):
            overlapping = [other for other in marks if set(axes_of(other)) & set(axes_of(mark))]
            for other in overlapping:
                pairs = self.tie(mark, other)
                if source is not None:
                    self.like.append(pairs)
            if not overlapping:
                marks.append(mark)
        fills = [fill([value.at(axes_of(mark)) for value in values]) for mark in marks]
        return Marked(tuple(marks), source, tuple(fills), None if marks else fill([value.number for value in values]))
