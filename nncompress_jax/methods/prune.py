"""Pruning of single weights."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax.errors import InputError
from nncompress_jax.methods.compensation import ROUNDS, compensated, shares
from nncompress_jax.methods.in_sequence import replaced_in_sequence
from nncompress_jax.methods.layout import input_axis
from nncompress_jax.methods.second_order import Problem
from nncompress_jax.methods.selection import leave_alone, replaced, warn_larger
from nncompress_jax.tree import Where
from nncompress_jax.types import Array, Context, Method
from nncompress_jax.weights.base import dense, is_compressed
from nncompress_jax.weights.packed import packed
from nncompress_jax.weights.sparse import Sparse, SparseGroups

Criterion = Callable[[str, Array], Array]
"""(path, weights) -> scores of the same shape; the smallest are pruned."""


def magnitude(path: str, weights: Array) -> Array:
    """|w|.

    Source: Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks".
    """
    return jnp.abs(weights)


def random(key: Array) -> Criterion:
    """Scores by chance: the control that a criterion has to beat."""

    def scores(path: str, weights: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(key, zlib.crc32(path.encode())), weights.shape)

    return scores


def prune(
    *,
    sparsity: float | None = None,
    pattern: tuple[int, int] | None = None,
    where: Where = None,
    scope: Literal["layer", "global"] = "layer",
    criterion: Criterion = magnitude,
    compensate: bool = False,
) -> Method:
    """Takes the least important weights away; the others train on, these do not exist.

    `Sparse` weights of floats can be pruned further: pruning and training in turns loses less than all at once.
    Positions take bytes, too: where a weight takes more of them than before, a warning says so.

    Args:
      sparsity: share of all weights that goes, from 0 to less than 1.
      pattern: instead, (N, M): N of every M neighbours along the axis of input channels stay, as (2, 4). A weight whose
        input channels are no multiple of M is left as it is, with a warning.
      where: which leaves, as in `quantize`; of `LowRank` weights the factors.
      scope: the share of each weight ("layer"), or of all together ("global").
      criterion: which are important: `magnitude`, `random(key)`, or a function of (path, weights) to scores.
      compensate: what stays makes up for what goes: weight after weight, in the order of the program, so that outputs
        stay closest to those of the network as it was. The criterion then says how many stay of each weight; which, the
        outputs say. This needs `apply` and `batches`, a thousand examples or so, and takes minutes.

    Returns:
      A method for `compress` and `chain`.

    Raises:
      InputError: for a sparsity or pattern that cannot be; (when applied) for leaves that are compressed otherwise, not
        float, or not finite, and where nothing would be left of one.

    Example:
      >>> from nncompress_jax.types import Context
      >>> small = prune(sparsity=0.5)({"kernel": jnp.array([[1.0, -4.0], [3.0, 2.0]])}, Context())["kernel"]
      >>> small.values.tolist(), small.positions.tolist()
      ([-4.0, 3.0], [1, 2])
    """
    if (sparsity is None) == (pattern is None):
        raise InputError("prune takes one of sparsity= and pattern=")
    if sparsity is not None and not 0 <= sparsity < 1:
        raise InputError(f"sparsity={sparsity}: expected from 0 to less than 1, the share of the weights that goes")
    if pattern is not None and not 0 < pattern[0] < pattern[1] <= 256:
        raise InputError(f"pattern={pattern}: expected (N, M) with 0 < N < M <= 256")

    def method(variables: Any, context: Context) -> Any:
        variables = jax.tree.map(_further, variables, is_leaf=is_compressed)
        scores = _scores(variables, where, criterion, context)
        kept = {} if sparsity is None else _kept(scores, sparsity, scope)

        def make(path: str, leaf: Array, problem: Problem | None = None) -> Any:
            if pattern:
                return _grouped(path, leaf, scores[path], pattern, input_axis(path, leaf, context), problem)
            stays: Any = kept[path]
            values: Any = leaf
            if problem is not None and stays.any():
                counts = [round(share * stays.size) for share in shares(stays.mean())]
                there, values = compensated(problem, leaf, counts, _largest)
                stays = there.ravel()
            return _sparse(path, leaf, values, stays, float(sparsity or 0))

        change = replaced_in_sequence if compensate else replaced
        return change(variables, where, make, makes=Sparse, context=context)

    return method


def _largest(scores: np.ndarray, count: int) -> np.ndarray:
    return _all_but_least(scores.ravel(), scores.size - count).reshape(scores.shape)


def _further(leaf: Any) -> Any:
    """Zeros are what goes first."""
    return dense(leaf) if isinstance(leaf, Sparse) and not is_compressed(leaf.values) else leaf


def _scores(variables: Any, where: Where, criterion: Criterion, context: Context) -> dict[str, np.ndarray]:
    """Of each weight that `replaced` would take."""
    scores = {}

    def score(path: str, leaf: Array) -> Array:
        scores[path] = np.asarray(criterion(path, leaf), np.float32)
        return leaf

    replaced(variables, where, score, makes=Sparse, context=context)
    return scores


def _kept(scores: Mapping[str, np.ndarray], sparsity: float, scope: str) -> dict[str, np.ndarray]:
    """Which entries stay, by path; of the share that goes, to one entry."""
    if scope == "layer" or not scores:
        return {path: _all_but_least(score.ravel(), round(sparsity * score.size)) for path, score in scores.items()}
    scored = np.concatenate([score.ravel() for score in scores.values()])
    together = _all_but_least(scored, round(sparsity * scored.size))
    ends = np.cumsum([score.size for score in scores.values()])
    return dict(zip(scores, np.split(together, ends[:-1]), strict=True))


def _all_but_least(scores: np.ndarray, count: int) -> np.ndarray:
    """Without so many; of equal scores at the border those that go are spread evenly."""
    if not count:
        return np.ones(scores.shape, bool)
    border = np.partition(scores, count - 1)[count - 1]
    kept, ties = scores > border, np.flatnonzero(scores == border)
    going = count - int((scores < border).sum())
    kept[ties] = True
    kept[ties[np.arange(going) * len(ties) // going]] = False
    return kept


def _sparse(path: str, leaf: Array, values: Any, kept: np.ndarray, sparsity: float) -> Sparse:
    if not kept.any():
        raise InputError(f"{path}: none of its {kept.size} weights would be left; lower sparsity={sparsity}")
    positions = jnp.asarray(np.flatnonzero(kept), jnp.int32)
    weight = Sparse(jnp.asarray(np.asarray(values).ravel()[kept], leaf.dtype), positions, leaf.shape, leaf.dtype.name)
    if weight.nbytes > leaf.nbytes:
        warn_larger(path, weight.nbytes, leaf.nbytes)
    return weight


def _grouped(
    path: str, leaf: Array, scores: np.ndarray, pattern: tuple[int, int], axis: int | None, problem: Problem | None
) -> Any:
    n, m = pattern
    inputs = 0 if axis is None else leaf.shape[axis]
    if axis is None or inputs % m or not inputs:
        leave_alone(path, f"{inputs} input channels, expected a multiple of {m}")
        return leaf
    place = axis % leaf.ndim
    shape = (*leaf.shape[:place], inputs // m, m, *leaf.shape[place + 1 :])

    def first(scores: np.ndarray, count: int) -> np.ndarray:
        order = np.argsort(-scores.reshape(shape), axis=axis, kind="stable")
        return np.sort(order.take(range(count), axis), axis=axis)

    def largest(scores: np.ndarray, count: int) -> np.ndarray:
        kept = np.zeros(shape, bool)
        np.put_along_axis(kept, first(scores, count), True, axis)
        return kept.reshape(scores.shape)

    values: Any = np.asarray(leaf)
    if problem is not None:
        counts = [m - (m - n) * turn // ROUNDS for turn in range(1, ROUNDS + 1)]
        there, values = compensated(problem, leaf, list(dict.fromkeys(counts)), largest)
        scores = there.astype(np.float32)
    positions = first(scores, n)
    values = jnp.asarray(np.take_along_axis(values.reshape(shape), positions, axis=axis), leaf.dtype)
    stored = packed(jnp.asarray(positions.astype(np.uint8)), max((m - 1).bit_length(), 1))
    return SparseGroups(values, stored, m, axis, leaf.dtype.name)
