"""Pruning of whole channels, in all weights that share them."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax.coupling.analysis import coupling
from nncompress_jax.coupling.groups import Coupling, Group
from nncompress_jax.errors import InputError
from nncompress_jax.inputs import arguments
from nncompress_jax.methods.channels.budget import Budget, Ranking, within
from nncompress_jax.methods.channels.criteria import Criterion, by_path, l1
from nncompress_jax.methods.in_sequence import replaced_in_sequence
from nncompress_jax.methods.second_order import Problem
from nncompress_jax.methods.selection import check, exchanged
from nncompress_jax.tree import Where, named_leaves, selected
from nncompress_jax.types import Apply, Array, Context, Method
from nncompress_jax.weights.base import dense, is_compressed
from nncompress_jax.weights.channel_pruned import ChannelPruned

UNDEFINED = (
    "{}: channels that are cut are zero divided by zero there, which nnc.inject takes for zero; of what nnc.decompress "
    "gives, the program makes NaN: keep the cut variables, or nnc.shrink them"
)


UNCUT = "no group of channels can be cut; nnc.coupling(apply, variables, example).print() says why"


def prune_channels(
    *,
    macs: float | None = None,
    parameters: float | None = None,
    keep: float | None = None,
    where: Where = None,
    criterion: Criterion = l1,
    scope: Literal["layer", "global"] = "layer",
    round_to: int = 1,
    at_least: int = 1,
    reconstruct: bool = False,
) -> Method:
    """Takes the least important channels out of a network, in every weight where they stand.

    A network that lost channels can lose more, so that cutting and training can take turns. Shares are those of the
    uncut network.

    Args:
      macs: share of the multiply-accumulates that stays, from 0 to 1.
      parameters: instead, the share of the parameters.
      keep: instead, the share of the channels.
      where: groups to cut, by a pattern or predicate on their names; by default all that can be.
      criterion: which channels are important: of `nnc.criteria`, or a function of (groups, weights, context).
      scope: the same share of each group ("layer"), or channels of all groups compete ("global"), with scores divided
        by the root mean square of their group's.
      round_to: what stays of a group is a multiple of this, where the group has as many; 16 makes VGG16 faster on the
        CPU than as many channels of other numbers do.
      at_least: channels that stay of each group.
      reconstruct: weights that sum over fewer channels than before are solved for anew, by least squares on `batches`,
        a thousand examples or so: one after the other, in the order of the program, so that outputs come nearest to
        those of the network as it was; after Luo et al. 2017, "ThiNet", section 3.3.

    Returns:
      A method for `compress(variables, method, apply=, batches=)`: weights that lose channels become `ChannelPruned`.

    Raises:
      InputError: for shares that cannot be; (when applied) for a missing apply or example, compressed weights, a
        pattern without a match, and a budget below what `at_least` leaves.

    Example:
      >>> from nncompress_jax.recipes import compress
      >>> weights = {"a": jnp.arange(32.0).reshape(4, 8), "b": jnp.ones((8, 3))}
      >>> apply, x = lambda w, x: jax.nn.relu(x @ w["a"]) @ w["b"], jnp.ones((2, 4))
      >>> small = compress(weights, prune_channels(macs=0.5), apply=apply, batches=[x])
      >>> small["a"].values.shape, small["b"].values.shape, small["a"].channels[1].indices.tolist()
      ((4, 4), (4, 3), [4, 5, 6, 7])

    Source: Li et al. 2017, "Pruning Filters for Efficient ConvNets".
    """
    shares = {"macs": macs, "parameters": parameters, "keep": keep}
    asked = [Budget(of, share) for of, share in shares.items() if share is not None]
    if len(asked) != 1:
        raise InputError("prune_channels takes one of macs=, parameters= and keep=")
    (budget,) = asked
    if not 0 < budget.share <= 1:
        raise InputError(f"{budget.of}={budget.share}: expected more than 0 and at most 1, the share that stays")
    if min(round_to, at_least) < 1:
        raise InputError(f"round_to={round_to}, at_least={at_least}: expected 1 or more")

    def method(variables: Any, context: Context) -> Any:
        if context.apply is None or not context.batches:
            raise InputError("prune_channels needs apply= and batches=: compress(variables, method, apply=, batches=)")
        coupled, groups = chosen(context.apply, variables, context.batches, where)
        there, (weights, own) = coupled.there(variables), by_path(variables, context)
        scores = dict(zip([group.name for group in groups], criterion(groups, weights, own), strict=True))
        if scope == "global":
            scores = {name: _by_size(each, there[name]) for name, each in scores.items()}
        kept = within(coupled, Ranking(groups, scores, there, scope, round_to, at_least), budget)
        if coupled.undefined:
            warnings.warn(UNDEFINED.format(", ".join(coupled.undefined)), RuntimeWarning, stacklevel=3)
        if reconstruct:
            variables = _reconstructed(coupled, variables, kept, context)
        return coupled.cut(variables, kept)

    return method


def chosen(apply: Apply, variables: Any, batches: Sequence[Any], where: Where) -> tuple[Coupling, list[Group]]:
    """The coupling of a network, and those of its groups that are asked for."""
    coupled = coupling(apply, variables, *arguments(batches[0]))
    if not coupled.groups:
        raise InputError(UNCUT)
    names = selected([(group.name, group) for group in coupled.groups], where or (lambda _: True))
    groups = [group for group in coupled.groups if group.name in names]
    cut = {member.path for group in groups for member in group.members}
    leaves = [(path, leaf) for path, leaf in named_leaves(variables, is_compressed) if path in cut]
    check([(path, leaf.values if isinstance(leaf, ChannelPruned) else leaf) for path, leaf in leaves], ChannelPruned)
    return coupled, groups


def _by_size(scores: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Scores in units of their root mean square."""
    return scores / (np.sqrt(np.mean(np.square(scores[there]))) or 1)


def _reconstructed(coupled: Coupling, variables: Any, kept: Mapping[str, np.ndarray], context: Context) -> Any:
    """Variables, uncut, with which the cut network comes nearest to the uncut one."""
    fewer = [group for group in coupled.groups if not np.all(kept.get(group.name, True))]
    summed = {member.path for group in fewer for member in group.members if member.role == "input"}
    if not summed:
        return variables

    def of_dense(tree: Any) -> Any:
        return jax.tree.map(dense, tree, is_leaf=is_compressed)

    whole, cut = of_dense(variables), of_dense(coupled.cut(variables, kept))
    ones = jax.tree.map(lambda leaf: jnp.ones(jnp.shape(leaf)), whole)
    stays = dict(named_leaves(of_dense(coupled.cut(ones, kept))))

    def make(path: str, leaf: Array, problem: Problem | None) -> Array:
        if problem is None:
            return leaf
        fitted = problem.fitted(problem.columns(np.asarray(stays[path]) > 0))
        return jnp.asarray(problem.entries(fitted, leaf), leaf.dtype)

    def where(path: str) -> bool:
        return path in summed

    fitted = replaced_in_sequence(cut, where, make, makes=ChannelPruned, context=context, reference=whole)
    return exchanged(variables, {path: leaf for path, leaf in named_leaves(fitted) if path in summed})
