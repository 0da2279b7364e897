"""Convolutions and dot products."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nncompress_jax.export.equations import Equation, Rule
from nncompress_jax.export.values import Codes, Known, Tensor, Value, Writer
from nncompress_jax.ops.conv import Layout, window_of
from nncompress_jax.ops.windows import Window
from nncompress_jax.programs.sizes import Batch, Sizes


def _rounded(writer: Writer, equation: Equation, values: list[Value]) -> Value | str:
    """Stays a node of its own until it is known how inputs are quantized."""
    x = writer.tensor(values[0])
    scale = None
    if len(values) > 1:
        if not isinstance(values[1], Known) or values[1].array.size != 1:
            return "with a scale that depends on data"
        scale = float(values[1].array.item())
    return writer.made("Rounded", [x.name], x.shape, np.float32, order=x.order, sizes=x.sizes, scale=scale)


def _dequantized(writer: Writer, equation: Equation, values: list[Value]) -> Value | str:
    codes, scale = values
    if not isinstance(codes, Known) or not isinstance(scale, Known):
        return "codes that depend on data"
    array = codes.array.astype(np.float32) * scale.array
    return Known(array, equation.shape, Codes(codes.array, scale.array))


def _channels_first(rank: int) -> tuple[int, ...]:
    """Of axes [B, ..., C], in the order in which ONNX stores them."""
    return (0, rank - 1, *range(1, rank - 1))


def _convolution(writer: Writer, equation: Equation, values: list[Value]) -> Value | str:
    params = equation.params
    if equation.dtype != np.float32:
        return "of integers"
    images, kernel = (writer.converted(value, np.float32) for value in values)
    if params["batch_group_count"] != 1:
        return "batch groups"
    layout, window = Layout.of(params["dimension_numbers"]), window_of(params)
    rank = len(images.shape)
    first = _channels_first(rank)
    x = writer.full(writer.ordered(images, [layout.images[axis] for axis in first]))
    outputs = {axis: layout.outputs[axis] for axis in range(rank)}
    options: Any = {"shape": equation.shape, "order": [outputs[axis] for axis in first]}
    if not isinstance(kernel, Known):
        return _by_data(writer, x, kernel, layout, window, options)
    to_stored = [layout.kernel[-1], layout.kernel[-2], *layout.kernel[:-2]]  # [O, I / groups, ...]
    if window.groups > 1 and set(window.image_dilation) != {1}:
        kernel = Known(kernel.array, kernel.shape)  # output channels stand along two axes there
    fields = _of_channels(kernel, to_stored)
    if set(window.image_dilation) != {1}:
        return _transposed(writer, x, fields, window, options)
    attributes = _window_attributes(window)
    if attributes is None:
        return "padding that crops"
    return product(writer, "Conv", x, fields | {"attributes": attributes}, **options)


def product(
    writer: Writer, operation: str, x: Tensor, fields: dict[str, Any], *, shape: Sizes, order: Sequence[int]
) -> Tensor:
    """By a weight that is known; `fields`: of `Product`."""
    name = writer.graph.product(operation, x.name, [shape[axis] for axis in order], **fields)
    return Tensor(name, shape, tuple(order), np.dtype(np.float32), shape)


def _by_data(
    writer: Writer, x: Tensor, kernel: Tensor, layout: Layout, window: Window, options: dict[str, Any]
) -> Value | str:
    attributes = _window_attributes(window)
    if attributes is None or set(window.image_dilation) != {1}:
        return "by a kernel that depends on data, with padding that crops or a dilated image"
    stored = writer.full(writer.ordered(kernel, [layout.kernel[-1], layout.kernel[-2], *layout.kernel[:-2]]))
    return writer.made("Conv", [x.name, stored.name], dtype=np.float32, **options, **attributes)


def _of_channels(kernel: Known, axes: Sequence[int]) -> dict[str, Any]:
    """Fields of `Product`: the weight with its axes in this order, output channels first."""
    sizes: Any = [kernel.shape[axis] for axis in axes]
    if kernel.codes is not None:
        codes = kernel.codes.transposed(axes)
        if codes.scale.size == codes.scale.shape[0]:  # one for each channel, or one for all
            return _coded(np.broadcast_to(codes.codes, sizes), codes.scale, codes.book)
    return {"weight": np.broadcast_to(np.transpose(kernel.array, axes), sizes).astype(np.float32)}


def _coded(codes: np.ndarray, scale: np.ndarray, book: np.ndarray | None) -> dict[str, Any]:
    return {"weight": codes, "scale": scale.reshape(-1) if scale.size > 1 else scale.reshape(()), "book": book}


def _window_attributes(window: Window) -> dict[str, Any] | None:
    if any(min(pad) < 0 for pad in window.padding):
        return None
    pads = [low for low, _ in window.padding] + [high for _, high in window.padding]
    return {
        "strides": list(window.strides),
        "dilations": list(window.kernel_dilation),
        "pads": pads,
        "group": window.groups,
    }


def _transposed(
    writer: Writer, x: Tensor, fields: dict[str, Any], window: Window, options: dict[str, Any]
) -> Value | str:
    """A convolution of an image with zeros between its pixels."""
    weight = fields["weight"]
    if set(window.strides) != {1}:
        return "with strides on a dilated image"
    reach = [step * (size - 1) for step, size in zip(window.kernel_dilation, weight.shape[2:], strict=True)]
    before = [far - low for far, (low, _) in zip(reach, window.padding, strict=True)]
    after = [far - high for far, (_, high) in zip(reach, window.padding, strict=True)]
    if min(before) < 0:
        return "more padding than the kernel reaches"
    groups = window.groups
    flipped = np.flip(weight, tuple(range(2, weight.ndim)))  # [O, I / groups, ...] -> [I, O / groups, ...]
    split = flipped.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    stored = np.swapaxes(split, 1, 2).reshape(-1, weight.shape[0] // groups, *weight.shape[2:])
    attributes = {
        "strides": list(window.image_dilation),
        "dilations": list(window.kernel_dilation),
        "pads": before + [max(size, 0) for size in after],
        "output_padding": [max(-size, 0) for size in after],
        "group": groups,
    }
    changed = {"weight": np.ascontiguousarray(stored), "attributes": attributes}
    return product(writer, "ConvTranspose", x, fields | changed, **options)


def _dot(writer: Writer, equation: Equation, values: list[Value]) -> Value | str:
    contracted, batch = equation.params["dimension_numbers"]
    sides = [writer.converted(value, equation.dtype) for value in values]
    free = [
        [axis for axis in range(len(value.shape)) if axis not in contracted[n] and axis not in batch[n]]
        for n, value in enumerate(sides)
    ]
    weights = [n for n, value in enumerate(sides) if isinstance(value, Known)]
    if (
        equation.dtype == np.float32
        and not batch[0]
        and weights
        and len(sides[1 - weights[-1]].shape) > len(contracted[0])
    ):
        weight = weights[-1]
        return _by_weight(writer, equation, sides, weight, contracted, free)
    left, right = (writer.full(value) for value in sides)
    sizes = [_flat([left.shape[a] for a in contracted[0]])]
    left_rows, right_rows = _flat([left.shape[a] for a in free[0]]), _flat([right.shape[a] for a in free[1]])
    groups = tuple(left.shape[axis] for axis in batch[0])
    x = _matrices(writer, left, [*batch[0], *free[0], *contracted[0]], (*groups, left_rows, *sizes))
    y = _matrices(writer, right, [*batch[1], *contracted[1], *free[1]], (*groups, *sizes, right_rows))
    result = writer.made("MatMul", [x.name, y.name], (*groups, left_rows, right_rows), equation.dtype)
    return result if result.shape == equation.shape else writer.reshaped(result, equation.shape, equation.shape)


def _flat(sizes: Sequence[int | Batch]) -> int | Batch:
    """Their product."""
    times = [size for size in sizes if isinstance(size, Batch)]
    whole = math.prod(size for size in sizes if not isinstance(size, Batch))
    return Batch(times[0].times * whole) if times else whole


def _matrices(writer: Writer, x: Tensor, axes: Sequence[int], shape: Sizes) -> Tensor:
    ordered = writer.ordered(x, axes)
    return ordered if ordered.stored == shape else writer.reshaped(ordered, shape, shape)


def _by_weight(
    writer: Writer,
    equation: Equation,
    sides: Sequence[Value],
    weight: int,
    contracted: Sequence[Sequence[int]],
    free: Sequence[Sequence[int]],
) -> Value:
    """Rows of data by a matrix that is known."""
    data, kernel = writer.full(sides[1 - weight]), sides[weight]
    assert isinstance(kernel, Known)
    rows = [data.shape[axis] for axis in free[1 - weight]]
    inner = _flat([data.shape[axis] for axis in contracted[1 - weight]])
    x = _matrices(writer, data, [*free[1 - weight], *contracted[1 - weight]], (*rows, inner))
    columns: Any = [kernel.shape[axis] for axis in free[weight]]
    fields = _matrix(kernel, contracted[weight], free[weight])
    shape = (*rows, math.prod(columns))
    options: Any = {"shape": shape, "order": range(len(shape))}
    result = product(writer, "Dot", x, fields, **options)
    if weight == 1:
        return result if shape == equation.shape else writer.reshaped(result, equation.shape, equation.shape)
    split = (*rows, *columns)
    result = result if shape == split else writer.reshaped(result, split, split)
    order = [*range(len(columns), len(split)), *range(len(columns))]  # the kernel's axes come first
    return Tensor(result.name, equation.shape, tuple(order), result.dtype, equation.shape)


def _matrix(kernel: Known, contracted: Sequence[int], free: Sequence[int]) -> dict[str, Any]:
    """Fields of `Product`: the weight as [I, O]."""
    axes = [*free, *contracted]
    sizes: Any = [kernel.shape[axis] for axis in axes]
    columns = math.prod(sizes[: len(free)])
    if kernel.codes is not None:
        codes = kernel.codes.transposed(axes)
        if all(size == 1 for size in codes.scale.shape[len(free) :]):
            whole, scale = np.broadcast_to(codes.codes, sizes), codes.scale
            if scale.size > 1:
                scale = np.broadcast_to(scale, [*whole.shape[: len(free)], *[1] * len(contracted)])
            return _coded(whole.reshape(columns, -1).T, scale, codes.book)
    return {"weight": np.transpose(kernel.whole, axes).reshape(columns, -1).T.astype(np.float32)}


RULES: dict[str, Rule] = {
    "rounded": _rounded,
    "dequantized": _dequantized,
    "conv_general_dilated": _convolution,
    "dot_general": _dot,
}
"""By the primitive's name."""
