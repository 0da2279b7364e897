"""Where marks along the axes of an array go when an operation moves its entries.

A mark is an array of the rank of what it marks, as long as it along the axes on which it depends and of size 1 along
all others: a label for each channel, or whether the channel is there.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Mark = np.ndarray


def along(axis: int, rank: int, entries: Any) -> Mark:
    """A mark that depends on one axis.

    Example:
      >>> along(1, 3, [7, 8]).shape
      (1, 2, 1)
    """
    return np.asarray(entries).reshape([-1 if i == axis else 1 for i in range(rank)])


def axes_of(mark: Mark) -> list[int]:
    """On which it depends."""
    return [axis for axis, size in enumerate(mark.shape) if size != 1]


def followed(name: str, params: Mapping[str, Any], mark: Mark, shape: Sequence[int]) -> list[Mark] | None:
    """Marks of the results of an operation with one operand.

    Args:
      name: of the primitive.
      params: of the equation.
      mark: of the operand.
      shape: of the operand.

    Returns:
      A mark for each result; None, where entries with different marks are combined, or nothing is known of the
      operation.

    Example:
      >>> (merged,) = followed("reshape", {"new_sizes": (6,)}, along(1, 2, [0, 1, 2]), (2, 3))
      >>> merged.tolist()
      [0, 1, 2, 0, 1, 2]
    """
    mixed = MIXED_AXES.get(name, lambda _: ())(params)
    if set(mixed) & set(axes_of(mark)):
        return None
    if name == "transpose":
        return [mark.transpose(params["permutation"])]
    if name == "broadcast_in_dim":
        places = dict(zip(params["broadcast_dimensions"], mark.shape, strict=True))
        return [mark.reshape([places.get(axis, 1) for axis in range(len(params["shape"]))])]
    if name == "reshape":
        return [_reshaped(mark, shape, params["new_sizes"])]
    if name == "tile":
        return [np.tile(mark, [1 if size == 1 else n for size, n in zip(mark.shape, params["reps"], strict=True)])]
    if name == "rev":
        return [np.flip(mark, params["dimensions"])]
    if name == "slice":
        bounds = zip(
            params["start_indices"], params["limit_indices"], params["strides"] or [1] * mark.ndim, strict=True
        )
        picks = [slice(None) if size == 1 else slice(*each) for size, each in zip(mark.shape, bounds, strict=True)]
        return [mark[tuple(picks)]]
    if name == "split":
        ends = np.cumsum(params["sizes"])[:-1]
        whole = mark.shape[params["axis"]] == 1
        return [mark] * len(params["sizes"]) if whole else np.split(mark, ends, params["axis"])
    if name == "unstack":
        axis, size = params["axis"], shape[params["axis"]]
        return [mark.take(i if mark.shape[axis] > 1 else 0, axis) for i in range(size)]
    if name in REDUCTIONS or name == "squeeze":
        return [mark.squeeze(tuple(params.get("axes", params.get("dimensions"))))]
    return [mark] if name in MIXED_AXES or name == "sharding_constraint" else None


def taken_apart(name: str, params: Mapping[str, Any], shape: Sequence[int]) -> list[int]:
    """Axes of which an operation with one operand takes pieces."""
    if name == "slice":
        bounds = zip(
            params["start_indices"], params["limit_indices"], params["strides"] or [1] * len(shape), strict=True
        )
        return [axis for axis, each in enumerate(bounds) if each != (0, shape[axis], 1)]
    return [params["axis"]] if name in ("split", "unstack") else []


def gathered(name: str, params: Mapping[str, Any], mark: Mark, shape: Sequence[int], rank: int) -> Mark | None:
    """The mark of what is read of an array at places that only the running program knows.

    Args:
      name: gather or dynamic_slice.
      params: of the equation.
      mark: of the array.
      shape: of the array.
      rank: of the result.

    Returns:
      The result's; None, where the array is not read whole along an axis of the mark.
    """
    if any(params["slice_sizes"][axis] != shape[axis] for axis in axes_of(mark)):
        return None
    if name == "dynamic_slice":
        return mark
    numbers = params["dimension_numbers"]
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    places = dict(zip((axis for axis in range(len(shape)) if axis not in gone), numbers.offset_dims, strict=True))
    result = [1] * rank
    for axis in axes_of(mark):
        result[places[axis]] = shape[axis]
    return mark.reshape(result)


REDUCTIONS = (
    *("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or"),
    *("argmax", "argmin"),
)
"""Operations that take axes away."""


def _windowed(params: Mapping[str, Any]) -> list[int]:
    names = ("window_dimensions", "window_strides", "base_dilation", "window_dilation")
    sizes = zip(*(params[name] for name in names), params["padding"], strict=True)
    return [axis for axis, (*ones, padding) in enumerate(sizes) if set(ones) != {1} or any(padding)]


MIXED_AXES: Mapping[str, Any] = {
    **dict.fromkeys(REDUCTIONS, lambda params: params["axes"]),
    **dict.fromkeys(("reduce_window_max", "reduce_window_min", "reduce_window_sum"), _windowed),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin"), lambda params: [params["axis"]]),
}
"""The axes along which an operation combines entries."""


def runs(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Shortest runs of axes of two shapes that hold the same entries, front to back.

    Example:
      >>> list(runs((2, 3, 4), (6, 2, 2)))
      [([0, 1], [0]), ([2], [1, 2])]
    """
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


def _reshaped(mark: Mark, old: Sequence[int], new: Sequence[int]) -> Mark:
    before, after = [1] * len(old), [1] * len(new)
    for olds, news in runs(old, new):
        if any(mark.shape[axis] != 1 for axis in olds):
            before[olds[0] : olds[-1] + 1] = [old[axis] for axis in olds]
            after[news[0] : news[-1] + 1] = [new[axis] for axis in news]
    return simplest(np.broadcast_to(mark, before).reshape(after))


def simplest(mark: Mark) -> Mark:
    """The same mark, of size 1 along the axes on which it does not depend."""
    for axis in axes_of(mark):
        first = mark.take([0], axis)
        if (mark == first).all():
            mark = first
    return mark
