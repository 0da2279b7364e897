"""Which channels are important: criteria for `prune_channels`.

A criterion takes groups of coupled channels, the dense weights by path, and the network as a function of these; it
gives scores for the channels of each group, larger for those that matter more.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nncompress_jax.bars import tracked
from nncompress_jax.coupling.groups import Group, Member, Role
from nncompress_jax.errors import InputError
from nncompress_jax.inputs import arguments, is_array, listed
from nncompress_jax.leaves import native
from nncompress_jax.methods.curvature import fisher, obd
from nncompress_jax.ops.algorithms import channels_last
from nncompress_jax.tracing.injection import observe
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Array, Context
from nncompress_jax.weights.base import dense, is_compressed

__all__ = [
    "batch_norm_scale",
    "fisher",
    "geometric_median",
    "l1",
    "l2",
    "obd",
    "random",
    "reconstruction",
    "summed",
    "taylor",
]

Weights = Mapping[str, Array]
"""The dense weights, by path."""

Criterion = Callable[[Sequence[Group], Weights, Context], Sequence[np.ndarray]]
"""(groups, weights, context) -> [size] scores for each group; context.apply takes the weights by path."""


def by_path(variables: Any, context: Context) -> tuple[dict[str, Array], Context]:
    """What a criterion looks at.

    Args:
      variables: dense, or without some channels; in the dense weights by path those are zero.
      context: of a method; its apply takes the tree of variables, that of the context which is returned the weights.
    """
    uncut = jax.tree.map(dense, variables, is_leaf=is_compressed)
    leaves = [(path, jnp.asarray(native(leaf)) if is_array(leaf) else leaf) for path, leaf in named_leaves(uncut)]
    structure, weights = jax.tree.structure(uncut), dict(leaves)
    paths, apply = [*weights], context.apply
    assert apply is not None

    def applied(weights: Weights, *inputs: Any) -> Any:
        return apply(jax.tree.unflatten(structure, [weights[path] for path in paths]), *inputs)

    return weights, Context(applied, context.batches)


def l1(groups: Sequence[Group], weights: Weights, context: Context) -> list[np.ndarray]:
    """Sum of magnitudes of the filters that compute a channel.

    Source: Li et al. 2017, "Pruning Filters for Efficient ConvNets", section 3.1.
    """
    return [_sums(group, "output", lambda path: jnp.abs(weights[path])) for group in groups]


def l2(groups: Sequence[Group], weights: Weights, context: Context) -> list[np.ndarray]:
    """Euclidean norm of the filters that compute a channel."""
    return [np.sqrt(_sums(group, "output", lambda path: jnp.square(weights[path]))) for group in groups]


def batch_norm_scale(groups: Sequence[Group], weights: Weights, context: Context) -> list[np.ndarray]:
    """Magnitude of the scale that normalization gives a channel.

    Raises:
      InputError: for a group without a vector named `scale`.

    Source: Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming".
    """

    def scale(path: str) -> Array:
        return jnp.abs(weights[path]) * (path.split("/")[-1] == "scale")

    scores = [_sums(group, "vector", scale) for group in groups]
    if without := [group.name for group, score in zip(groups, scores, strict=True) if not score.any()]:
        raise InputError(f"{', '.join(without)}: no normalization scales these channels; choose another criterion")
    return scores


def geometric_median(groups: Sequence[Group], weights: Weights, context: Context) -> list[np.ndarray]:
    """Distance of a filter from all others of its layer: those near their median can be replaced by others.

    Source: He et al. 2019, "Filter Pruning via Geometric Median for Deep Neural Networks Acceleration".
    """
    return [
        np.sum([_distances(weights[member.path], member) for member in _members(group, "output")], 0)
        for group in groups
    ]


def random(key: Array) -> Criterion:
    """Scores by chance: the control that a criterion has to beat."""

    def scores(groups: Sequence[Group], weights: Weights, context: Context) -> list[np.ndarray]:
        keys = [jax.random.fold_in(key, zlib.crc32(group.name.encode())) for group in groups]
        return [np.asarray(jax.random.uniform(own, (group.size,))) for own, group in zip(keys, groups, strict=True)]

    return scores


def summed(criterion: Callable[[str, Array], Array]) -> Criterion:
    """A channel's score as the sum of those of the weights that compute it, by a criterion of `prune`.

    Args:
      criterion: of (path, weights) to scores, as `obd(apply, variables, batches)`, of the same dense variables.

    Source: Theis et al. 2018, "Faster gaze prediction with dense networks and Fisher pruning", section 3.1.
    """

    def scores(groups: Sequence[Group], weights: Weights, context: Context) -> list[np.ndarray]:
        return [_sums(group, "output", lambda path: criterion(path, weights[path])) for group in groups]

    return scores


def taylor(loss: Callable[[Any, Any], Array], examples: Sequence[tuple[Any, Any]]) -> Criterion:
    """How much the loss of an example would change, to first order, without what a channel hands on.

    Args:
      loss: of (outputs, labels) to a scalar.
      examples: batches of (inputs, labels), which are taken apart: the magnitude is that of each example, one at a
        time, and the score its mean over all.

    Source: Molchanov et al. 2017, "Pruning Convolutional Neural Networks for Resource Efficient Inference",
    equation 8; the product of activation and gradient is that of a weight and its gradient, summed where the channel
    enters.
    """

    def scores(groups: Sequence[Group], weights: Weights, context: Context) -> list[np.ndarray]:
        apply = context.apply
        assert apply is not None
        entered = {(member.path, member.axis) for group in groups for member in _members(group, "input")}

        @jax.jit
        def changes(inputs: Any, labels: Any, row: int) -> dict[tuple[str, int], Array]:
            one, label = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, row, 1), (inputs, labels))
            gradients = jax.grad(lambda own: loss(apply({**weights, **own}, one), label))(floats)
            return {(path, axis): _along(floats[path] * gradients[path], axis) for path, axis in entered}

        floats = {path: weights[path] for path, _ in entered}
        found = [np.zeros(group.size) for group in groups]
        rows = [(batch, row) for batch in examples for row in range(len(batch[1]))]
        for (inputs, labels), row in rows:
            each = jax.device_get(changes(inputs, labels, row))
            for total, group in zip(found, groups, strict=True):
                members = _members(group, "input")
                total += np.abs(sum(_by_channel(group, member, each[member.path, member.axis]) for member in members))
        return [total / len(rows) for total in found]

    return scores


def reconstruction(batches: Sequence[Any], *, samples: int = 1024, seed: int = 0) -> Criterion:
    """How well the layers that a channel enters can do without it: channels go one by one, the least missed first.

    Args:
      batches: inputs of the network.
      samples: of the outputs of a layer, at random places, for each batch.
      seed: of the places.

    Raises:
      InputError: for a group whose channels enter no dense layer and no convolution of one group.

    Source: Luo et al. 2017, "ThiNet: A Filter Level Pruning Method for Deep Neural Network Compression", section 3.2.
    """

    def scores(groups: Sequence[Group], weights: Weights, context: Context) -> list[np.ndarray]:
        found = contributions(groups, weights, context, batches, samples, seed)
        if without := [group.name for group in groups if not found[group.name]]:
            raise InputError(
                f"{', '.join(without)}: enters no layer that can be reconstructed; choose another criterion"
            )
        return [_greedy(np.concatenate([*found[group.name].values()])) for group in groups]

    return scores


def contributions(
    groups: Sequence[Group], weights: Weights, context: Context, batches: Sequence[Any], samples: int, seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """What each channel of a group adds to outputs of the layers that it enters.

    Returns:
      By group and by path of the layer's weight: [samples of all batches, size]; layers that are neither dense nor a
      convolution of one group are left out.
    """
    entering = [(group, member) for group in groups for member in _members(group, "input")]
    members = {member.path: member for _, member in entering}

    def statistic(path: str, inputs: Array) -> Array:
        if path not in members or not _is_simple(weights[path], inputs, members[path]):
            return jnp.zeros(0)
        key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(path.encode()))
        return _by_place(weights[path], inputs, samples, key)

    apply = context.apply
    assert apply is not None
    seen = eqx.filter_jit(lambda *inputs: observe(apply, statistic)(dict(weights), *inputs)[1])
    addends: dict[str, list[np.ndarray]] = {}
    for batch in tracked(listed(batches), "what enters the channels"):
        for path, observations in seen(*arguments(batch)).items():
            if observations[0].value.size:
                addends.setdefault(path, []).append(np.asarray(observations[0].value, np.float64))
    found: dict[str, dict[str, np.ndarray]] = {group.name: {} for group in groups}
    for group, member in entering:
        if member.path in addends:
            channels = np.where(member.channels < 0, group.size, member.channels)
            ordered = (channels[:, None] == np.arange(group.size)).astype(float)
            found[group.name][member.path] = np.concatenate(addends[member.path]) @ ordered
    return found


def _by_place(kernel: Array, inputs: Array, samples: int, key: Array) -> Array:
    """[samples, I]: addends of random entries of a layer's output, one for each of its input channels."""
    which, where = jax.random.split(key)
    kernel = kernel.astype(inputs.dtype)
    if kernel.ndim == 2:
        rows = inputs.reshape(-1, inputs.shape[-1])
        picks = jax.random.randint(where, (samples,), 0, rows.shape[0])
        return rows[picks] * kernel[:, jax.random.randint(which, (samples,), 0, kernel.shape[1])].T
    few, channels = min(4, kernel.shape[-1]), kernel.shape[-2]
    filters = jnp.take(kernel, jax.random.choice(which, kernel.shape[-1], (few,), replace=False), -1)
    filters = filters.reshape(*kernel.shape[:-2], 1, channels * few)
    layout, strides = channels_last(kernel.ndim), (1,) * (kernel.ndim - 2)
    each = lax.conv_general_dilated(
        inputs, filters, strides, "SAME", dimension_numbers=layout, feature_group_count=channels
    )
    rows = jnp.moveaxis(each.reshape(-1, channels, few), 1, 2).reshape(-1, channels)
    return rows[jax.random.randint(where, (samples,), 0, rows.shape[0])]


