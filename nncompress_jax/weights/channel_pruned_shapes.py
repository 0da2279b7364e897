"""Operations that move, reduce or join the entries of what lacks channels."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nncompress_jax.axes.labels import Mark, along, axes_of, followed, gathered
from nncompress_jax.weights.base import bind, dense, run
from nncompress_jax.weights.channel_pruned import (
    ChannelPruned,
    at,
    channel_pruned,
    cuts_of,
    fill_of,
    has_zeros,
    is_known_zero,
    on_fills,
    registered,
)
from nncompress_jax.weights.channels import Channels, Cuts, intersection, union


def moved(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
    """Transposed, reshaped and the like: the same channels in other places."""
    (x,) = values
    if x.is_uniform:
        result = jax.eval_shape(lambda x: primitive.bind(x, **params), jax.ShapeDtypeStruct(x.shape, x.dtype))
        return ChannelPruned.uniform(fill_of(x), result.shape)
    masks = [along(axis, x.ndim, cut.mask) for axis, cut in enumerate(x.cuts) if cut is not None]
    cuts = _product([mask for each in masks for mask in followed(primitive.name, params, each, x.shape) or ()])
    if cuts is None:
        return f"{primitive} that leaves no whole channels"
    sizes = {"reshape": "new_sizes", "broadcast_in_dim": "shape"}.get(primitive.name)
    if sizes:
        whole = zip(params[sizes], cuts, strict=True)
        params = params | {sizes: tuple(size if cut is None else len(cut) for size, cut in whole)}
    return channel_pruned(run(primitive, (x.values,), params), x.fill, cuts)


def _product(masks: Sequence[Mark]) -> Cuts | None:
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


def sliced(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
    """Along a cut axis, those of the slice that are there."""
    (x,) = values
    picks = [
        slice(*bounds)
        for bounds in zip(
            params["start_indices"], params["limit_indices"], params["strides"] or [1] * x.ndim, strict=True
        )
    ]
    return _picked(x, picks)


def split(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
    """Each piece has those of its channels that are there."""
    (x,) = values
    axis, ends = params["axis"], np.cumsum(params["sizes"])
    before = [slice(None)] * axis
    return [
        _picked(x, [*before, slice(end - size, end), *[slice(None)] * (x.ndim - axis - 1)])
        for size, end in zip(params["sizes"], ends.tolist(), strict=True)
    ]


def _picked(x: ChannelPruned, picks: Sequence[slice]) -> Any:
    value, cuts = dense(x.values), list(x.cuts)
    for axis, (cut, pick) in enumerate(zip(x.cuts, picks, strict=True)):
        if cut is None:
            value = value[(slice(None),) * axis + (pick,)]
        else:
            there = np.zeros(cut.size, bool)
            there[pick] = True
            value, cuts[axis] = jnp.take(value, np.flatnonzero(there[cut.indices]), axis), Channels.at(cut.mask[pick])
    return channel_pruned(value, x.fill, tuple(cuts))


def reduced(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
    """Over whole axes channel by channel; sums, and largest and smallest entries, over cut axes as well."""
    (x,) = values
    name, axes, fill = primitive.name, params["axes"], x.fill
    whole, there = (math.prod(shape[axis] for axis in axes) for shape in (x.shape, x.values.shape))
    if whole != there and name not in ("reduce_sum", "reduce_max", "reduce_min"):
        return f"{primitive} over channels of which some are missing"
    if name == "reduce_prod" and fill is not None:
        return "a product of missing channels that are not zero"
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


def windowed(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
    """Pooling and cumulative operations along whole axes: zeros stay zero, and an extreme of equals is the same."""
    (x,) = values
    extreme = primitive.name.endswith(("max", "min"))
    masks = [along(axis, x.ndim, cut.mask) for axis, cut in enumerate(x.cuts) if cut is not None]
    apart = all(followed(primitive.name, params, mask, x.shape) for mask in masks) and not x.is_uniform
    if not apart or not (extreme or has_zeros(x)):
        return f"{primitive} along channels of which some are missing"
    return channel_pruned(run(primitive, (x.values,), params), x.fill, x.cuts)


def concatenated(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
    """Along an axis, what each operand has; along the others, what any has."""
    axis = params["dimension"]
    if not all(has_zeros(value) for value in values if isinstance(value, ChannelPruned)):
        return "concatenated, with missing channels that are not zero"
    along_axes = [*zip(*map(cuts_of, values), strict=True)]
    own = along_axes[axis]
    cuts = [None if place == axis else union(each) for place, each in enumerate(along_axes)]
    masks = [np.ones(x.shape[axis], bool) if cut is None else cut.mask for x, cut in zip(values, own, strict=True)]
    parts = [dense(at(value, (*cuts[:axis], cut, *cuts[axis + 1 :]))) for value, cut in zip(values, own, strict=True)]
    cuts[axis] = Channels.at(np.concatenate(masks))
    return channel_pruned(run(primitive, parts, params), None, tuple(cuts))


def padded(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
    """With zeros, where zeros are missing: what is padded to a cut axis is missing, too."""
    x, padding = values
    if not has_zeros(x) or not is_known_zero(padding):
        return "padded with another value than that of what is missing"
    value, cuts, config = dense(x.values), list(x.cuts), list(params["padding_config"])
    for axis, (cut, (low, high, inner)) in enumerate(zip(x.cuts, config, strict=True)):
        if cut is not None and cut.size:
            size = low + high + cut.size + inner * (cut.size - 1)
            places = cut.indices * (inner + 1) + low
            inside = (places >= 0) & (places < size)
            value = jnp.take(value, np.flatnonzero(inside), axis)
            cuts[axis], config[axis] = Channels.of(size, places[inside]), (0, 0, 0)
    return channel_pruned(lax.pad(value, padding, config), None, tuple(cuts))


def stacked(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
    """Concatenated along a new axis."""
    shape = jnp.shape(values[0])
    axes = [axis for axis in range(len(shape) + 1) if axis != params["axis"]]
    expanded = {"shape": tuple(np.insert(shape, params["axis"], 1).tolist()), "broadcast_dimensions": tuple(axes)}
    parts = [bind(lax.broadcast_in_dim_p, (value,), expanded | {"sharding": None}) for value in values]
    return concatenated(lax.concatenate_p, parts, {"dimension": params["axis"]})


def unstacked(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
    """Split along an axis that goes."""
    (x,), axis = values, params["axis"]
    pieces = split(lax.split_p, values, {"axis": axis, "sizes": (1,) * x.shape[axis]})
    return [bind(lax.squeeze_p, (piece,), {"dimensions": (axis,)}) for piece in pieces]


def gathered_whole(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
    """Read at places that only the running program knows, along axes that are whole."""
    x, *places = values
    if not isinstance(x, ChannelPruned) or x.is_uniform:
        return f"{primitive} at places that lack channels"
    result = jax.eval_shape(lambda *values: primitive.bind(*values, **params), *map(_shape, values))
    masks = [along(axis, x.ndim, cut.mask) for axis, cut in enumerate(x.cuts) if cut is not None]
    found = [gathered(primitive.name, params, mask, x.shape, result.ndim) for mask in masks]
    cuts = _product([mask for mask in found if mask is not None]) if all(mask is not None for mask in found) else None
    if cuts is None:
        return f"{primitive} along channels of which some are missing"
    sizes = [size if cut is None else len(cut) for size, cut in zip(params["slice_sizes"], x.cuts, strict=True)]
    read = run(primitive, [dense(value) for value in (x.values, *places)], params | {"slice_sizes": tuple(sizes)})
    return channel_pruned(read, x.fill, cuts)


def _shape(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x))


def hinted(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
    """What only advises the compiler is left out: fewer channels may not divide among devices."""
    return list(values) if primitive.multiple_results else values[0]


MOVING = (lax.transpose_p, lax.reshape_p, lax.broadcast_in_dim_p, lax.squeeze_p, lax.rev_p, lax.tile_p)
REDUCING = (
    *(lax.reduce_sum_p, lax.reduce_max_p, lax.reduce_min_p, lax.reduce_prod_p, lax.reduce_and_p, lax.reduce_or_p),
    *(lax.argmax_p, lax.argmin_p),
)
ALONG = (
    *(lax.reduce_window_max_p, lax.reduce_window_min_p, lax.reduce_window_sum_p),
    *(lax.cumsum_p, lax.cumprod_p, lax.cummax_p, lax.cummin_p),
)
for _rule, _primitives in {
    moved: MOVING,
    sliced: (lax.slice_p,),
    split: (lax.split_p,),
    reduced: REDUCING,
    windowed: ALONG,
    concatenated: (lax.concatenate_p,),
    padded: (lax.pad_p,),
    stacked: (getattr(lax, "stack_p", None),),  # not of the oldest jax
    unstacked: (getattr(lax, "unstack_p", None),),
    gathered_whole: (lax.gather_p, lax.dynamic_slice_p),
    hinted: (lax.optimization_barrier_p, lax.sharding_constraint_p),
}.items():
    for _primitive in filter(None, _primitives):
        registered(_primitive, _rule)
