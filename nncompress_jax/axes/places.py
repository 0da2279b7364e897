"""Where the entries of a result stand in an operand, and how arrays that broadcast to the operand go along.

A scale that a channel shares, a label for each channel, or whether the channel is there: each is an array of the
operand's rank, of size 1 along the axes on which it does not depend. It moves as the operand's entries do.
"""

import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Places:
    """Of a result in an operand.

    Attributes:
      axes: for each axis of the result, the operand's axis that it walks along; None: a new axis of one place.
      picked: for each axis of the result, which place of that axis stands at each of its own, -1: none; None: all, in
        their order.
      dropped: axes that the result lacks, with the place at which it reads them.
    """

    axes: tuple[int | None, ...]
    picked: tuple[np.ndarray | None, ...]
    dropped: Mapping[int, int] = dataclasses.field(default_factory=dict)

    @staticmethod
    def same(rank: int, picked: Mapping[int, np.ndarray] | None = None) -> "Places":
        """The operand's axes, of which some are picked from."""
        return Places(tuple(range(rank)), tuple(map((picked or {}).get, range(rank))))

    def lost(self, shape: Sequence[int]) -> set[int]:
        """Axes of the operand of which the result lacks places."""
        pairs = zip(self.axes, self.picked, strict=True)
        found = {axis for axis, picked in pairs if axis is not None and not _is_whole(picked, shape[axis])}
        return found | {axis for axis in self.dropped if shape[axis] > 1}


def move(x: Any, places: Places, fill: Any = 0, *, shared: bool = True) -> Any:
    """An array as the result shows it.

    Args:
      x: of numpy or JAX, of the operand's rank; along axes that are not picked from, of any size.
      places: of the result in the operand.
      fill: what stands where none of the operand's places does.
      shared: whether an axis of size 1 stays one, as all entries along it are the same; else x is the operand itself.

    Example:
      >>> flipped = Places((1, None), (np.array([1, 0]), None), {0: 0})
      >>> move(np.array([[7, 8]]), flipped).tolist()
      [[8], [7]]
    """
    for axis, place in sorted(places.dropped.items(), reverse=True):
        x = x[(slice(None),) * axis + (place if x.shape[axis] > 1 else 0,)]
    kept = [axis for axis in range(x.ndim + len(places.dropped)) if axis not in places.dropped]
    x = x.transpose([kept.index(axis) for axis in places.axes if axis is not None])
    x = x[tuple(None if axis is None else slice(None) for axis in places.axes)]
    for axis, picked in enumerate(places.picked):
        if picked is not None and not (shared and x.shape[axis] == 1):
            x = _pick(x, axis, picked, fill)
    return x


def _is_whole(picked: np.ndarray | None, size: int) -> bool:
    return picked is None or len(np.unique(picked[picked >= 0])) == size


def _pick(x: Any, axis: int, picked: np.ndarray, fill: Any) -> Any:
    numpy, there = np if isinstance(x, np.ndarray) else jnp, picked >= 0
    shape = (*x.shape[:axis], len(picked), *x.shape[axis + 1 :])
    if not there.any():
        return numpy.full(shape, fill, x.dtype)
    if not there.all():
        found = there.reshape([-1 if place == axis else 1 for place in range(x.ndim)])
        return numpy.where(found, numpy.take(x, np.maximum(picked, 0), axis), numpy.asarray(fill, x.dtype))
    step = int(picked[1] - picked[0]) if len(picked) > 1 else 1
    if step and (np.diff(picked) == step).all():  # a slice, which compilers know better
        end = int(picked[-1]) + (1 if step > 0 else -1)
        return x[(slice(None),) * axis + (slice(int(picked[0]), None if end < 0 else end, step),)]
    return numpy.broadcast_to(x, shape) if x.shape[axis] == 1 else numpy.take(x, picked, axis)


def repeated(part: Any, shape: Sequence[int], kept: Collection[int] = ()) -> Any:
    """What groups of neighbours share, once for each of them; not along axes that are kept, nor where all share it."""
    for axis, (size, whole) in enumerate(zip(part.shape, shape, strict=True)):
        if 1 < size < whole and axis not in kept:
            part = jnp.repeat(part, whole // size, axis)
    return part


def along(axis: int, rank: int, entries: Any) -> np.ndarray:
    """An array that depends on one axis.

    Example:
      >>> along(1, 3, [7, 8]).shape
      (1, 2, 1)
    """
    return np.asarray(entries).reshape([-1 if i == axis else 1 for i in range(rank)])


def axes_of(x: Any) -> list[int]:
    """On which it depends."""
    return [axis for axis, size in enumerate(x.shape) if size != 1]


def simplest(x: np.ndarray) -> np.ndarray:
    """The same, of size 1 along the axes on which it does not depend."""
    for axis in (axis for axis in axes_of(x) if x.shape[axis]):
        first = x.take([0], axis)
        if (x == first).all():
            x = first
    return x


def reshaped(x: Any, old: Sequence[int], new: Sequence[int]) -> Any:
    """As an operand of one shape becomes one of another; along a run of axes on which it depends it is repeated.

    Example:
      >>> reshaped(along(1, 2, [0, 1, 2]), (2, 3), (6,)).tolist()
      [0, 1, 2, 0, 1, 2]
    """
    before, after = list(x.shape), [1] * len(new)
    for olds, news in runs(old, new):
        if len(olds) == len(news) == 1:
            after[news[0]] = x.shape[olds[0]]
        elif any(x.shape[axis] != 1 for axis in olds):
            before[olds[0] : olds[-1] + 1] = [old[axis] for axis in olds]
            after[news[0] : news[-1] + 1] = [new[axis] for axis in news]
    return (np if isinstance(x, np.ndarray) else jnp).broadcast_to(x, before).reshape(after)


def runs(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Shortest runs of axes of two shapes that hold the same entries, front to back.

    Example:
      >>> list(runs((2, 3, 4), (6, 2, 2)))
      [([0, 1], [0]), ([2], [1, 2])]
    """
    if 0 in (*old, *new):  # of no entries: what stands alike in front and behind is the same, the rest one run
        same = [one == other for one, other in zip(old, new, strict=False)]
        first = (*same, False).index(False)
        behind = (*(one == other for one, other in zip(old[:first:-1], new[:first:-1], strict=False)), False)
        last = behind.index(False)
        yield from (([axis], [axis]) for axis in range(first))
        yield [*range(first, len(old) - last)], [*range(first, len(new) - last)]
        yield from (([len(old) - n], [len(new) - n]) for n in range(last, 0, -1))
        return
    i = j = 0
    while i < len(old) or j < len(new):
        first_i, first_j = i, j
        i, j = min(i + 1, len(old)), min(j + 1, len(new))
        while (left := math.prod(old[first_i:i])) != (right := math.prod(new[first_j:j])):
            if left < right:
                i += 1
            else:
                j += 1
        yield list(range(first_i, i)), list(range(first_j, j))
