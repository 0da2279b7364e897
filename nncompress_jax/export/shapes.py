"""Operations that move all entries, and those that sum them up."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncompress_jax.export.equations import Equation, Rule, compact_broadcast
from nncompress_jax.export.places import remaining, sliced
from nncompress_jax.export.values import Known, Tensor, Value, Writer
from nncompress_jax.programs.sizes import Batch


def _broadcast(writer: Writer, equation: Equation, values: list[Value]) -> Value:
    value, places = values[0], equation.params["broadcast_dimensions"]
    if isinstance(value, Known):
        return Known(compact_broadcast(value.array, equation), equation.shape)
    added = [axis for axis in range(len(equation.shape)) if axis not in places]
    order = remaining(value.order, dict(enumerate(places)), added)
    sizes = tuple(1 if axis in added else value.sizes[places.index(axis)] for axis in range(len(equation.shape)))
    if not added:
        return Tensor(value.name, equation.shape, order, value.dtype, sizes)
    return writer.reshaped(value, [sizes[axis] for axis in order], equation.shape, order=order, sizes=sizes)


def _tile(writer: Writer, equation: Equation, values: list[Value]) -> Value | str:
    value, times = values[0], equation.sizes("reps")
    if isinstance(value, Known):
        value = writer.tensor(value)
    repeated = [axis for axis, count in enumerate(times) if count != 1]
    if any(value.sizes[axis] != 1 for axis in repeated):
        if any(isinstance(count, Batch) for count in times):
            return "as often as there are examples"
        x = writer.full(value, repeated)
        sizes = tuple(equation.shape[axis] if axis in repeated else size for axis, size in enumerate(x.sizes))
        counts = writer.graph.integers([int(times[axis]) for axis in x.order])  # type: ignore[arg-type]
        return writer.made("Tile", [x.name, counts], equation.shape, x.dtype, order=x.order, sizes=sizes)
    return Tensor(value.name, equation.shape, value.order, value.dtype, value.sizes)


def _reshape(writer: Writer, equation: Equation, values: list[Value]) -> Value | str:
    if equation.params.get("dimensions"):
        return "in another order of the axes"
    value, shape = values[0], equation.shape
    before = [axis for axis, size in enumerate(value.shape) if size != 1]
    after = [axis for axis, size in enumerate(shape) if size != 1]
    if [value.shape[axis] for axis in before] != [shape[axis] for axis in after]:
        x = writer.plain(value)
        return writer.reshaped(x, shape, shape)
    x, ones = writer.tensor(value), [axis for axis, size in enumerate(shape) if size == 1]
    order = remaining(x.order, dict(zip(before, after, strict=True)), ones)
    sizes = list(shape)
    for axis, place in zip(before, after, strict=True):
        sizes[place] = x.sizes[axis]
    return writer.reshaped(x, [sizes[axis] for axis in order], shape, order=order, sizes=tuple(sizes))


def _transpose(writer: Writer, equation: Equation, values: list[Value]) -> Value:
    x, permutation = writer.tensor(values[0]), equation.params["permutation"]
    order = tuple(permutation.index(axis) for axis in x.order)
    return Tensor(x.name, equation.shape, order, x.dtype, tuple(x.sizes[axis] for axis in permutation))


def _cropped(writer: Writer, value: Value, config: Sequence[tuple[int, int, int]]) -> Value | str:
    """Without what negative padding takes away."""
    if all(min(low, high) >= 0 for low, high, _ in config):
        return value
    sizes: Any = value.shape
    starts = [max(-low, 0) for low, _, _ in config]
    ends = [size + high if high < 0 else size for size, (_, high, _) in zip(sizes, config, strict=True)]
    shape = tuple(end - start if start else end for start, end in zip(starts, ends, strict=True))
    return sliced(writer, value, shape, starts, ends, [1] * len(starts))


def _pad(writer: Writer, equation: Equation, values: list[Value]) -> Value | str:
    value, fill = values
    config = equation.params["padding_config"]
    if config != equation.others["padding_config"]:
        return "as much as there are examples"
    if any(interior for _, _, interior in config):
        return "between entries"
    if not isinstance(fill, Known):
        return "with a value that depends on data"
    x = _cropped(writer, value, config)
    if isinstance(x, str):
        return x
    padded = [axis for axis, (low, high, _) in enumerate(config) if max(low, high) > 0]
    tensor = writer.full(x, padded)
    if not padded:
        return tensor
    pads = [max(config[axis][side], 0) for side in (0, 1) for axis in tensor.order]
    sizes = tuple(equation.shape[axis] if axis in padded else size for axis, size in enumerate(tensor.sizes))
    inputs = [tensor.name, writer.graph.integers(pads), writer.graph.constant(fill.array.reshape(()))]
    return writer.made("Pad", inputs, equation.shape, tensor.dtype, order=tensor.order, sizes=sizes, mode="constant")


def _concatenate(writer: Writer, equation: Equation, values: list[Value]) -> Value:
    order = next((value.order for value in values if isinstance(value, Tensor)), tuple(range(len(equation.shape))))
    names = [writer.full(writer.ordered(value, order)).name for value in values]
    axis = order.index(equation.params["dimension"])
    return writer.made("Concat", names, equation.shape, equation.dtype, order=order, axis=axis)


def _stack(writer: Writer, equation: Equation, values: list[Value]) -> Value:
    axis, rows = equation.params.get("axis", 0), []
    for value in values:
        x = writer.plain(value)
        shape = (*x.shape[:axis], 1, *x.shape[axis:])
        rows.append(writer.reshaped(x, shape, shape).name)
    return writer.made("Concat", rows, equation.shape, equation.dtype, axis=axis)


def _squeeze(writer: Writer, equation: Equation, values: list[Value]) -> Value | str:
    return _reshape(writer, Equation("reshape", {}, {}, equation.shapes, equation.dtypes, equation.scope), values)


def _iota(writer: Writer, equation: Equation, values: list[Value]) -> Value | str:
    axis = equation.params["dimension"]
    if isinstance(equation.shape[axis], Batch):
        return "along the examples"
    shape = [1] * len(equation.shape)
    shape[axis] = -1
    return Known(np.arange(equation.shape[axis], dtype=equation.dtype).reshape(shape), equation.shape)


def _reduction(operation: str, *, as_integers: bool = False) -> Rule:
    def rule(writer: Writer, equation: Equation, values: list[Value]) -> Value:
        axes = equation.params["axes"]
        x = writer.full(writer.converted(values[0], np.int32) if as_integers else values[0], axes)
        stay = [axis for axis in range(len(x.shape)) if axis not in axes]
        order = remaining(x.order, {axis: place for place, axis in enumerate(stay)})
        stored = writer.graph.integers([x.order.index(axis) for axis in axes])
        options: Any = {"order": order, "sizes": tuple(x.sizes[axis] for axis in stay), "keepdims": 0}
        result = writer.made(operation, [x.name, stored], equation.shape, x.dtype, **options)
        return writer.converted(result, equation.dtype)

    return rule


def _place(operation: str) -> Rule:
    def rule(writer: Writer, equation: Equation, values: list[Value]) -> Value:
        (axis,) = equation.params["axes"]
        x = writer.full(values[0], [axis])
        stay = [n for n in range(len(x.shape)) if n != axis]
        order = remaining(x.order, {n: place for place, n in enumerate(stay)})
        options: Any = {"order": order, "sizes": tuple(x.sizes[n] for n in stay)}
        options |= {"axis": x.order.index(axis), "keepdims": 0}
        return writer.converted(writer.made(operation, [x.name], equation.shape, np.int64, **options), equation.dtype)

    return rule


def _cumulative_sum(writer: Writer, equation: Equation, values: list[Value]) -> Value:
    axis = equation.params["axis"]
    x = writer.full(values[0], [axis])
    place = writer.graph.constant(np.int64(x.order.index(axis)))
    options: Any = {"order": x.order, "sizes": x.sizes, "reverse": int(equation.params["reverse"])}
    return writer.made("CumSum", [x.name, place], equation.shape, x.dtype, **options)


RULES: dict[str, Rule] = {
    "broadcast_in_dim": _broadcast,
    "tile": _tile,
    "reshape": _reshape,
    "transpose": _transpose,
    "squeeze": _squeeze,
    "pad": _pad,
    "concatenate": _concatenate,
    "stack": _stack,
    "all turns": _stack,
    "iota": _iota,
    "reduce_sum": _reduction("ReduceSum"),
    "reduce_max": _reduction("ReduceMax"),
    "reduce_min": _reduction("ReduceMin"),
    "reduce_prod": _reduction("ReduceProd"),
    "reduce_and": _reduction("ReduceMin", as_integers=True),
    "reduce_or": _reduction("ReduceMax", as_integers=True),
    "argmax": _place("ArgMax"),
    "argmin": _place("ArgMin"),
    "cumsum": _cumulative_sum,
}
"""By the primitive's name."""
