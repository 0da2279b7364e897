"""What an operation does to the axes of its operands: a rule for each primitive that moves or combines entries.

Not here: elementwise operations, of which all axes meet; products (`contraction`); `reshape`, which merges axes.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nncompress_jax.axes.places import Places

Shapes = Sequence[Sequence[int]]


@dataclasses.dataclass(frozen=True)
class AxisRule:
    """Of one equation.

    Attributes:
      results: for each result, of each operand, where its entries stand; None: it only says where to read or write, or
        what to pad with.
      needed: of each operand, axes along which nothing can be left out.
      reason: why not, in words.
      padding: the operand that stands where none of the others does; None: there is none.
    """

    results: Sequence[Sequence[Places | None]]
    needed: Sequence[frozenset[int]] = ()
    reason: str = ""
    padding: int | None = None

    def needs(self, operand: int) -> frozenset[int]:
        """Axes of an operand along which nothing can be left out."""
        return self.needed[operand] if operand < len(self.needed) else frozenset()

    def places(self, operand: int = 0, result: int = 0) -> Places:
        """Of an operand whose entries stand in a result."""
        found = self.results[result][operand]
        assert found is not None
        return found


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
    picked = [np.zeros(size, int) if new else None for new, size in zip(repeated, params["shape"], strict=True)]
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
    axes = params["axes"]
    return AxisRule([[_without(dict.fromkeys(axes, 0), shapes[0])]], [frozenset(axes)], COMBINED)


def _combining(
    axes: Callable[[Any, Sequence[int]], Sequence[int]], results: int | None = None
) -> Callable[[Any, Shapes], AxisRule]:
    """Of entries that are combined along some axes, and along the others stay where they are.

    `results`: so many; by default one for each operand.
    """

    def rule(params: Any, shapes: Shapes) -> AxisRule:
        same, needed = Places.same(len(shapes[0])), frozenset(axes(params, shapes[0]))
        return AxisRule([[same] * len(shapes)] * (results or len(shapes)), [needed] * len(shapes), COMBINED)

    return rule


def _windowed(params: Any, shape: Sequence[int]) -> list[int]:
    names = ("window_dimensions", "window_strides", "base_dilation", "window_dilation")
    sizes = zip(*(params[name] for name in names), params["padding"], strict=True)
    return [axis for axis, (*ones, padding) in enumerate(sizes) if set(ones) != {1} or any(padding)]


def _partly(sizes: Sequence[int], shape: Sequence[int]) -> frozenset[int]:
    return frozenset(axis for axis, size in enumerate(sizes) if size != shape[axis])


def _read(axes: Sequence[int | None], params: Any, shapes: Shapes) -> AxisRule:
    part = _partly(params["slice_sizes"], shapes[0])
    kept = tuple(None if axis in part else axis for axis in axes)
    gone = set(range(len(shapes[0]))).difference(axis for axis in kept if axis is not None)
    places = Places(kept, (None,) * len(kept), dict.fromkeys(gone, 0))
    return AxisRule([[places, *[None] * (len(shapes) - 1)]], [part], "which of them it reads is not known")


def _dynamic_slice(params: Any, shapes: Shapes) -> AxisRule:
    return _read(range(len(shapes[0])), params, shapes)


def _gather(params: Any, shapes: Shapes) -> AxisRule:
    numbers = params["dimension_numbers"]
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    own = [axis for axis in range(len(shapes[0])) if axis not in gone]
    there = dict(zip(numbers.offset_dims, own, strict=True))
    rank = len(numbers.offset_dims) + len(shapes[1]) - 1
    return _read([there.get(axis) for axis in range(rank)], params, shapes)


def _dynamic_update(params: Any, shapes: Shapes) -> AxisRule:
    part, rank = _partly(shapes[1], shapes[0]), len(shapes[0])
    update = Places(
        tuple(None if axis in part else axis for axis in range(rank)), (None,) * rank, dict.fromkeys(part, 0)
    )
    indices = [None] * (len(shapes) - 2)
    return AxisRule([[Places.same(rank), update, *indices]], [part, part], "where it writes is not known")


def _scatter(params: Any, shapes: Shapes) -> AxisRule:
    """Windows of updates [2], written or added to places of an operand [0] that indices [1] say."""
    numbers, rank = params["dimension_numbers"], len(shapes[0])
    gone = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    there = dict(zip((axis for axis in range(rank) if axis not in gone), numbers.update_window_dims, strict=True))
    whole = {axis: own for axis, own in there.items() if shapes[2][own] == shapes[0][axis]}
    axes = tuple(map(whole.get, range(rank)))
    dropped = dict.fromkeys(set(range(len(shapes[2]))).difference(whole.values()), 0)
    needed = [frozenset(set(range(rank)) - whole.keys()), frozenset(), frozenset(dropped)]
    update = Places(axes, (None,) * rank, dropped)
    return AxisRule([[Places.same(rank), None, update]], needed, "where it writes is not known")


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
ALONG: Mapping[str, Callable[[Any, Shapes], AxisRule]] = {
    **dict.fromkeys(("reduce_window_max", "reduce_window_min", "reduce_window_sum"), _combining(_windowed)),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"), _AXIS),
    "sort": _combining(lambda params, shape: [params["dimension"]]),
    "top_k": _combining(lambda params, shape: [params.get("axis", -1) % len(shape)], results=2),
    "fft": _combining(lambda params, shape: range(len(shape) - len(params["fft_lengths"]), len(shape))),
}
"""Operations along axes that stay."""

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
    "gather": _gather,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update,
    **dict.fromkeys(("scatter", "scatter-add"), _scatter),
    **dict.fromkeys(("sharding_constraint", "optimization_barrier"), _apart),
    **dict.fromkeys(REDUCTIONS, _reduce),
    **ALONG,
}
"""By the primitive's name: jax exports not all of them, and some only lately."""
