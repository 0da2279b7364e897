"""A product as matrices: the rows of data that meet a weight, and the weight's entries that they meet.

A convolution or dot product is G products of matrices, X [rows, n] times K [R, n] transposed: of groups of channels, of
experts, of members side by side. R counts outputs, n what is summed over: input channels, and window places.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nncompress_jax.tracing.observations import Meeting
from nncompress_jax.types import Array

MOST_BYTES = 2**26
"""Of rows that are taken from a batch; random ones, where there are more."""


def is_known(met: Meeting) -> bool:
    """Whether a product can be written so: ragged dot products, and convolutions of groups of images, are not."""
    if met.primitive is lax.dot_general_p:
        return True
    return met.primitive is lax.conv_general_dilated_p and met.operand == 1 and met.params["batch_group_count"] == 1


def entries(met: Meeting, operand: Array) -> Array:
    """[G, R, n] what is at each place of a weight.

    Args:
      met: where it multiplies; `is_known`.
      operand: of the shape of the weight as it stands there.

    Example:
      >>> numbers = (((1,), (0,)), ((), ()))
      >>> met = Meeting("w", jnp.ones((5, 2)), None, 1, lax.dot_general_p, {"dimension_numbers": numbers})
      >>> entries(met, jnp.arange(6).reshape(2, 3)).tolist()
      [[[0, 3], [1, 4], [2, 5]]]
    """
    if met.primitive is lax.dot_general_p:
        contracted, batch = _dot_axes(met, met.operand)
        return _as_matrices(operand, batch, contracted)
    outputs, inputs, *window = met.params["dimension_numbers"].rhs_spec
    groups = met.params["feature_group_count"]
    kernel = operand.transpose(outputs, *window, inputs)
    return kernel.reshape(groups, kernel.shape[0] // groups, -1)


def rows(met: Meeting, inputs: Array, wanted: int, key: Array) -> tuple[Array, float]:
    """Rows of data that meet a weight.

    Args:
      met: where it multiplies; `is_known`.
      inputs: what it multiplies there.
      wanted: how many rows, where there are more; fewer, if they would take more than `MOST_BYTES`.
      key: of their random choice, without replacement.

    Returns:
      [G, rows, n] float32, the order of n that of `entries`; and how many rows there are for each that is taken.
    """
    inputs = inputs.astype(jnp.float32)
    if met.primitive is lax.dot_general_p:
        contracted, batch = _dot_axes(met, 1 - met.operand)
        matrices = _as_matrices(inputs, batch, contracted)
        groups, total, size = matrices.shape
        picks = _picks(total, wanted, groups * size, key)
        return (matrices, 1.0) if picks is None else (matrices[:, picks], total / len(picks))
    window = [met.weight.shape[axis] for axis in met.params["dimension_numbers"].rhs_spec[2:]]
    return _of_convolution(inputs, window, met.params, wanted, key)


def _dot_axes(met: Meeting, operand: int) -> tuple[Sequence[int], Sequence[int]]:
    contracted, batch = met.params["dimension_numbers"]
    return contracted[operand], batch[operand]


def _as_matrices(x: Array, first: Sequence[int], last: Sequence[int]) -> Array:
    """[first, others, last]."""
    others = [axis for axis in range(x.ndim) if axis not in (*first, *last)]
    sizes = [math.prod(x.shape[axis] for axis in axes) for axes in (first, others, last)]
    return x.transpose(*first, *others, *last).reshape(sizes)


def _picks(total: int, wanted: int, entries_in_row: int, key: Array) -> Array | None:
    """Which rows; None: all."""
    wanted = min(wanted, max(MOST_BYTES // (4 * entries_in_row), 1))
    return None if total <= wanted else jax.random.choice(key, total, (wanted,), replace=False)


def _of_convolution(
    x: Array, window: Sequence[int], params: Mapping[str, Any], wanted: int, key: Array
) -> tuple[Array, float]:
    """Windows of the padded images, at some of the places where the kernel comes to stand."""
    numbers, groups, ones = params["dimension_numbers"], params["feature_group_count"], (1,) * (x.ndim - 2)
    images, channels, *space = numbers.lhs_spec
    x = x.transpose(images, *space, channels)
    between = [dilation - 1 for dilation in params["lhs_dilation"] or ones]
    pads = [(*sides, inside) for sides, inside in zip(params["padding"], between, strict=True)]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
    strides, dilations = params["window_strides"], params["rhs_dilation"] or ones
    spans = [(size - 1) * dilation + 1 for size, dilation in zip(window, dilations, strict=True)]
    sizes = [max((n - span) // stride + 1, 0) for n, span, stride in zip(x.shape[1:-1], spans, strides, strict=True)]
    total, taps = x.shape[0] * math.prod(sizes), math.prod(window)
    picks = _picks(total, wanted, taps * x.shape[-1], key)
    image, *corner = jnp.unravel_index(jnp.arange(total) if picks is None else picks, (x.shape[0], *sizes))
    tap = jnp.unravel_index(jnp.arange(taps), tuple(window))
    places = [
        first[:, None] * stride + inner * dilation
        for first, inner, stride, dilation in zip(corner, tap, strides, dilations, strict=True)
    ]
    windows = x[(image[:, None], *places)].reshape(len(image), taps, groups, -1)
    return jnp.moveaxis(windows, 2, 0).reshape(groups, len(image), -1), total / max(len(image), 1)
