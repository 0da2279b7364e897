"""Windows of which the largest entry, or the sum, is taken."""

import math
from typing import Any

import numpy as np

from nncompress_jax.export.equations import Equation, Rule
from nncompress_jax.export.values import Value, Writer


def _pooling(operation: str) -> Rule:
    def rule(writer: Writer, equation: Equation, values: list[Value]) -> Value | str:
        params = equation.params
        window = params["window_dimensions"]
        rank = len(window)
        strides, padding = params["window_strides"], params["padding"]
        if set(params["base_dilation"]) != {1} or any(min(pad) < 0 for pad in padding):
            return "on a dilated or cropped image"
        still = [n for n in range(rank) if window[n] == strides[n] == 1 and tuple(padding[n]) == (0, 0)]
        if len(still) < 2:
            return "over all axes but one"
        x = writer.full(values[0])
        pair = [axis for axis in x.order if axis in still][:2]
        pair = [0, rank - 1] if {0, rank - 1} <= set(still) else pair
        if {*x.order[:2]} <= {*still}:
            pair = list(x.order[:2])
        space = [axis for axis in range(rank) if axis not in pair]
        x = writer.ordered(x, [*pair, *space])
        attributes: dict[str, Any] = {
            "kernel_shape": [window[axis] for axis in space],
            "strides": [strides[axis] for axis in space],
            "pads": [padding[axis][side] for side in (0, 1) for axis in space],
        }
        dilation = [params["window_dilation"][axis] for axis in space]
        attributes |= {"dilations": dilation} if set(dilation) != {1} else {}
        attributes |= {"count_include_pad": 1} if operation == "AveragePool" else {}
        result = writer.made(operation, [x.name], equation.shape, equation.dtype, order=x.order, **attributes)
        if operation == "MaxPool":
            return result
        count = writer.graph.constant(np.float32(math.prod(window)))
        return writer.made("Mul", [result.name, count], equation.shape, equation.dtype, order=x.order)

    return rule


RULES: dict[str, Rule] = {
    "reduce_window_max": _pooling("MaxPool"),
    "reduce_window_sum": _pooling("AveragePool"),
}
"""By the primitive's name."""
