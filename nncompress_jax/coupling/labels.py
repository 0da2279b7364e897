"""Labels of channels, and what was found of them."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from nncompress_jax.axes.places import along, axes_of
from nncompress_jax.axes.rule import Fill
from nncompress_jax.coupling.labelled import Labelled, shared
from nncompress_jax.tracing.program import Source


@dataclasses.dataclass(frozen=True)
class Reach:
    """A convolution or dot product that depends on channels.

    Attributes:
      macs: multiply-accumulates, over the whole batch, with all channels.
      source: the first weight among the operands, by path; empty: none.
      labels: arrays of them; the share of those that stay is the share of the multiply-accumulates that does.
      inputs: labels of the weight that are summed over; none where data meets data.
      outputs: labels of the weight that are not.
    """

    macs: int
    source: str
    labels: tuple[np.ndarray, ...]
    inputs: np.ndarray
    outputs: np.ndarray


@dataclasses.dataclass
class Found:
    """What was found on the way through a program.

    Attributes:
      coupled: [N, 2] each, pairs of labels whose channels have to be cut together.
      same_role: [N, 2] each, pairs of labels of places where several weights lie side by side before they meet data.
      frozen: labels whose channels have to stay, with the reason.
      inner: labels of places within a kernel's window, or within its groups, which are no channels of their own.
      products: in the order of the program.
      undefined: operations that divide zero by zero where channels are cut.
    """

    coupled: list[np.ndarray] = dataclasses.field(default_factory=list)
    same_role: list[np.ndarray] = dataclasses.field(default_factory=list)
    frozen: list[tuple[np.ndarray, str]] = dataclasses.field(default_factory=list)
    inner: list[np.ndarray] = dataclasses.field(default_factory=list)
    products: list[Reach] = dataclasses.field(default_factory=list)
    undefined: list[str] = dataclasses.field(default_factory=list)

    def add(self, other: "Found") -> None:
        """What was found behind it."""
        for field in dataclasses.fields(self):
            getattr(self, field.name).extend(getattr(other, field.name))


class Labels:
    """Every position of every axis of a weight has a label; label 0 is that of everything that cannot be cut.

    Attributes:
      count: of labels.
      found: of them so far.
      here: the operation at hand, as reasons name it; empty: none.
    """

    def __init__(self) -> None:
        self.count = 1
        self.found = Found()
        self.here = ""

    def new(self, number: int) -> np.ndarray:
        """So many new labels."""
        self.count += number
        return np.arange(self.count - number, self.count)

    def leaf(self, path: str, shape: Sequence[int]) -> Labelled:
        """A weight with new labels along each axis."""
        sizes = [(axis, size) for axis, size in enumerate(shape) if size > 1]
        labels = tuple(along(axis, len(shape), self.new(size)) for axis, size in sizes)
        return Labelled(labels, path, (0.0,) * len(labels))

    def couple(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Channels that have to be cut together; returns the pairs of their labels."""
        pairs = np.unique(np.stack(np.broadcast_arrays(one, other), -1).reshape(-1, 2), axis=0)
        apart = (pairs == 0).any(1)
        self.found.coupled.append(pairs[~apart])
        if apart.any():
            self.freeze(pairs[apart].max(1), "they meet what cannot be cut")
        return self.found.coupled[-1]

    def freeze(self, labels: np.ndarray, reason: str) -> None:
        """Channels that have to stay."""
        self.found.frozen.append((np.unique(labels), f"{self.here}: {reason}" if self.here else reason))

    def divided(self, labels: np.ndarray, axes: Iterable[int]) -> np.ndarray:
        """As `whole`, of channels that stand along other axes, too: as in group normalization whole groups go."""
        own = set(axes_of(labels))
        return self.whole(labels, own & set(axes)) if own - set(axes) else labels

    def whole(self, labels: np.ndarray, axes: Iterable[int]) -> np.ndarray:
        """Of channels along several axes, those along some are cut together."""
        first = functools.reduce(lambda labels, axis: labels.take([0], axis), axes, labels)
        if first is not labels:
            self.couple(labels, first)
        return first

    def joined(
        self, values: Sequence[Labelled], source: Source, fill: Callable[[list[Fill]], Fill] = shared
    ) -> Labelled:
        """Values of one shape, combined entry by entry: what lies at the same place is cut together.

        Args:
          values: the operands.
          source: of the result.
          fill: what the result is, where the operands are these numbers.
        """
        labels: list[np.ndarray] = []
        for each in (each for value in values for each in value.labels):
            overlapping = [other for other in labels if set(axes_of(other)) & set(axes_of(each))]
            for other in overlapping:
                pairs = self.couple(each, other)
                if source is not None:
                    self.found.same_role.append(pairs)
            if not overlapping:
                labels.append(each)
        fills = [fill([value.at(axes_of(each)) for value in values]) for each in labels]
        number = None if labels else fill([value.number for value in values])
        return Labelled(tuple(labels), source, tuple(fills), number)
