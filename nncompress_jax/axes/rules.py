"""What an operation does to the axes of its operands: a rule for each primitive that moves or combines entries.

Not here: elementwise operations, of which all axes meet; products (`contraction`); `reshape`, which merges axes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nncompress_jax.axes.addressed import dynamic_slice, dynamic_update, gather, scatter
from nncompress_jax.axes.places import Places
from nncompress_jax.axes.rule import AxisRule, Fills, Shapes, unknown, zero_alone


def axis_rule(name: str, params: Mapping[str, Any], shapes: Shapes) -> AxisRule:
    """Of an equation.

    Args:
      name: of the primitive, one of `RULES`.
      params: of the equation.
      shapes: of its operands.

    Example:
      >>> axis_rule("transpose", {"permutation": (1, 0)}, [(2, 3)]).results[0][0].axes
      (1, 0)
    """
    return RULES[name](params, shapes)


def _moving(places: Callable[[Any, Sequence[int]], Places]) -> Callable[[Any, Shapes], AxisRule]:
    return lambda params, shapes: AxisRule([[places(params, shapes[0])]])


def _without(dropped: Mapping[int, int], shape: Sequence[int]) -> Places:
    kept = tuple(axis for axis in range(len(shape)) if axis not in dropped)
    return Places(kept, (None,) * len(kept), dropped)


def _squeeze(params: Any, shape: Sequence[int]) -> Places:
    return _without(dict.fromkeys(params["dimensions"], 0), shape)


def _broadcast(params: Any, shape: Sequence[int]) -> Places:
    own = dict(zip(params["broadcast_dimensions"], range(len(shape)), strict=True))
    repeated = [shape[own[axis]] != size if axis in own else True for axis, size in enumerate(params["shape"])]
    sizes = [size if isinstance(size, int | np.integer) else 1 for size in params["shape"]]  # of any number of examples
    picked = [np.zeros(size, int) if new else None for new, size in zip(repeated, sizes, strict=True)]
    return Places(tuple(map(own.get, range(len(picked)))), tuple(picked))


def _slice(params: Any, shape: Sequence[int]) -> Places:
    bounds = [
        *zip(params["start_indices"], params["limit_indices"], params["strides"] or [1] * len(shape), strict=True)
    ]
    part = [axis for axis, each in enumerate(bounds) if each != (0, shape[axis], 1)]
    return Places.same(len(shape), {axis: np.arange(*bounds[axis]) for axis in part})


def _tile(params: Any, shape: Sequence[int]) -> Places:
    sizes = [*enumerate(zip(shape, params["reps"], strict=True))]
    return Places.same(len(shape), {axis: np.arange(size * n) % size for axis, (size, n) in sizes if n != 1})


def _rev(params: Any, shape: Sequence[int]) -> Places:
    return Places.same(len(shape), {axis: np.arange(shape[axis])[::-1] for axis in params["dimensions"]})


def _split(params: Any, shapes: Shapes) -> AxisRule:
    axis, rank, ends = params["axis"], len(shapes[0]), np.cumsum(params["sizes"])
    sizes = zip(ends, params["sizes"], strict=True)
    return AxisRule([[Places.same(rank, {axis: np.arange(end - size, end)})] for end, size in sizes])


def _unstack(params: Any, shapes: Shapes) -> AxisRule:
    axis, shape = params["axis"], shapes[0]
    return AxisRule([[_without({axis: place}, shape)] for place in range(shape[axis])])


def _stack(params: Any, shapes: Shapes) -> AxisRule:
    axis, rank = params["axis"], len(shapes[0])
    axes = (*range(axis), None, *range(axis, rank))
    own = np.where(np.eye(len(shapes), dtype=bool), 0, -1)
    return AxisRule([[Places(axes, tuple(each if i == axis else None for i in range(rank + 1))) for each in own]])


def _concatenate(params: Any, shapes: Shapes) -> AxisRule:
    axis, places = params["dimension"], []
    ends = np.cumsum([shape[axis] for shape in shapes])
    for end, shape in zip(ends, shapes, strict=True):
        picked = np.full(ends[-1], -1)
        picked[end - shape[axis] : end] = np.arange(shape[axis])
        places.append(Places.same(len(shape), {axis: picked}))
    return AxisRule([places])


def _pad(params: Any, shapes: Shapes) -> AxisRule:
    picked = {}
    for axis, (size, (low, high, inner)) in enumerate(zip(shapes[0], params["padding_config"], strict=True)):
        if (low, high, inner) != (0, 0, 0):
            here = low + np.arange(size) * (inner + 1)
            inside = (here >= 0) & (here < (whole := low + high + size + inner * max(size - 1, 0)))
            picked[axis] = np.full(whole, -1)
            picked[axis][here[inside]] = np.flatnonzero(inside)
    return AxisRule([[Places.same(len(shapes[0]), picked), None]], padding=1)


COMBINED = "it needs all channels, as normalization does"


def _reduce(params: Any, shapes: Shapes) -> AxisRule:
    """Of one or several operands, each on its own; axes that a program counts over devices have names."""
    axes = [int(axis) for axis in params["axes"] if isinstance(axis, int | np.integer)]
    results: list[list[Places | None]] = [[None] * len(shapes) for _ in shapes]
    for i, shape in enumerate(shapes):
        results[i][i] = _without(dict.fromkeys(axes, 0), shape)
    return AxisRule(results, [frozenset(axes)] * len(shapes), COMBINED, fills=(zero_alone,) * len(shapes))


def _reduce_by(params: Any, shapes: Shapes) -> AxisRule:
    """By any function of two entries: of operands, and behind them as many that it begins with."""
    axes, count = params["dimensions"], len(shapes) // 2
    places = _without(dict.fromkeys(axes, 0), shapes[0])
    results = [[places] * count + [None] * count] * count
    return AxisRule(results, [frozenset(axes)] * count, COMBINED, fills=(unknown,) * count)


def _combining(axes: Callable[[Any, Sequence[int]], Sequence[int]], *fills: Fills) -> Callable[[Any, Shapes], AxisRule]:
    """Of entries that are combined along some axes, and along the others stay where they are.

    `fills`: of each result; by default there is one for each operand, and zeros give zeros. Scalars say what stands
    beside the entries.
    """

    def rule(params: Any, shapes: Shapes) -> AxisRule:
        each = fills or (zero_alone,) * len(shapes)
        needed = frozenset(axes(params, shapes[0]))
        places = [Places.same(len(shape)) if len(shape) else None for shape in shapes]
        return AxisRule([places] * len(each), [needed] * len(shapes), COMBINED, fills=each)

    return rule


def _windowed(params: Any, shape: Sequence[int]) -> list[int]:
    names = ("window_dimensions", "window_strides", "base_dilation", "window_dilation")
    sizes = zip(*(params.get(name, (1,) * len(shape)) for name in names), params["padding"], strict=True)
    return [axis for axis, (*ones, padding) in enumerate(sizes) if set(ones) != {1} or any(padding)]


def _matrices(*ranks: int) -> Callable[[Any, Shapes], AxisRule]:
    """Of one matrix in the last two axes, or several: `ranks` are those of the results for each."""

    def rule(params: Any, shapes: Shapes) -> AxisRule:
        batch = range(len(shapes[0]) - 2)
        results = [[_matrix(len(batch), rank)] for rank in ranks]
        return AxisRule(results, [frozenset({len(batch), len(batch) + 1})], COMBINED, fills=(unknown,) * len(ranks))

    return rule


def _matrix(batch: int, rank: int) -> Places:
    axes = (*range(batch), *(None,) * rank)
    return Places(axes, (None,) * len(axes), {batch: 0, batch + 1: 0})


def _svd(params: Any, shapes: Shapes) -> AxisRule:
    return _matrices(1, *(2, 2) * bool(params["compute_uv"]))(params, shapes)


def _solve(params: Any, shapes: Shapes) -> AxisRule:
    """Matrices [0] and right-hand sides [1], whose columns are apart, or rows where the matrix is on the right."""
    rank = len(shapes[0])
    rows, columns = (rank - 2, rank - 1) if params["left_side"] else (rank - 1, rank - 2)
    matrix = Places((*range(rank - 2), None, None), (None,) * rank, {rank - 2: 0, rank - 1: 0})
    needed = [frozenset({rows, columns}), frozenset({rows})]
    return AxisRule([[matrix, Places.same(rank)]], needed, COMBINED, fills=(unknown,))


def _apart(params: Any, shapes: Shapes) -> AxisRule:
    results: list[list[Places | None]] = [[None] * len(shapes) for _ in shapes]
    for i, shape in enumerate(shapes):
        results[i][i] = Places.same(len(shape))
    return AxisRule(results)


REDUCTIONS = (
    *("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "reduce_xor"),
    *("argmax", "argmin"),
)
"""Operations that take axes away."""

_AXIS = _combining(lambda params, shape: [params["axis"]])
_WINDOWED = ("reduce_window_max", "reduce_window_min", "reduce_window_sum")
ALONG: Mapping[str, Callable[[Any, Shapes], AxisRule]] = {
    **dict.fromkeys(_WINDOWED, _combining(_windowed)),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin"), _AXIS),
    "cumlogsumexp": _combining(lambda params, shape: [params["axis"]], unknown),
    "sort": _combining(lambda params, shape: [params["dimension"]]),
    "top_k": _combining(lambda params, shape: [params.get("axis", -1) % len(shape)], zero_alone, unknown),
    "fft": _combining(lambda params, shape: range(len(shape) - len(params["fft_lengths"]), len(shape))),
}
"""Operations along axes that stay."""

SCATTERS: Mapping[str, Callable[[Any, Shapes], AxisRule]] = {
    **dict.fromkeys(("scatter", "scatter-max", "scatter-min"), scatter()),
    **dict.fromkeys(("scatter-add", "scatter-sub", "scatter-mul"), scatter(zero_alone)),
}
"""Operations that write updates to places, or combine them with what stands there."""

APART: Mapping[str, Callable[[Any, Shapes], AxisRule]] = {
    "psum": _reduce,
    "reduce": _reduce_by,
    "reduce_window": _combining(_windowed, unknown),
    "select_and_gather_add": _combining(_windowed, unknown),
    "select_and_scatter_add": _combining(_windowed, unknown),
    "approx_top_k": _combining(lambda params, shape: [params["reduction_dimension"] % len(shape)], unknown, unknown),
    "cholesky": _matrices(2),
    "eigh": _matrices(2, 1),
    "lu": _matrices(2, 1, 1),
    "qr": _matrices(2, 2),
    "svd": _svd,
    "triangular_solve": _solve,
}
"""Operations whose results take all of their operands to compute, though a batch may lie along other axes."""

RULES: Mapping[str, Callable[[Any, Shapes], AxisRule]] = {
    "transpose": _moving(lambda params, shape: Places(tuple(params["permutation"]), (None,) * len(shape))),
    "squeeze": _moving(_squeeze),
    "broadcast_in_dim": _moving(_broadcast),
    "slice": _moving(_slice),
    "tile": _moving(_tile),
    "rev": _moving(_rev),
    "split": _split,
    "unstack": _unstack,
    "stack": _stack,
    "concatenate": _concatenate,
    "pad": _pad,
    "gather": gather,
    "dynamic_slice": dynamic_slice,
    "dynamic_update_slice": dynamic_update,
    **dict.fromkeys(("sharding_constraint", "optimization_barrier"), _apart),
    **dict.fromkeys(REDUCTIONS, _reduce),
    **SCATTERS,
    **ALONG,
    **APART,
}
"""By the primitive's name: jax exports not all of them, and some only lately."""
