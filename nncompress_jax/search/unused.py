"""Channels that nothing multiplies any more: what computes them becomes zero, which takes next to nothing in a file."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax.coupling.analysis import coupling
from nncompress_jax.coupling.groups import Coupling
from nncompress_jax.errors import InputError
from nncompress_jax.inputs import arguments
from nncompress_jax.methods.selection import network
from nncompress_jax.search.reference import Reference
from nncompress_jax.tree import named_leaves, rebuilt
from nncompress_jax.weights.base import dense, is_compressed
from nncompress_jax.weights.channel_pruned import ChannelPruned, at
from nncompress_jax.weights.quantized import Quantized

TOLERANCE = 1.01
"""By which the squared error of outputs may rise: ranges of inputs no longer count channels that are zero."""


def without_unused(variables: Any, reference: Reference) -> Any:
    """The network, with zero wherever a channel is computed that all weights behind it multiply by zero.

    Channels that become unused by that are zero, too. It stays as it is where outputs for the first batch would come
    further from the reference's, as those of a network would that uses channels otherwise, too.

    Args:
      variables: of the reference, compressed.
      reference: the network as it was.

    Example:
      >>> from nncompress_jax.types import Context
      >>> weights = {"a": jnp.ones((4, 2)), "b": jnp.array([[1.0], [0.0]])}
      >>> context = Context(lambda w, x: jax.nn.relu(x @ w["a"]) @ w["b"], [jnp.ones((2, 4))])
      >>> without_unused(weights, Reference(weights, context))["a"][0].tolist()
      [1.0, 0.0]
    """
    context = reference.context
    coupled = context.kept("coupling", lambda: _coupling(reference))
    if coupled is None:
        return variables
    changed = variables
    while unused := _unused(coupled, changed):
        changed = _zeroed(coupled, changed, unused)
    if changed is variables or reference.error(changed, 1) > TOLERANCE * reference.error(variables, 1):
        return variables
    return changed


def _coupling(reference: Reference) -> Coupling | None:
    apply, batches = network(reference.context, "auto")
    try:
        return coupling(apply, _uncut(reference.variables), *arguments(batches[0]))
    except InputError:
        return None


def _uncut(variables: Any) -> Any:
    def described(leaf: Any) -> Any:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if is_compressed(leaf) else leaf

    return jax.tree.map(described, variables, is_leaf=is_compressed)


def _unused(coupled: Coupling, variables: Any) -> dict[str, np.ndarray]:
    """By group, [size] bool: channels that stay, of groups of which some that are not all zero do not."""
    leaves = dict(named_leaves(variables, is_compressed))
    found = {}
    for group in coupled.groups:
        uses = {role: np.zeros(group.size, bool) for role in ("input", "output", "vector")}
        for member in group.members:
            other_axes = tuple(axis for axis in range(leaves[member.path].ndim) if axis != member.axis)
            there: Any = np.asarray(dense(leaves[member.path]) != 0).any(other_axes)
            places = member.channels >= 0
            np.logical_or.at(uses[member.role], member.channels[places], there[places])
        is_summed = any(member.role == "input" for member in group.members)
        if is_summed and uses["input"].any() and (~uses["input"] & (uses["output"] | uses["vector"])).any():
            found[group.name] = uses["input"]
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
