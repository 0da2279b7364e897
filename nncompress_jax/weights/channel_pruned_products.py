"""Convolutions and dot products on what lacks channels: of fewer channels, in a smaller operation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import quax
from jax import lax
from jax.typing import ArrayLike

from nncompress_jax.axes.contraction import axes_of_product
from nncompress_jax.axes.primitives import RAGGED_DOT
from nncompress_jax.weights.base import CompressedWeight, dense, on_dense, registered, run
from nncompress_jax.weights.channel_pruned import ChannelPruned, at, channel_pruned, cuts_of, has_zeros
from nncompress_jax.weights.channels import Channels, intersection


def product(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
    """Sums run over what both operands have; what a free axis lacks, the result lacks.

    Axes along which a window slides are whole, and groups stay groups of equal size.
    """
    if params.get("batch_group_count", 1) != 1:
        return "batch groups"
    values, more = values[:2], [dense(value) for value in values[2:]]
    # Of one value everywhere, as a state before the first turn: it is multiplied as any array is.
    zeros = [has_zeros(value) and not value.is_uniform for value in values]
    if not any(zeros):
        return "neither operand is zero where it lacks channels"
    axes = axes_of_product(primitive, params, [value.shape for value in values])
    there: dict[int, Channels | None] = {}
    for value, places, windows, zero in zip(values, axes.places, axes.windows, zeros, strict=True):
        # What an operand lacks that is not zero counts in sums over its other axes: there it is read whole.
        for axis, (place, cut) in enumerate(zip(places, cuts_of(value), strict=True)):
            there[place] = intersection([there.get(place), cut if zero and axis not in windows else None])
    if any(cut is not None and not len(cut) for cut in there.values()):
        return "nothing is left to multiply"
    if params.get("feature_group_count", 1) > 1:
        channels, (outputs, inputs) = params["dimension_numbers"].lhs_spec[1], params["dimension_numbers"].rhs_spec[:2]
        own = axes.places[0][channels], axes.places[1][inputs], axes.places[1][outputs]
        sizes = values[0].shape[channels], values[1].shape[outputs]
        *cuts, groups = _grouped([there[place] for place in own], sizes, params["feature_group_count"])
        if not groups:
            return "nothing is left to multiply"
        there |= dict(zip(own, cuts, strict=True))
        params = params | {"feature_group_count": groups}
    read = [at(value, tuple(map(there.get, places))) for value, places in zip(values, axes.places, strict=True)]
    return channel_pruned(run(primitive, [*read, *more], params), None, tuple(map(there.get, axes.results)))


def _grouped(
    cuts: Sequence[Channels | None], sizes: tuple[int, int], groups: int
) -> tuple[Channels | None, Channels | None, Channels | None, int]:
    """Groups that have any input and any output, each with the places that any of them has.

    Args:
      cuts: input channels that are there; those of the kernel within a group, and its outputs.
      sizes: how many input and output channels there are in all.
      groups: how many.

    Returns:
      What is read of the three, and how many groups.
    """
    ones = [np.ones(size, bool) for size in (sizes[0], sizes[0] // groups, sizes[1])]
    masks = [mask if cut is None else cut.mask for cut, mask in zip(cuts, ones, strict=True)]
    have, want = np.logical_and(masks[0].reshape(groups, -1), masks[1]), masks[2].reshape(groups, -1)
    there: np.ndarray = have.any(1) & want.any(1)
    into, out = have[there].any(0), want[there].any(0)

    def cut(mask: np.ndarray) -> Channels | None:
        return None if mask.all() else Channels.at(mask.ravel())

    return cut(there[:, None] & into), cut(into), cut(there[:, None] & out), int(there.sum())


def register() -> None:
    """Makes this the rule of what lacks channels."""
    registered(RAGGED_DOT, ChannelPruned, product)
    for primitive in (lax.dot_general_p, lax.conv_general_dilated_p):
        _register(primitive)


def _register(primitive: Any) -> None:
    def multiplied(left: Any, right: Any, params: dict[str, Any]) -> Any:
        result = product(primitive, (left, right), params)
        return on_dense(primitive, (left, right), params, reason=result) if isinstance(result, str) else result

    @quax.register(primitive)
    def _(left: ChannelPruned, right: ArrayLike | CompressedWeight, **params: Any) -> Any:
        return multiplied(left, right, params)

    @quax.register(primitive)
    def _(left: ArrayLike | CompressedWeight, right: ChannelPruned, **params: Any) -> Any:
        return multiplied(left, right, params)

    @quax.register(primitive)
    def _(left: ChannelPruned, right: ChannelPruned, **params: Any) -> Any:
        return multiplied(left, right, params)
