"""Batch normalization: moved into the weights before it, or given the statistics of what it meets now."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nncompress_jax.errors import InputError
from nncompress_jax.inputs import listed
from nncompress_jax.leaves import check_there
from nncompress_jax.methods.reestimate import StatisticsMoved as StatisticsMoved
from nncompress_jax.methods.reestimate import reestimate as of_context
from nncompress_jax.methods.selection import exchanged, leave_alone, network
from nncompress_jax.tracing.normalization import Normalization, normalizations
from nncompress_jax.tracing.positions import entries
from nncompress_jax.tree import Where, named_leaves, selected
from nncompress_jax.types import Apply, Context, Method
from nncompress_jax.weights.base import dense, is_compressed
from nncompress_jax.weights.channel_pruned import is_plain

Leaves = Mapping[str, Any]
"""The variables by path."""


def fold(*, weights: bool = True, where: Where = None) -> Method:
    """Moves batch normalization into the weights of the convolution or dense layer before it.

    The weights, and what is added to their product, are multiplied by scale / sqrt(variance + epsilon). Scale and
    variance then multiply by one, and what remains to be added stands in the bias, or in the mean where there is none:
    the same function, unedited, computes the same outputs but for rounding. Where a layer or a normalization is used
    several times, or something else is normalized, all stays, with a warning.

    With `weights=False` the weights stay as they are, and may be compressed: variance and scale become one scale, mean
    and biases one bias. The others then hold one number each, which takes next to nothing in a file.

    Args:
      weights: whether the weights are multiplied.
      where: weights of the layers, a pattern or a predicate on the path; by default all that a normalization follows.

    Returns:
      A method for `compress` and `chain`; it needs `apply`, in inference, and `batches`. Weights that are to be folded
      into may lack channels, and must not be compressed otherwise yet.

    Raises:
      InputError: (when applied) without `apply` and `batches`; where the program holds no batch normalization.

    Example:
      >>> import jax.numpy as jnp
      >>> leaves = {"w": jnp.ones((1, 2)), "m": jnp.array([1.0, 2.0]), "v": jnp.array([3.0, 15.0])}
      >>> apply = lambda tree, x: (x @ tree["w"] - tree["m"]) / jnp.sqrt(tree["v"] + 1.0)
      >>> folded = fold()(leaves, Context(apply, [jnp.ones((1, 1))]))
      >>> [folded[name].tolist() for name in "wmv"]
      [[[0.5, 0.25]], [0.5, 0.5], [0.0, 0.0]]

    Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", section 3.2.
    """

    def method(variables: Any, context: Context) -> Any:
        apply, inputs = network(context, "batch_norm.fold")
        found = normalizations(apply, variables, *inputs[0]).found
        if not found:
            raise InputError("the program holds no batch normalization that could be folded; leave batch_norm.fold out")
        leaves = dict(named_leaves(variables, is_compressed))
        check_there(leaves.items())
        chosen = _chosen(found, leaves, where)
        new: dict[str, np.ndarray] = {}
        for each in found:
            if each.weight and each.weight not in chosen:
                continue
            made = (_folded if weights else _gathered)(each, leaves)
            if isinstance(made, str):
                leave_alone(each.weight or each.mean, made)
            else:
                new |= made
        return exchanged(variables, new)

    return method


def _chosen(found: tuple[Normalization, ...], leaves: Leaves, where: Where) -> set[str]:
    weights = {each.weight: leaves[each.weight] for each in found if each.weight}
    return set(weights) if where is None else set(selected(weights.items(), where))


def _folded(each: Normalization, leaves: Leaves) -> dict[str, np.ndarray] | str:
    """The leaves that change; or in words, why none does."""
    numbers = _numbers(each, leaves, each.weight)
    if isinstance(numbers, str):
        return numbers
    gain = _gain(each, numbers)
    new = {each.variance: np.full_like(numbers[each.variance], 1 - each.epsilon)}
    for path in filter(None, (each.weight, each.weight_bias)):
        meets = entries(
            each.places[path], numbers[path].shape, each.places[each.variance], numbers[each.variance].shape
        )
        if meets is None:
            return f"{path}: several channels of the normalization meet one of its entries"
        new[path] = numbers[path] * gain[meets]
    left = (numbers[each.mean].ravel() * gain).reshape(numbers[each.mean].shape)
    new[each.mean] = np.zeros_like(left) if each.bias else left
    if each.scale:
        new[each.scale] = np.ones_like(numbers[each.scale])
    if each.bias:
        new[each.bias] = numbers[each.bias] - left.reshape(numbers[each.bias].shape)
    return new


def _gathered(each: Normalization, leaves: Leaves) -> dict[str, np.ndarray] | str:
    """Likewise, without the weight."""
    numbers = _numbers(each, leaves)
    if isinstance(numbers, str):
        return numbers
    new, gain, added = {}, _gain(each, numbers), -numbers[each.mean].ravel()
    if each.weight_bias:
        bias, shape = numbers[each.weight_bias], numbers[each.variance].shape
        meets = entries(each.places[each.weight_bias], bias.shape, each.places[each.variance], shape)
        order = None if meets is None else np.broadcast_to(meets, bias.shape).ravel()
        if order is not None and sorted(order) == [*range(len(added))]:  # else channels share a mean, not a bias
            added[order] += bias.ravel()
            new[each.weight_bias] = np.zeros_like(bias)
    if each.scale:
        new[each.scale] = gain.reshape(numbers[each.scale].shape)
        new[each.variance] = np.full_like(numbers[each.variance], 1 - each.epsilon)
    new[each.mean] = -added.reshape(numbers[each.mean].shape)
    if each.bias:
        new[each.bias] = numbers[each.bias] + (added * gain).reshape(numbers[each.bias].shape)
        new[each.mean] = np.zeros_like(new[each.mean])
    return new


def _numbers(each: Normalization, leaves: Leaves, *weights: str | None) -> dict[str, np.ndarray] | str:
    """Of the leaves of a normalization, in float64; or in words, why they cannot be changed."""
    if each.weight is None or each.obstacle:
        return each.obstacle
    paths = (*weights, each.weight_bias, each.mean, each.variance, each.scale, each.bias)
    used = {path: leaves[path] for path in paths if path is not None}
    if taken := [path for path, leaf in used.items() if is_compressed(leaf) and not is_plain(leaf)]:
        return f"{', '.join(taken)}: compressed already; fold before what compresses"
    numbers = {path: np.asarray(dense(leaf), np.float64) for path, leaf in used.items()}
    if not np.isfinite(_gain(each, numbers)).all():
        return f"{each.variance}: not all above {-each.epsilon:g}"
    return numbers


def _gain(each: Normalization, numbers: Leaves) -> np.ndarray:
    """What the normalization multiplies by, for each of its entries."""
    gain: np.ndarray = 1 / np.sqrt(numbers[each.variance].ravel() + each.epsilon)
    return gain * numbers[each.scale].ravel() if each.scale else gain


def reestimate(variables: Any, apply: Apply, batches: Sequence[Any]) -> Any:
    """Sets the statistics of all batch normalizations to those of the data that they meet.

    Compression changes what enters a normalization; its mean and variance are those of the float network. Here they
    are the exact ones over all batches, one normalization after the other, each on data that the earlier ones, with
    their new statistics, let through. Where one leaf serves several places it stays, with a warning.

    Args:
      variables: of any types; leaves that hold means and variances are arrays, or lack channels.
      apply: of (variables, *inputs), in inference: it reads the statistics. What it returns does not matter.
      batches: some hundreds of inputs at least, from the training set, augmented as there; each a tuple of apply's
        further arguments, or the only one. In memory are, for all of them at once, the values that are needed behind
        the present place.

    Returns:
      The same tree with other means and variances (the biased ones, as in training).

    Raises:
      InputError: without batches; where the program holds no batch normalization; where statistics are not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> leaves = {"w": jnp.ones((1, 1)), "mean": jnp.zeros(1), "var": jnp.ones(1)}
      >>> apply = lambda tree, x: (x @ tree["w"] - tree["mean"]) / jnp.sqrt(tree["var"] + 1e-5)
      >>> new = reestimate(leaves, apply, [jnp.array([[1.0], [3.0]]), jnp.array([[5.0]])])
      >>> new["mean"].tolist(), round(new["var"].item(), 4)
      ([3.0], 2.6667)

    Source: Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3.
    """
    if not (batches := listed(batches)):
        raise InputError("batch_norm.reestimate needs batches=: a list of representative inputs")
    return of_context(variables, Context(apply, batches))
