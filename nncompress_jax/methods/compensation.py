"""Weights of which entries go, while those that stay make up for them."""

from collections.abc import Callable, Sequence

import numpy as np

from nncompress_jax.methods.second_order import Problem
from nncompress_jax.types import Array

ROUNDS = 4
"""In which entries go: what stays is fitted, and scored anew, between them."""


def shares(kept: float, rounds: int = ROUNDS) -> list[float]:
    """Of the entries, what stays after each round: the same part of what was there before it.

    Example:
      >>> shares(0.25, rounds=2)
      [0.5, 0.25]
    """
    return [kept ** (turn / rounds) for turn in range(1, rounds + 1)]


def compensated(
    problem: Problem, leaf: Array, counts: Sequence[int], choose: Callable[[np.ndarray, int], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """What stays of a weight, and what becomes of it.

    Args:
      problem: of the leaf.
      leaf: float array.
      counts: for `choose`, one for each round.
      choose: of scores of the leaf's shape, and a count, which entries stay, bool. A score is how much the sum of
        squared errors grows without the entry, if all others make up for it.

    Returns:
      Which entries stay, and their values, float32; both of the leaf's shape.

    Source: Hassibi and Stork 1993, "Second order derivatives for network pruning: Optimal Brain Surgeon".
    """
    values, nothing = problem.target, np.zeros(leaf.shape, np.float32)
    kept = np.ones(leaf.shape, bool)
    for count in counts:
        scores = problem.entries(np.square(np.asarray(values)) * problem.precisions, nothing)
        kept = choose(np.where(kept, scores, -1), count)
        values = problem.fitted(problem.columns(kept), values)
    return kept, problem.entries(values, nothing) * kept
