"""Batch normalization: moved into the weights before it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nncompress_jax.errors import InputError
from nncompress_jax.leaves import check_there
from nncompress_jax.methods.selection import exchanged, leave_alone, network
from nncompress_jax.tracing.normalization import Normalization, normalizations
from nncompress_jax.tracing.positions import entries
from nncompress_jax.tree import Where, named_leaves, selected
from nncompress_jax.types import Context, Method
from nncompress_jax.weights.base import is_compressed

Leaves = Mapping[str, Any]
"""The variables by path."""


def fold(*, where: Where = None) -> Method:
    """Moves batch normalization into the weights of the convolution or dense layer before it.

    The weights, and what is added to their product, are multiplied by scale / sqrt(variance + epsilon). Scale and
    variance then multiply by one, and what remains to be added stands in the bias, or in the mean where there is none:
    the same function, unedited, computes the same outputs but for rounding. Where a layer or a normalization is used
    several times, or something else is normalized, all stays, with a warning.

    Args:
      where: weights of the layers, a pattern or a predicate on the path; by default all that a normalization follows.

    Returns:
      A method for `compress` and `chain`; it needs `apply`, in inference, and `batches`. Fold before what compresses.

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
            made = _folded(each, leaves)
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
    if each.weight is None or each.obstacle:
        return each.obstacle
    paths = (each.weight, each.weight_bias, each.mean, each.variance, each.scale, each.bias)
    used = {path: leaves[path] for path in paths if path is not None}
    if taken := [path for path, leaf in used.items() if is_compressed(leaf)]:
        return f"{', '.join(taken)}: compressed already; fold before what compresses"
    numbers = {path: np.asarray(leaf, np.float64) for path, leaf in used.items()}
    gain = 1 / np.sqrt(numbers[each.variance].ravel() + each.epsilon)
    if each.scale:
        gain = gain * numbers[each.scale].ravel()
    if not np.isfinite(gain).all():
        return f"{each.variance}: not all above {-each.epsilon:g}"
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
