"""Factors of a weight, of which not the product but its outputs stay closest."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import scipy.linalg

from nncompress_jax.methods.second_order import Problem
from nncompress_jax.weights.low_rank import LowRank

Factors = list[np.ndarray]

RIDGE = 1e-6
"""Of the mean of a diagonal, added to it before the last factor is solved for."""


def closest_factors(
    problem: Problem, kernel: np.ndarray, decompose: Callable[[np.ndarray], Factors], *, pair: bool, turned: bool
) -> Factors:
    """Factors of a kernel [..., I, O], or of a matrix [O, I] that is `turned`.

    With X the inputs and R^T R = X^T X, the singular values of R W are those of its outputs: their largest make the
    best pair [I, K] [K, O]. For a pair of kernels [H, 1, I, K] [1, W, K, O], X^T X is the mean over places along W, and
    the second is then solved for; so is the last factor of every other chain.

    Args:
      problem: of the kernel.
      kernel: what stands in no column of the problem is its.
      decompose: of a kernel, its factors.
      pair: whether they are two, of matrices [H I, W O].
      turned: whether the kernel is [O, I].
    """
    target = problem.entries(problem.target, kernel)
    target = target.T if turned else target
    squares = _squares(problem, turned=turned)
    if pair:
        *window, inputs, outputs = target.shape
        height, width = window if len(window) == 2 else (1, 1)
        blocks = squares.reshape(height, width, inputs, height, width, inputs)
        root = np.linalg.cholesky(np.einsum("hwigwj->higj", blocks).reshape(height * inputs, -1) / width).T
        matrix = target.reshape(height, width, inputs, outputs).transpose(0, 2, 1, 3).reshape(height * inputs, -1)
        white = (root @ matrix).reshape(height, inputs, width, outputs).transpose(0, 2, 1, 3)
        first, last = decompose(white.reshape(target.shape))
        factors = [scipy.linalg.solve_triangular(root, first.reshape(len(root), -1)).reshape(first.shape), last]
    else:
        factors = decompose(target)
    factors = [*factors[:-1], _last(factors, squares, target)]
    return [factor.T for factor in reversed(factors)] if turned else factors


def _squares(problem: Problem, *, turned: bool) -> np.ndarray:
    """[n, n] H in the order of the weight's own axes."""
    entries = np.arange(np.prod(problem.shape)).reshape(problem.shape)
    entries = entries.T if turned else entries.reshape(-1, problem.shape[-1])
    rows = np.empty(entries.size, int)
    rows[entries] = np.arange(len(entries))[:, None]
    order = np.argsort(rows[problem.places[0, 0]])
    return np.asarray(problem.squares[0], np.float64)[order][:, order]


def _last(factors: Factors, squares: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The last factor with which outputs are closest, as the others are."""
    last = factors[-1]
    count = last[..., 0].size
    each = np.eye(count).reshape(*last.shape[:-1], count)
    chain = LowRank(tuple(jnp.asarray(factor, jnp.float32) for factor in (*factors[:-1], each)))
    features = np.asarray(chain.materialise(), np.float64).reshape(-1, count)
    gram = features.T @ squares @ features
    gram += RIDGE * np.trace(gram) / count * np.eye(count)
    wanted = features.T @ squares @ target.reshape(len(features), -1)
    return np.linalg.solve(gram, wanted).reshape(last.shape)
