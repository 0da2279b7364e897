"""Channels that nothing multiplies any more: they are left out, or made zero, which takes next to nothing in a file."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax.coupling.analysis import coupling
from nncompress_jax.coupling.groups import Coupling
from nncompress_jax.errors import InputError
from nncompress_jax.inputs import arguments, of_arrays
from nncompress_jax.methods.channels.pruning import UNCUT
from nncompress_jax.methods.selection import check, network
from nncompress_jax.tracing.injection import inject
from nncompress_jax.tree import named_leaves, rebuilt
from nncompress_jax.types import Array, Context, Method
from nncompress_jax.weights.base import dense, is_compressed
from nncompress_jax.weights.channel_pruned import ChannelPruned, at
from nncompress_jax.weights.quantized import Quantized

TOLERANCE = 1e-4
"""Of outputs, by which they may differ in floats: sums have another order where zeros are left out."""


def remove_unused_channels(*, round_to: int = 1) -> Method:
    """Leaves out channels that all weights behind them multiply by zero, and what computes these alone: it is for free.

    Few steps between values, high sparsity and training with a price of bits leave many of them. Outputs stay what they
    are, but that inputs in 8 bits have finer steps where a channel that is gone was the largest. Where outputs for the
    first batch would become others, as they do where channels are used otherwise, too, nothing is left out. Channels
    that no weight multiplies stay: those of queries and keys meet each other.

    Args:
      round_to: a multiple that the channels of each group stay, as far as there are so many: sixteen suit processors.

    Returns:
      A method for `compress(variables, method, apply=, batches=)`: weights that lose channels become `ChannelPruned`,
      of codes where they are quantized.

    Raises:
      InputError: for a multiple below 1; (when applied) without apply and batches, and where no channels can be cut.

    Example:
      >>> from nncompress_jax.recipes import compress
      >>> weights = {"a": jnp.ones((4, 3)), "b": jnp.array([[1.0], [0.0], [2.0]])}
      >>> apply, x = lambda w, x: jax.nn.relu(x @ w["a"]) @ w["b"], jnp.ones((2, 4))
      >>> small = compress(weights, remove_unused_channels(), apply=apply, batches=[x])
      >>> small["a"].values.shape, small["b"].values.shape
      ((4, 2), (2, 1))

    Source: Girish et al. 2023, "LilNetX: Lightweight Networks with EXtreme Model Compression and Structured
    Sparsification", whose training leaves such channels.
    """
    if round_to < 1:
        raise InputError(f"round_to={round_to}: expected 1 or more")

    def method(variables: Any, context: Context) -> Any:
        network(context, "remove_unused_channels")
        coupled = _coupled(variables, context)
        if not coupled.groups:
            raise InputError(UNCUT)
        cut = {member.path for group in coupled.groups for member in group.members}
        leaves = [(path, leaf) for path, leaf in named_leaves(variables, is_compressed) if path in cut]
        check([(path, leaf) for path, leaf in leaves if not is_compressed(leaf)], ChannelPruned)
        changed, there, stay = _all_zeroed(coupled, variables), coupled.there(variables), {}
        for name, uses in _uses(coupled, changed).items():
            used = uses["input"]
            size = max(round_to, round_to * -(-int(used.sum()) // round_to))
            used[np.flatnonzero(there[name] & ~used)[: size - int(used.sum())]] = True
            stay[name] = used
        return _if_same(coupled.cut(changed, stay), variables, context)

    return method


def without_unused(variables: Any, context: Context) -> Any:
    """The network, with zero wherever a channel is computed that all weights behind it multiply by zero.

    Channels that become unused by that are zero, too. It stays as it is where outputs for the first batch would become
    others, as those of a network do that uses channels otherwise, too.

    Args:
      variables: compressed or not.
      context: with apply and batches.

    Example:
      >>> weights = {"a": jnp.ones((4, 2)), "b": jnp.array([[1.0], [0.0]])}
      >>> context = Context(lambda w, x: jax.nn.relu(x @ w["a"]) @ w["b"], [jnp.ones((2, 4))])
      >>> without_unused(weights, context)["a"][0].tolist()
      [1.0, 0.0]
    """
    try:
        coupled = _coupled(variables, context)
    except InputError:
        return variables
    return _if_same(_all_zeroed(coupled, variables), variables, context)


def _if_same(changed: Any, variables: Any, context: Context) -> Any:
    """What was changed, if outputs are the same with weights as floats: the steps of inputs in 8 bits do not count."""
    if changed is variables:
        return variables
    apply, batches = network(context, "remove_unused_channels")
    example = arguments(batches[0])
    run = inject(apply, fast=True)

    def outputs(tree: Any) -> list[Array]:
        floats = jax.tree.map(dense, tree, is_leaf=is_compressed)
        function, arrays = of_arrays(lambda tree, *batch: jax.tree.leaves(run(tree, *batch)), floats)
        return [output.astype(jnp.float32) for output in jax.jit(function)(arrays, *example)]

    before, after = outputs(variables), outputs(changed)
    error = sum(float(jnp.square(a - b).sum()) for a, b in zip(before, after, strict=True))
    return changed if error <= TOLERANCE**2 * sum(float(jnp.square(a).sum()) for a in before) else variables


def _coupled(variables: Any, context: Context) -> Coupling:
    """What is found once for a network."""
    apply, batches = network(context, "auto")
    return context.kept("coupling", lambda: coupling(apply, _uncut(variables), *arguments(batches[0])))


def _uncut(variables: Any) -> Any:
    def described(leaf: Any) -> Any:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if is_compressed(leaf) else leaf

    return jax.tree.map(described, variables, is_leaf=is_compressed)


def _all_zeroed(coupled: Coupling, variables: Any) -> Any:
    """Until nothing is computed that is not used."""
    while unused := _unused(coupled, variables):
        variables = _zeroed(coupled, variables, unused)
    return variables


def _unused(coupled: Coupling, variables: Any) -> dict[str, np.ndarray]:
    """By group, [size] bool: channels that are used, of groups of which some are computed that are not."""
    found = _uses(coupled, variables).items()
    unused = {name: ~uses["input"] & (uses["output"] | uses["vector"]) for name, uses in found}
    return {name: uses["input"] for name, uses in found if uses["input"].any() and unused[name].any()}


def _uses(coupled: Coupling, variables: Any) -> dict[str, dict[str, np.ndarray]]:
    """By group that weights multiply, and by role of an axis, [size] bool: channels of which an entry is not zero."""
    leaves = dict(named_leaves(variables, is_compressed))
    found = {}
    for group in coupled.groups:
        uses = {role: np.zeros(group.size, bool) for role in ("input", "output", "vector")}
        for member in group.members:
            other_axes = tuple(axis for axis in range(leaves[member.path].ndim) if axis != member.axis)
            there: Any = np.asarray(dense(leaves[member.path]) != 0).any(other_axes)
            places = member.channels >= 0
            np.logical_or.at(uses[member.role], member.channels[places], there[places])
        if any(member.role == "input" for member in group.members):
            found[group.name] = uses
    return found


def _zeroed(coupled: Coupling, variables: Any, stay: Mapping[str, np.ndarray]) -> Any:
    leaves, structure = named_leaves(variables, is_compressed), jax.tree.structure(variables, is_leaf=is_compressed)
    paths = {member.path for group in coupled.groups if group.name in stay for member in group.members}
    ones = [jnp.ones(leaf.shape) if path in paths else leaf for path, leaf in leaves]
    stays = dict(named_leaves(coupled.cut(rebuilt(structure, ones), stay), is_compressed))
    new = [_masked(leaf, dense(stays[path]) > 0) if path in paths else leaf for path, leaf in leaves]
    return rebuilt(structure, new)


def _masked(leaf: Any, stays: Any) -> Any:
    if isinstance(leaf, ChannelPruned):
        return dataclasses.replace(leaf, values=_masked(leaf.values, at(stays, leaf.cuts)))
    if isinstance(leaf, Quantized) and leaf.zero_point is None:
        return dataclasses.replace(leaf, codes=jnp.where(stays, dense(leaf.codes), 0))
    return leaf if is_compressed(leaf) else jnp.where(stays, leaf, 0).astype(leaf.dtype)
