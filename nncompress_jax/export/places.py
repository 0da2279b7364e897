"""Operations that take some places of an axis."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncompress_jax.export.equations import Equation, Rule
from nncompress_jax.export.values import Known, Tensor, Value, Writer
from nncompress_jax.programs.sizes import Batch, Sizes

LARGEST = 2**62
"""The end of an axis of any size."""


def remaining(old: Sequence[int], new: dict[int, int], added: Sequence[int] = ()) -> tuple[int, ...]:
    """Of stored axes, some of which are gone: where each stands in the new shape; then those that are added behind."""
    return (*(new[axis] for axis in old if axis in new), *added)


def sliced(
    writer: Writer, value: Value, shape: Sizes, starts: Sequence[int], ends: Sequence[Any], steps: Sequence[int]
) -> Value | str:
    """Some places of each axis; ends may be `Batch()`, of a whole axis alone."""
    x = writer.tensor(value)
    chosen = []
    for axis, (start, end, step) in enumerate(zip(starts, ends, steps, strict=True)):
        if (start, end, step) == (0, x.shape[axis], 1) or x.sizes[axis] == 1:
            continue
        if isinstance(start, Batch) or (isinstance(end, Batch) and (end != x.shape[axis] or step < 0)):
            return "a share of the examples"
        chosen.append(axis)
    sizes = tuple(shape[axis] if axis in chosen else size for axis, size in enumerate(x.sizes))
    if not chosen:
        return Tensor(x.name, shape, x.order, x.dtype, sizes)

    def ends_of(axis: int) -> int:
        return LARGEST if isinstance(ends[axis], Batch) else int(ends[axis])

    lists = [[int(starts[axis]) for axis in chosen], [ends_of(axis) for axis in chosen]]
    lists += [[x.order.index(axis) for axis in chosen], [int(steps[axis]) for axis in chosen]]
    inputs = [x.name, *(writer.graph.integers(each) for each in lists)]
    return writer.made("Slice", inputs, shape, x.dtype, order=x.order, sizes=sizes)


def _slice(writer: Writer, equation: Equation, values: list[Value]) -> Value | str:
    starts, ends = equation.sizes("start_indices"), equation.sizes("limit_indices")
    steps = equation.params["strides"] or (1,) * len(starts)
    return sliced(writer, values[0], equation.shape, starts, ends, steps)  # type: ignore[arg-type]


def _dynamic_slice(writer: Writer, equation: Equation, values: list[Value]) -> Value | str:
    x, *places = values
    if not all(isinstance(place, Known) for place in places):
        return "places that depend on data"
    starts: list[int] = []
    ends: list[Any] = []
    for place, size, whole in zip(places, equation.shape, x.shape, strict=True):
        if size == whole:
            start, end = 0, whole
        elif isinstance(size, Batch) or isinstance(whole, Batch):
            return "a share of the examples"
        else:
            start = int(np.clip(place.array.item(), 0, whole - size))  # type: ignore[union-attr]
            end = start + size
        starts.append(start)
        ends.append(end)
    return sliced(writer, x, equation.shape, starts, ends, [1] * len(starts))


def _reverse(writer: Writer, equation: Equation, values: list[Value]) -> Value | str:
    gone = equation.params["dimensions"]
    if any(isinstance(values[0].shape[axis], Batch) for axis in gone):
        return "the order of examples"
    every = range(len(equation.shape))
    starts = [-1 if axis in gone else 0 for axis in every]
    ends = [-LARGEST if axis in gone else values[0].shape[axis] for axis in every]
    return sliced(writer, values[0], equation.shape, starts, ends, [-1 if axis in gone else 1 for axis in every])


def _unstack(writer: Writer, equation: Equation, values: list[Value]) -> list[Value] | str:
    axis = equation.params["axis"]
    if isinstance(values[0].shape[axis], Batch):
        return "examples from one another"
    x = writer.full(values[0], [axis])
    order = remaining(x.order, {n: n - (n > axis) for n in range(len(x.shape)) if n != axis})
    options: Any = {"order": order, "sizes": tuple(size for n, size in enumerate(x.sizes) if n != axis)}
    found: list[Value] = []
    for turn, shape in enumerate(equation.shapes):
        place = writer.graph.constant(np.int64(turn))
        found.append(writer.made("Gather", [x.name, place], shape, x.dtype, axis=x.order.index(axis), **options))
    return found


def _one_turn(writer: Writer, equation: Equation, values: list[Value]) -> Value:
    x = writer.plain(values[0])
    place = writer.graph.constant(np.int64(equation.params["turn"]))
    return writer.made("Gather", [x.name, place], equation.shape, x.dtype, axis=0)


def _split(writer: Writer, equation: Equation, values: list[Value]) -> list[Value] | str:
    axis, start = equation.params["axis"], 0
    found: list[Value] = []
    whole: list[Any] = list(values[0].shape)
    if isinstance(whole[axis], Batch):
        return "examples from one another"
    for shape in equation.shapes:
        size: Any = shape[axis]
        starts, ends = [0] * len(whole), [*whole]
        starts[axis], ends[axis] = start, start + size
        part = sliced(writer, values[0], shape, starts, ends, [1] * len(whole))
        if isinstance(part, str):
            return part
        found.append(part)
        start += size
    return found


def _gather(writer: Writer, equation: Equation, values: list[Value]) -> Value | str:
    operand, indices = values
    numbers, sizes = equation.params["dimension_numbers"], equation.sizes("slice_sizes")
    plain = len(numbers.start_index_map) == 1 and numbers.collapsed_slice_dims == numbers.start_index_map
    if not plain or numbers.operand_batching_dims:
        return "at places of more axes than one"
    (axis,) = numbers.start_index_map
    if any(size != whole for n, (size, whole) in enumerate(zip(sizes, operand.shape, strict=True)) if n != axis):
        return "of parts of rows"
    table = writer.full(operand)
    places = writer.plain(writer.converted(indices, np.int64))
    places = writer.reshaped(places, places.shape[:-1], places.shape[:-1])
    data = [n for n in range(len(operand.shape)) if n != axis]
    others = [n for n in range(len(equation.shape)) if n not in numbers.offset_dims]
    where = dict(zip(data, numbers.offset_dims, strict=True))
    at = table.order.index(axis)
    order = [where[n] for n in table.order[:at]] + others + [where[n] for n in table.order[at + 1 :]]
    return writer.made("Gather", [table.name, places.name], equation.shape, table.dtype, order=order, axis=at)


RULES: dict[str, Rule] = {
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "rev": _reverse,
    "split": _split,
    "unstack": _unstack,
    "one turn": _one_turn,
    "gather": _gather,
}
"""By the primitive's name."""