def _is_simple(kernel: Array, inputs: Array, member: Member) -> bool:
    if member.axis != kernel.ndim - 2 or inputs.shape[-1] != kernel.shape[-2]:
        return False
    return kernel.ndim == 2 or kernel.ndim == inputs.ndim > 2


def _greedy(contributions: np.ndarray) -> np.ndarray:
    """[size], the turn in which each channel goes, the one whose loss together with the earlier ones is least first."""
    size = contributions.shape[1]
    norms, lost = (contributions**2).sum(0), np.zeros(len(contributions))
    left, turns = np.ones(size, bool), np.zeros(size)
    for turn in range(size):
        error = np.where(left, norms + 2 * lost @ contributions, np.inf)
        channel = int(error.argmin())
        lost += contributions[:, channel]
        left[channel], turns[channel] = False, turn + 1
    return turns


def _members(group: Group, role: Role) -> list[Member]:
    return [member for member in group.members if member.role == role]


def _along(entries: Any, axis: int) -> Any:
    """Sums over all other axes."""
    return entries.sum(tuple(other for other in range(entries.ndim) if other != axis))


def _by_channel(group: Group, member: Member, sums: np.ndarray) -> np.ndarray:
    """[size]: of what stands along a member's axis, the sum for each channel."""
    there = member.channels >= 0
    return np.bincount(member.channels[there], np.asarray(sums, np.float64)[there], group.size)


def _sums(group: Group, role: Role, values: Callable[[str], Array]) -> np.ndarray:
    """[size]: of all entries that belong to a channel, along the axes of one role."""
    total = np.zeros(group.size)
    for member in _members(group, role):
        total += _by_channel(group, member, _along(np.asarray(values(member.path), np.float64), member.axis))
    return total


def _distances(weight: Array, member: Member) -> np.ndarray:
    order = np.argsort(member.channels, kind="stable")[(member.channels < 0).sum() :]
    size = member.channels.max() + 1
    filters = jnp.moveaxis(weight, member.axis, 0)[order].reshape(size, -1)
    squares = (filters**2).sum(1)
    between = squares[:, None] + squares - 2 * filters @ filters.T
    others = np.asarray(squares > 0)  # what is cut already is no neighbour
    return np.sqrt(np.maximum(np.asarray(between, np.float64), 0)) @ others
