"""Labels of channels, and what was found of them."""

import functools
from collections.abc import Iterable, Sequence

import numpy as np

from nncompress_jax.marked import Marked
from nncompress_jax.marks import Mark, along


class Labels:
    """Every position of every axis of a weight has a label; label 0 is that of everything that cannot be cut.

    Attributes:
      count: of labels.
      ties: [N, 2] each, pairs of labels whose channels have to be cut together.
      held: labels whose channels have to stay, with the reason.
    """

    def __init__(self) -> None:
        self.count = 1
        self.ties: list[np.ndarray] = []
        self.held: list[tuple[np.ndarray, str]] = []

    def new(self, number: int) -> np.ndarray:
        """So many new labels."""
        self.count += number
        return np.arange(self.count - number, self.count)

    def leaf(self, path: str, shape: Sequence[int]) -> Marked:
        """A weight with new labels along each axis."""
        sizes = [(axis, size) for axis, size in enumerate(shape) if size > 1]
        return Marked(tuple(along(axis, len(shape), self.new(size)) for axis, size in sizes), path, 0.0)

    def tie(self, one: Mark, other: Mark) -> None:
        """Channels that have to be cut together."""
        pairs = np.stack(np.broadcast_arrays(one, other), -1).reshape(-1, 2)
        self.ties.append(np.unique(pairs, axis=0))

    def hold(self, mark: Mark, reason: str) -> None:
        """Channels that have to stay."""
        self.held.append((np.unique(mark), reason))

    def whole(self, mark: Mark, axes: Iterable[int]) -> Mark:
        """Of channels along several axes, those along some are cut together."""
        first = functools.reduce(lambda mark, axis: mark.take([0], axis), axes, mark)
        if first is not mark:
            self.tie(mark, first)
        return first
