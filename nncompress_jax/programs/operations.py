"""The operations that a program in a file may have: JAX's own, by the names of their primitives.

What is listed here means the same for ever: a file holds names and parameters, and nothing else decides what runs.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nncompress_jax.programs import kinds
from nncompress_jax.programs.kinds import Kind


@dataclasses.dataclass(frozen=True)
class Operation:
    """One of them.

    Attributes:
      run: of the operands, with the parameters by name; gives the result, or a list of several.
      params: by name, what each may be.
    """

    run: Callable[..., Any]
    params: Mapping[str, Kind] = dataclasses.field(default_factory=dict)


LEFT_OUT = {"sharding", "out_sharding", "weak_type", "update_jaxpr", "update_consts"}
"""Parameters that say nothing of what comes out. Others that are not listed have to be None."""


def _of_list(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *operands, **params: function(operands, **params)


def _reshaped(x: Any, new_sizes: Any, dimensions: Any = None) -> Any:
    if math.prod(new_sizes) != x.size:  # JAX leaves this to the compiler
        raise TypeError(f"an array of shape {list(x.shape)} as one of {list(new_sizes)}")
    return lax.reshape(x, new_sizes, dimensions)


def _convolved(x: Any, kernel: Any, *, dimension_numbers: Any, **params: Any) -> Any:
    names = ("window_strides", "padding", "lhs_dilation", "rhs_dilation")
    if any(len(params[name]) != x.ndim - 2 for name in names):  # likewise
        raise TypeError(f"strides, padding and dilations of an image with {x.ndim} axes")
    return lax.conv_general_dilated(x, kernel, dimension_numbers=dimension_numbers, **params)


def _window(combine: Callable[..., Any], start: Callable[[Any], Any]) -> Operation:
    def run(x: Any, *, window_dimensions: Any, window_strides: Any, padding: Any, **dilations: Any) -> Any:
        first = start(x.dtype)
        return lax.reduce_window(x, first, combine, window_dimensions, window_strides, padding, **dilations)

    names = ("window_dimensions", "window_strides", "base_dilation", "window_dilation")
    return Operation(run, dict.fromkeys(names, kinds.strides) | {"padding": kinds.pairs})


def _lowest(dtype: Any) -> Any:
    return dtype.type(-jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).min)


def _highest(dtype: Any) -> Any:
    return dtype.type(jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).max)


def _scatter(function: Callable[..., Any]) -> Operation:
    axes = kinds.axes_of(lax.ScatterDimensionNumbers, 5)
    flags = dict.fromkeys(("indices_are_sorted", "unique_indices"), kinds.flag)
    return Operation(function, {"dimension_numbers": axes, "mode": kinds.mode} | flags)


def _place(function: Callable[..., Any]) -> Operation:
    params = {"axes": kinds.each_of(kinds.integer), "index_dtype": kinds.dtype}
    return Operation(lambda x, axes, index_dtype: function(x, *axes, index_dtype), params)


def _sorted(*operands: Any, **params: Any) -> list[Any]:
    return list(lax.sort(operands, **params))


UNARY = (
    *("abs", "neg", "sign", "floor", "ceil", "exp", "exp2", "log", "log1p", "expm1", "tanh", "logistic", "sin", "cos"),
    *("tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "sqrt", "rsqrt", "cbrt", "erf"),
    *("erfc", "erf_inv", "lgamma", "digamma", "is_finite", "square", "population_count", "clz", "stop_gradient"),
    *("real", "imag", "conj"),
)
BINARY = (
    *("add", "sub", "mul", "div", "max", "min", "pow", "rem", "atan2", "nextafter", "eq", "ne", "lt", "le", "gt"),
    *("complex", "ge", "shift_left", "shift_right_logical", "shift_right_arithmetic", "select_n", "clamp"),
)
"""And two of several operands."""

SUMS = ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "reduce_xor")
RUNNING = ("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")

OPERATIONS: Mapping[str, Operation] = {
    **{name: Operation(getattr(lax, name)) for name in (*UNARY, *BINARY)},
    **{name: Operation(getattr(lax, f"bitwise_{name}")) for name in ("not", "and", "or", "xor")},
    **{name: Operation(getattr(lax, name), {"axes": kinds.integers}) for name in SUMS if hasattr(lax, name)},
    **{name: Operation(getattr(lax, name), {"axis": kinds.integer, "reverse": kinds.flag}) for name in RUNNING},
    "argmax": _place(lax.argmax),
    "argmin": _place(lax.argmin),
    "copy": Operation(lambda x: x),
    "integer_pow": Operation(lax.integer_pow, {"y": kinds.integer}),
    "round": Operation(lax.round, {"rounding_method": kinds.rounding}),
    "reduce_precision": Operation(
        lax.reduce_precision, dict.fromkeys(("exponent_bits", "mantissa_bits"), kinds.integer)
    ),
    "convert_element_type": Operation(lax.convert_element_type, {"new_dtype": kinds.dtype}),
    "bitcast_convert_type": Operation(lax.bitcast_convert_type, {"new_dtype": kinds.dtype}),
    "reshape": Operation(_reshaped, {"new_sizes": kinds.sizes, "dimensions": kinds.maybe(kinds.order)}),
    "transpose": Operation(lax.transpose, {"permutation": kinds.order}),
    "broadcast_in_dim": Operation(lax.broadcast_in_dim, {"shape": kinds.sizes, "broadcast_dimensions": kinds.integers}),
    "squeeze": Operation(lax.squeeze, {"dimensions": kinds.integers}),
    "concatenate": Operation(_of_list(lax.concatenate), {"dimension": kinds.integer}),
    "stack": Operation(_of_list(lax.stack), {"axis": kinds.integer}),
    "unstack": Operation(lambda x, axis: list(lax.unstack(x, axis)), {"axis": kinds.integer}),
    "split": Operation(lax.split, {"sizes": kinds.sizes, "axis": kinds.integer}),
    "tile": Operation(lax.tile, {"reps": kinds.sizes}),
    "pad": Operation(lax.pad, {"padding_config": kinds.some(kinds.each_of(kinds.edge, kinds.edge, kinds.length))}),
    "slice": Operation(
        lax.slice,
        {"start_indices": kinds.sizes, "limit_indices": kinds.sizes, "strides": kinds.maybe(kinds.strides)},
    ),
    "rev": Operation(lax.rev, {"dimensions": kinds.integers}),
    "iota": Operation(
        lambda dtype, shape, dimension: lax.broadcasted_iota(dtype, shape, dimension),
        {"dtype": kinds.dtype, "shape": kinds.sizes, "dimension": kinds.integer},
    ),
    "dynamic_slice": Operation(
        lambda x, *starts, slice_sizes: lax.dynamic_slice(x, starts, slice_sizes), {"slice_sizes": kinds.sizes}
    ),
    "dynamic_update_slice": Operation(lambda x, update, *starts: lax.dynamic_update_slice(x, update, starts)),
    "gather": Operation(
        lax.gather,
        {
            "dimension_numbers": kinds.axes_of(lax.GatherDimensionNumbers, 5),
            "slice_sizes": kinds.sizes,
            "mode": kinds.mode,
            "indices_are_sorted": kinds.flag,
            "unique_indices": kinds.flag,
            "fill_value": kinds.maybe(kinds.number),
        },
    ),
    "scatter": _scatter(lax.scatter),
    "scatter-add": _scatter(lax.scatter_add),
    "scatter-sub": _scatter(lax.scatter_sub),
    "scatter-mul": _scatter(lax.scatter_mul),
    "scatter-max": _scatter(lax.scatter_max),
    "scatter-min": _scatter(lax.scatter_min),
    "sort": Operation(_sorted, {"dimension": kinds.integer, "is_stable": kinds.flag, "num_keys": kinds.positive}),
    "top_k": Operation(lambda x, k, axis: lax.top_k(x, k, axis=axis), {"k": kinds.integer, "axis": kinds.integer}),
    "reduce_window_max": _window(lax.max, _lowest),
    "reduce_window_min": _window(lax.min, _highest),
    "reduce_window_sum": _window(lax.add, lambda dtype: dtype.type(0)),
    "dot_general": Operation(
        lax.dot_general,
        {
            "dimension_numbers": kinds.each_of(*[kinds.each_of(kinds.integers, kinds.integers)] * 2),
            "precision": kinds.precision,
            "preferred_element_type": kinds.maybe(kinds.dtype),
        },
    ),
    "conv_general_dilated": Operation(
        _convolved,
        {
            "window_strides": kinds.strides,
            "padding": kinds.pairs,
            "lhs_dilation": kinds.strides,
            "rhs_dilation": kinds.strides,
            "dimension_numbers": kinds.axes_of(lax.ConvDimensionNumbers, 3, kinds.order),
            "feature_group_count": kinds.positive,
            "batch_group_count": kinds.positive,
            "precision": kinds.precision,
            "preferred_element_type": kinds.maybe(kinds.dtype),
        },
    ),
    "fft": Operation(lax.fft, {"fft_type": kinds.fft_kind, "fft_lengths": kinds.integers}),
    "random_seed": Operation(lambda seed, impl: jax.random.key(seed, impl=impl), {"impl": kinds.key_kind}),
    "random_wrap": Operation(lambda words, impl: jax.random.wrap_key_data(words, impl=impl), {"impl": kinds.key_kind}),
    "random_unwrap": Operation(jax.random.key_data),
    "random_fold_in": Operation(jax.random.fold_in),
    "random_split": Operation(lambda key, shape: jax.random.split(key, shape), {"shape": kinds.sizes}),
    "random_bits": Operation(
        lambda key, bit_width, shape: jax.random.bits(key, shape, f"uint{bit_width}"),
        {"bit_width": kinds.integer, "shape": kinds.sizes},
    ),
}
"""By name."""

SAME = ("optimization_barrier", "sharding_constraint", "name")
"""Operations that hand on their operands, and are not written."""

DERIVATIVES: Mapping[str, Callable[..., Any]] = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "logaddexp": jnp.logaddexp,
}
"""Functions with a derivative of their own, that a file names."""
