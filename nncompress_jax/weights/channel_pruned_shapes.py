"""Operations that move, reduce or join the entries of what lacks channels."""

import dataclasses
import functools
import math
from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nncompress_jax.axes.addressed import batch_axes
from nncompress_jax.axes.movements import Placing, Reading, Reshaping
from nncompress_jax.axes.places import Places, along, axes_of, reshaped
from nncompress_jax.axes.rules import ALONG, APART, REDUCTIONS, RULES, SCATTERS, axis_rule
from nncompress_jax.weights.base import dense, moved, registered, run
from nncompress_jax.weights.channel_pruned import (
    ChannelPruned,
    at,
    channel_pruned,
    cuts_of,
    fill_of,
    has_zeros,
    on_fills,
)
from nncompress_jax.weights.channels import Channels, Cuts, intersection, union
from nncompress_jax.weights.checks import is_known_zero

MISSING = "along channels of which some are missing"


def placed(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
    """Transposed, sliced, padded and the like: the same channels in other places."""
    x, *padding = values
    if padding and not (has_zeros(x) and is_known_zero(padding[0])):
        return "with another value than that of what is missing"
    rule = axis_rule(primitive.name, params, [jnp.shape(value) for value in values])
    results = [_placed(x, places) for places, *_ in rule.results if places is not None]
    return results if primitive.multiple_results else results[0]


def _placed(x: ChannelPruned, places: Places) -> Any:
    cuts: list[Channels | None] = []
    picked: list[np.ndarray | None] = []
    for axis, pick in zip(places.axes, places.picked, strict=True):
        own = x.cuts[axis] if axis is not None else None
        if own is not None and pick is not None:
            own, pick = Channels.at((pick >= 0) & own.mask[pick]), own.places_at(pick)
            pick = pick[pick >= 0]
        cuts.append(own)
        picked.append(pick)
    dropped = {}
    for axis, place in places.dropped.items():
        own = x.cuts[axis]
        dropped[axis] = place if own is None else int(own.places_at(np.array([place]))[0])
    if -1 in dropped.values():
        result = jax.eval_shape(Placing(x.shape, places).whole, jax.ShapeDtypeStruct(x.shape, x.dtype))
        return ChannelPruned.uniform(fill_of(x), result.shape)
    here = dataclasses.replace(places, picked=tuple(picked), dropped=dropped)
    return channel_pruned(moved(x.values, Placing(x.values.shape, here)), x.fill, tuple(cuts))


def reshape(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
    """Where what is left are whole channels of the new axes."""
    (x,), new = values, params["new_sizes"]
    if x.is_uniform:
        return ChannelPruned.uniform(fill_of(x), new)
    masks = [along(axis, x.ndim, cut.mask) for axis, cut in enumerate(x.cuts) if cut is not None]
    cuts = _product([reshaped(mask, x.shape, new) for mask in masks])
    if cuts is None:
        return "that leaves no whole channels"
    sizes = tuple(size if cut is None else len(cut) for size, cut in zip(new, cuts, strict=True))
    return channel_pruned(moved(x.values, Reshaping(x.values.shape, sizes)), x.fill, cuts)


def _product(masks: Sequence[np.ndarray]) -> Cuts | None:
    """What each axis keeps, where all masks together are the product of one for each axis."""
    rank = masks[0].ndim
    cuts: list[Channels | None] = [None] * rank
    for mask in masks:
        axes = axes_of(mask)
        each = [mask.any(tuple(other for other in axes if other != axis)).ravel() for axis in axes]
        spread = [along(axis, rank, own) for axis, own in zip(axes, each, strict=True)]
        if not (functools.reduce(np.logical_and, spread) == mask).all():
            return None
        for axis, own in zip(axes, each, strict=True):
            cuts[axis] = intersection([cuts[axis], Channels.at(own)])
    return tuple(cuts)


def read(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
    """Read at places that only the running program knows, along axes that are whole."""
    x, *starts = values
    if not isinstance(x, ChannelPruned) or x.is_uniform:
        return "at places that lack channels"
    starts = [dense(start) for start in starts]
    reading = Reading(x.shape, primitive, starts, params)
    if any(cut is not None and axis not in reading.places.axes for axis, cut in enumerate(x.cuts)):
        return MISSING
    cuts = tuple(None if axis is None else x.cuts[axis] for axis in reading.places.axes)
    own = [None if axis in (batch := batch_axes(params)) else cut for axis, cut in enumerate(x.cuts)]
    sizes = tuple(size if cut is None else len(cut) for size, cut in zip(params["slice_sizes"], own, strict=True))
    of_starts = {index: x.cuts[axis] for axis, index in batch.items()}
    starts = [at(start, tuple(map(of_starts.get, range(start.ndim)))) for start in starts]
    here = Reading(tuple(x.values.shape), primitive, starts, params | {"slice_sizes": sizes})
    result = moved(x.values, here)
    if reading.fills:
        outside, fill = here.outside()
        result = jnp.where(outside, fill, dense(result))
    return channel_pruned(result, x.fill, cuts)


def joined(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
    """Of several arrays: along axes that they share what any has, along those on which they lie behind one another."""
    rule = axis_rule(primitive.name, params, [jnp.shape(value) for value in values])
    places = {i: each for i, each in enumerate(rule.results[0]) if each is not None}
    shown = [value for i, value in enumerate(values) if i not in rule.addresses]
    if not all(map(has_zeros, filter(lambda value: isinstance(value, ChannelPruned), shown))):
        return "of missing channels that are not zero"
    uniform = [isinstance(value, ChannelPruned) and value.is_uniform for value in values]
    if any(_lacks(value, rule.needs(i)) for i, value in enumerate(values) if not uniform[i]):
        return MISSING
    cuts: list[Channels | None] = []
    wanted = [_joining(cuts_of(value), places.get(i)) for i, value in enumerate(values)]
    for axis in range(len(places[0].axes)):
        pairs = [(i, each.axes[axis], each.picked[axis]) for i, each in places.items()]
        own = [None if place is None else cuts_of(values[i])[place] for i, place, _ in pairs]
        there = [cut for cut, (i, *_) in zip(own, pairs, strict=True) if not uniform[i] and i not in rule.addresses]
        behind = any(picked is not None for *_, picked in pairs)
        if behind and any(cut is not None for cut in there or own):
            masks = [_shown(cut, picked) for cut, (*_, picked) in zip(own, pairs, strict=True) if picked is not None]
            cuts.append(Channels.at(np.logical_or.reduce(masks)))
            continue
        cuts.append(None if behind else union(there or own))
        for i, place, _ in pairs:
            if place is not None:
                wanted[i][place] = cuts[-1]
    results = run(primitive, [dense(at(value, tuple(cut))) for value, cut in zip(values, wanted, strict=True)], params)
    if primitive.multiple_results:
        return [channel_pruned(result, None, tuple(cuts)) for result in results]
    return channel_pruned(results, None, tuple(cuts))


def _joining(cuts: Cuts, places: Places | None) -> list[Channels | None]:
    """What is read of an operand: along axes that the result lacks, everything."""
    return [cut if places is not None and axis in places.axes else None for axis, cut in enumerate(cuts)]


def _shown(cut: Channels | None, picked: np.ndarray) -> np.ndarray:
    return (picked >= 0) & (True if cut is None else cut.mask[picked])


def _lacks(x: Any, axes: Collection[int]) -> bool:
    return any(cuts_of(x)[axis] is not None for axis in axes)


def reduced(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
    """Over whole axes channel by channel; sums, and largest and smallest entries, over cut axes as well."""
    (x,) = values
    name, axes, fill = primitive.name, params["axes"], x.fill
    whole, there = (math.prod(shape[axis] for axis in axes) for shape in (x.shape, x.values.shape))
    if whole != there and name not in ("reduce_sum", "reduce_max", "reduce_min"):
        return "over channels of which some are missing"
    if name in ("reduce_prod", "reduce_xor") and fill is not None:
        return "over missing channels that are not zero"
    value = run(primitive, (x.values,), params)
    if name == "reduce_sum" and fill is not None:
        if whole != there:
            value = value + fill * jnp.asarray(whole - there, value.dtype)
        fill = on_fills(lambda fill: fill * jnp.asarray(whole, fill.dtype), [fill])
    elif whole != there and name != "reduce_sum":
        value = (jnp.maximum if name == "reduce_max" else jnp.minimum)(value, fill_of(x))
    elif name in ("argmax", "argmin"):
        fill = None  # the first of equals
    return channel_pruned(value, fill, tuple(cut for axis, cut in enumerate(x.cuts) if axis not in axes))


def along_others(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
    """Pooled, cumulated, sorted, transformed along whole axes: of zeros zeros, and an extreme of equals is the same."""
    (x,) = values
    rule = axis_rule(primitive.name, params, [x.shape])
    same = primitive.name.endswith(("max", "min", "sort", "top_k"))
    if x.is_uniform or _lacks(x, rule.needs(0)) or not (same or has_zeros(x)) or primitive.name == "cumlogsumexp":
        return MISSING
    if not primitive.multiple_results:
        return channel_pruned(run(primitive, (x.values,), params), x.fill, x.cuts)
    first, *others = run(primitive, (x.values,), params)
    if others:  # which the entries were: of equals, the places differ
        others = run(primitive, (dense(x),), params)[1:]
    return [channel_pruned(first, x.fill, x.cuts), *others]


def sort(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
    """One array along whole axes; several, by what they have together."""
    return (along_others if len(values) == 1 else joined)(primitive, values, params)


def hinted(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
    """What only advises the compiler is left out: fewer channels may not divide among devices."""
    return list(values) if primitive.multiple_results else values[0]


SPECIAL = {
    "reshape": reshape,
    **dict.fromkeys(ALONG, along_others),
    "sort": sort,
    **dict.fromkeys(("gather", "dynamic_slice"), read),
    **dict.fromkeys(("concatenate", "stack", "dynamic_update_slice", *SCATTERS), joined),
    **dict.fromkeys(("sharding_constraint", "optimization_barrier"), hinted),
    **dict.fromkeys(REDUCTIONS, reduced),
}
"""By the primitive's name; the others that have a rule for their axes move entries to places that are known."""


def register() -> None:
    """Makes these rules those of what lacks channels."""
    for name in {"reshape", *RULES}.difference(APART):
        primitive = getattr(lax, f"{name.replace('-', '_')}_p", None)  # not all are of the oldest jax
        if primitive is not None:
            registered(primitive, ChannelPruned, SPECIAL.get(name, placed))
