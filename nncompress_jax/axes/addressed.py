"""Operations that read or write at places that only the running program knows.

Along axes that the operands share as a batch, nothing is chosen: there entries stay where they are.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from nncompress_jax.axes.places import Places
from nncompress_jax.axes.rule import AxisRule, Fills, Shapes, same

READS = "which of them it reads is not known"
WRITES = "where it writes is not known"


def _partly(sizes: Sequence[int], shape: Sequence[int]) -> frozenset[int]:
    return frozenset(axis for axis, size in enumerate(sizes) if size != shape[axis])


def _shown(axes: Sequence[int | None], rank: int) -> Places:
    """Of an operand of that rank, of which the result has these axes."""
    gone = set(range(rank)).difference(axis for axis in axes if axis is not None)
    return Places(tuple(axes), (None,) * len(axes), dict.fromkeys(gone, 0))


def batch_axes(params: Mapping[str, Any]) -> dict[int, int]:
    """Axes of the operand of a `gather` or `scatter` along which nothing is chosen, with those of the indices."""
    numbers = params.get("dimension_numbers")
    if numbers is None:
        return {}
    return dict(zip(numbers.operand_batching_dims, _batch_of_indices(numbers), strict=True))


def _batch_of_indices(numbers: Any) -> Collection[int]:
    own = "start_indices_batching_dims" if hasattr(numbers, "start_indices_batching_dims") else None
    return getattr(numbers, own or "scatter_indices_batching_dims")


def dynamic_slice(params: Any, shapes: Shapes) -> AxisRule:
    """Of an operand [0], at a place for each axis."""
    part, rank = _partly(params["slice_sizes"], shapes[0]), len(shapes[0])
    places = _shown([None if axis in part else axis for axis in range(rank)], rank)
    return AxisRule([[places, *[None] * (len(shapes) - 1)]], [part], READS)


def gather(params: Any, shapes: Shapes) -> AxisRule:
    """Slices of an operand [0] at places that indices [1] say, one for each of their last axis' entries."""
    numbers, batch = params["dimension_numbers"], batch_axes(params)
    rank, last = len(shapes[0]), len(shapes[1]) - 1
    part = _partly(params["slice_sizes"], shapes[0]).difference(batch)
    within = [axis for axis in range(rank) if axis not in {*numbers.collapsed_slice_dims, *batch}]
    offsets = dict(zip(numbers.offset_dims, within, strict=True))
    ranks = range(last + len(offsets))
    index_of = dict(zip((axis for axis in ranks if axis not in offsets), range(last), strict=True))
    of_batch = {index: axis for axis, index in batch.items()}
    own = [offsets[axis] if axis in offsets else of_batch.get(index_of[axis]) for axis in ranks]
    operand = _shown([None if axis in part else axis for axis in own], rank)
    indices = _shown([*map(index_of.get, ranks)], last + 1)
    return AxisRule([[operand, indices]], [part, frozenset({last})], READS, addresses=frozenset({1}))


def dynamic_update(params: Any, shapes: Shapes) -> AxisRule:
    """An update [1] written to a place of an operand [0]."""
    part, rank = _partly(shapes[1], shapes[0]), len(shapes[0])
    update = _shown([None if axis in part else axis for axis in range(rank)], rank)
    indices = [None] * (len(shapes) - 2)
    return AxisRule([[Places.same(rank), update, *indices]], [part, part], WRITES)


def scatter(fills: Fills = same) -> Callable[[Any, Shapes], AxisRule]:
    """Windows of updates [2], written or added to places of an operand [0] that indices [1] say."""

    def rule(params: Any, shapes: Shapes) -> AxisRule:
        numbers, batch = params["dimension_numbers"], batch_axes(params)
        (rank, updates), last = (len(shapes[0]), len(shapes[2])), len(shapes[1]) - 1
        within = [axis for axis in range(rank) if axis not in {*numbers.inserted_window_dims, *batch}]
        there = dict(zip(within, numbers.update_window_dims, strict=True))
        whole = {axis: own for axis, own in there.items() if shapes[2][own] == shapes[0][axis]}
        chosen = [axis for axis in range(updates) if axis not in numbers.update_window_dims]
        shared = whole | {axis: chosen[index] for axis, index in batch.items()}
        update = _shown([*map(shared.get, range(rank))], updates)
        indices = _shown([*map(batch.get, range(rank))], last + 1)
        places = [Places.same(rank), indices, update]
        own = [[*shared], [*batch.values()], [*shared.values()]]
        needed = [frozenset(range(len(shape))).difference(axes) for shape, axes in zip(shapes, own, strict=True)]
        return AxisRule([places], needed, WRITES, addresses=frozenset({1}), fills=(fills,))

    return rule
