"""Cross-layer equalization: channels of neighbouring layers get ranges of the same size."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from nncompress_jax.coupling.scalable import FIXED, RETURNED, Scalable, Share
from nncompress_jax.errors import InputError
from nncompress_jax.leaves import check_there
from nncompress_jax.methods.selection import check, exchanged, leave_alone, network
from nncompress_jax.tracing.affine import Values
from nncompress_jax.tracing.graph import graph
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Context, Method
from nncompress_jax.weights.base import is_compressed

MOST_TURNS = 50
NEAR = 1e-3
"""Of the logarithms of a turn's factors: smaller ones end it."""


def equalize() -> Method:
    """Multiplies channels of a layer by positive numbers, and divides the weights that they enter by the same.

    Where a channel is positive-homogeneous between two layers (ReLU, leaky ReLU, pooling, sums, batch normalization in
    inference, reshapes), the outputs stay what they are, but for rounding. The numbers are chosen such that the weights
    that compute a channel, and those that it enters, have the same range: one scale for a whole tensor then serves all
    its channels. Biases, means and what else is added go along. Channels that meet anything else (GELU, sigmoid,
    softmax, layer normalization, ReLU6, an input or output of the network) stay, with a warning. Batch normalization
    may be folded before, or not: then the ranges are those of the weights as they are.

    Returns:
      A method for `compress` and `chain`; it needs `apply` and `batches`. Equalize before what compresses.

    Raises:
      InputError: (when applied) without `apply` and `batches`; where no channels can be equalized; for weights that are
        not finite.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> leaves = {"a": jnp.array([[8.0, 1.0]]), "b": jnp.array([[0.5], [4.0]])}
      >>> apply = lambda tree, x: jax.nn.relu(x @ tree["a"]) @ tree["b"]
      >>> small = equalize()(leaves, Context(apply, [jnp.ones((1, 1))]))
      >>> small["a"].tolist(), small["b"].tolist()
      ([[2.0, 2.0]], [[2.0], [2.0]])

    Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1.
    """

    def method(variables: Any, context: Context) -> Any:
        apply, inputs = network(context, "equalize")
        leaves = dict(named_leaves(variables, is_compressed))
        check_there(leaves.items())
        program = graph(apply, variables, *inputs[0])
        shapes = {path: tuple(np.shape(leaves[path])) for path in program.paths}
        found = Scalable(program, Values(program, leaves), shapes)
        for path, share in found.shares.items():
            if is_compressed(leaves[path]):
                found.hold([share.outputs, share.inputs], f"{path} is compressed already; equalize before")
        channels = _Channels(found)
        changed = [share for share in found.shares.values() if channels.reach(share)]
        for path, reason in channels.held():
            leave_alone(path, reason)
        if not changed:
            raise InputError("no channels between two layers can be equalized; leave equalize out")
        check([(share.path, leaves[share.path]) for share in changed], type(None))
        weights = {share.path: np.asarray(leaves[share.path], np.float64) for share in changed}
        return exchanged(variables, _equalized(weights, changed, channels))

    return method


class _Side(NamedTuple):
    """Where channels stand in a weight."""

    path: str
    is_output: bool


class _Channels:
    """Labels of channels that are multiplied by the same number, as one channel."""

    def __init__(self, found: Scalable) -> None:
        pairs = np.concatenate([*found.found.coupled, np.zeros((0, 2), int)])
        links = coo_matrix((np.ones(len(pairs), bool), tuple(pairs.T)), (found.count, found.count))
        self.count, self.of_label = connected_components(links, directed=False)
        self.shares = [share for share in found.shares.values() if share.multiplies]
        self.why = {int(self.of_label[0]): FIXED}
        for labels, reason in found.found.frozen:
            for channel in np.unique(self.of_label[labels]).tolist():
                self.why.setdefault(channel, reason)
        self.sides: dict[int, list[_Side]] = {}
        for share in self.shares:
            for each, is_output in ((share.outputs, True), (share.inputs, False)):
                for channel in [] if each is None else np.unique(self.of_label[each]).tolist():
                    self.sides.setdefault(channel, []).append(_Side(share.path, is_output))
        self.between = {
            channel for channel, sides in self.sides.items() if len({side.is_output for side in sides}) == 2
        }
        self.free = np.isin(np.arange(self.count), [*(self.between - self.why.keys())])

    def groups(self) -> list[np.ndarray]:
        """Channels that stand on the same sides of the same weights, which are equalized together."""
        alike: dict[Sequence[_Side], list[int]] = {}
        for channel in np.flatnonzero(self.free).tolist():
            alike.setdefault(tuple(self.sides[channel]), []).append(channel)
        return [np.array(channels) for channels in alike.values()]

    def reach(self, share: Share) -> bool:
        """Whether a weight changes."""
        return any(self.free[self.of_label[x]].any() for x in (share.outputs, share.inputs) if x is not None)

    def held(self) -> Iterator[tuple[str, str]]:
        """Weights that compute channels which stay, and why; but for the last ones of the network."""
        said: set[tuple[str, str]] = set()
        for channel in sorted(self.sides.keys() & self.why.keys()):
            path, reason = self.sides[channel][0].path, self.why[channel]
            is_last = reason == RETURNED and channel not in self.between
            if self.sides[channel][0].is_output and not is_last and (path, reason) not in said:
                said.add((path, reason))
                yield path, reason


def _equalized(weights: dict[str, np.ndarray], shares: Sequence[Share], channels: _Channels) -> dict[str, np.ndarray]:
    """Group after group, until nothing changes any more."""
    factors = np.ones(channels.count)
    magnitudes = {path: np.abs(weight) for path, weight in weights.items()}
    multiplying = {share.path: share for share in shares if share.multiplies}
    for _ in range(MOST_TURNS):
        most = 0.0
        for group in channels.groups():
            computed, entered = np.zeros(channels.count), np.zeros(channels.count)
            for path, is_output in channels.sides[int(group[0])]:
                share = multiplying[path]
                labels = share.outputs if is_output else share.inputs
                now = magnitudes[path] * _factor(share, factors, channels)
                _largest(computed if is_output else entered, now, channels.of_label[labels])
            alive = (computed[group] > 0) & (entered[group] > 0)
            step = np.sqrt(np.where(alive, entered[group], 1) / np.where(alive, computed[group], 1))
            factors[group] *= step
            most = max(most, float(np.abs(np.log(step)).max()))
        if most < NEAR:
            break
    return {share.path: weights[share.path] * _factor(share, factors, channels) for share in shares}


def _factor(share: Share, factors: np.ndarray, channels: _Channels) -> np.ndarray:
    """Of a weight's entries; it broadcasts to them."""
    result = np.ones((), np.float64)
    if share.outputs is not None:
        result = result * factors[channels.of_label[share.outputs]]
    return result if share.inputs is None else result / factors[channels.of_label[share.inputs]]


def _largest(found: np.ndarray, magnitudes: np.ndarray, channels: np.ndarray) -> None:
    """Raises each channel's entry to the largest magnitude where it stands."""
    shared = tuple(axis for axis, size in enumerate(channels.shape) if size == 1)
    np.maximum.at(found, channels.ravel(), magnitudes.max(shared, keepdims=True).ravel())
