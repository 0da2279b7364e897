"""Convolutions and dot products on what lacks channels: of fewer channels, in a smaller operation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import quax
from jax import lax
from jax.typing import ArrayLike

from nncompress_jax.weights.base import CompressedWeight, on_dense, run
from nncompress_jax.weights.channel_pruned import ChannelPruned, at, channel_pruned, cuts_of, has_zeros
from nncompress_jax.weights.channels import Channels, Cuts, intersection


def dot(values: Sequence[Any], params: dict[str, Any]) -> Any:
    """Sums run over what both operands have; what a free axis lacks, the result lacks."""
    (contracted, batch) = params["dimension_numbers"]
    pairs = [*zip(*contracted, strict=True), *zip(*batch, strict=True)]
    read = _aligned(values, pairs, spatial=((), ()))
    if isinstance(read, str):
        return read
    sides = range(2)
    free = [
        [cut for axis, cut in enumerate(read[i]) if axis not in contracted[i] and axis not in batch[i]] for i in sides
    ]
    outputs = run(lax.dot_general_p, [at(value, cuts) for value, cuts in zip(values, read, strict=True)], params)
    return channel_pruned(outputs, None, (*(read[0][axis] for axis in batch[0]), *free[0], *free[1]))


def convolution(values: Sequence[Any], params: dict[str, Any]) -> Any:
    """As `dot`, over input channels; spatial axes are whole, and groups stay groups of equal size."""
    numbers = params["dimension_numbers"]
    images, channels, *space = numbers.lhs_spec
    outputs, inputs, *window = numbers.rhs_spec
    groups = params["feature_group_count"]
    if params["batch_group_count"] != 1:
        return "batch groups"
    pairs = [(channels, inputs)] if groups == 1 else []
    read = _aligned(values, pairs, spatial=(space, window))
    if isinstance(read, str):
        return read
    cuts = [list(each) for each in read]
    if groups > 1:
        sizes = (values[0].shape[channels], values[1].shape[outputs])
        here = _grouped(cuts[0][channels], cuts[1][inputs], cuts[1][outputs], sizes, groups)
        cuts[0][channels], cuts[1][inputs], cuts[1][outputs], groups = here
        if not groups:
            return "nothing is left to multiply"
    read_values = [at(value, tuple(each)) for value, each in zip(values, cuts, strict=True)]
    result = run(lax.conv_general_dilated_p, read_values, params | {"feature_group_count": groups})
    there: list[Channels | None] = [None] * result.ndim
    there[numbers.out_spec[0]], there[numbers.out_spec[1]] = cuts[0][images], cuts[1][outputs]
    return channel_pruned(result, None, tuple(there))


def _aligned(
    values: Sequence[Any], pairs: Sequence[tuple[int, int]], spatial: tuple[Sequence[int], Sequence[int]]
) -> tuple[Cuts, Cuts] | str:
    """At which channels the operands are read, or why there are none.

    Args:
      values: the operands.
      pairs: axes of both that meet.
      spatial: of each, the axes that have to be whole.
    """
    zeros = [has_zeros(value) for value in values]
    if not any(zeros):
        return "neither operand is zero where it lacks channels"
    whole = [cuts_of(value) for value in values]
    # What an operand lacks that is not zero counts in sums over its other axes: there it is read whole.
    read: list[list[Channels | None]] = [
        list(cuts) if zero else [None] * len(cuts) for cuts, zero in zip(whole, zeros, strict=True)
    ]
    for one, other in pairs:
        common = intersection([cuts[axis] for cuts, axis in ((read[0], one), (read[1], other))])
        read[0][one] = read[1][other] = common
    for cuts, axes in zip(read, spatial, strict=True):
        for axis in axes:
            cuts[axis] = None
    if any(cut is not None and not len(cut) for cuts in read for cut in cuts):
        return "nothing is left to multiply"
    return tuple(read[0]), tuple(read[1])


def _grouped(
    data: Channels | None, inputs: Channels | None, outputs: Channels | None, sizes: tuple[int, int], groups: int
) -> tuple[Channels | None, Channels | None, Channels | None, int]:
    """Groups that have any input and any output, each with the places that any of them has.

    Args:
      data: input channels that are there.
      inputs: of the kernel, those within a group.
      outputs: of the kernel.
      sizes: how many input and output channels there are in all.
      groups: how many.

    Returns:
      What is read of the three, and how many groups.
    """
    ones = [np.ones(size, bool) for size in (sizes[0], sizes[0] // groups, sizes[1])]
    masks = [mask if cut is None else cut.mask for cut, mask in zip((data, inputs, outputs), ones, strict=True)]
    have, want = np.logical_and(masks[0].reshape(groups, -1), masks[1]), masks[2].reshape(groups, -1)
    there: np.ndarray = have.any(1) & want.any(1)
    into, out = have[there].any(0), want[there].any(0)

    def cut(mask: np.ndarray) -> Channels | None:
        return None if mask.all() else Channels.at(mask.ravel())

    return cut(there[:, None] & into), cut(into), cut(there[:, None] & out), int(there.sum())


def _ruled(primitive: Any, rule: Any) -> None:
    def multiplied(left: Any, right: Any, params: dict[str, Any]) -> Any:
        result = rule((left, right), params)
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


_ruled(lax.dot_general_p, dot)
_ruled(lax.conv_general_dilated_p, convolution)
