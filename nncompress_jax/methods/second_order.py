"""Weights of which little is left, whose outputs stay closest: errors of single entries are made up for by the others.

The loss of a row w of a weight is quadratic in what becomes of it, (q - w) H (q - w)^T, with H the Gram matrix of its
inputs. Column after column an entry becomes what it may; what that changes is spread over the columns behind it, as the
Cholesky factor of the inverse of H says.

Source: Hassibi and Stork 1993, "Second order derivatives for network pruning: Optimal Brain Surgeon"; Frantar and
Alistarh 2022, "Optimal Brain Compression"; Frantar et al. 2023, "GPTQ", algorithm 1.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax import lax

from nncompress_jax.types import Array

BLOCK = 128
"""Columns whose errors reach the others at once."""

DAMPING = 0.01
"""Of the mean of H's diagonal, added to it."""

Choose = Callable[[Array, Any], Array]
"""Of a column [G, R] and the parts that belong to it, what its entries become."""


def damped(squares: np.ndarray, damping: float = DAMPING) -> np.ndarray:
    """H with a multiple of the identity added, so much that it has a Cholesky factor.

    Args:
      squares: [G, n, n] float64, symmetric.
      damping: of the mean of each diagonal, at least.
    """
    size = squares.shape[-1]
    mean = np.trace(squares, axis1=1, axis2=2) / size
    mean = np.where(mean > 0, mean, 1.0)
    return squares + (damping * mean)[:, None, None] * np.eye(size)


def inverse_factor(squares: np.ndarray) -> np.ndarray:
    """[G, n, n] float64, upper triangles U with U^T U = H^-1.

    H is taken with its rows and columns reversed, so that one factorization and one inverse of a triangle do.

    Example:
      >>> factor = inverse_factor(np.array([[[2.0, 1.0], [1.0, 2.0]]]))
      >>> np.round(factor[0].T @ factor[0] @ [[2, 1], [1, 2]], 6).tolist()
      [[1.0, 0.0], [0.0, 1.0]]
    """
    lower = np.linalg.cholesky(squares[:, ::-1, ::-1])
    if len(lower) > 8:
        inverse = np.linalg.inv(lower)
    else:
        inverse = np.stack([scipy.linalg.lapack.dtrtri(each, lower=1)[0] for each in lower])
    return np.ascontiguousarray(inverse[:, ::-1, ::-1])


@functools.partial(jax.jit, static_argnums=3)
def spread(weights: Array, factor: Array, parts: Any, choose: Choose) -> Array:
    """What becomes of weights, column by column.

    Args:
      weights: [G, R, n] float32, the closest ones without any constraint.
      factor: [G, n, n] float32, of `inverse_factor`.
      parts: a tree of arrays [G, R or 1, n], from which `choose` is given its column, [G, R or 1].
      choose: of a column and its parts.

    Returns:
      [G, R, n].
    """
    size = weights.shape[-1]
    block = min(BLOCK, size)
    pad = -size % block
    weights = jnp.pad(weights, ((0, 0), (0, 0), (0, pad)))
    parts = jax.tree.map(lambda part: jnp.pad(part, ((0, 0), (0, 0), (0, pad)), mode="edge"), parts)
    factor = jnp.pad(factor, ((0, 0), (0, pad), (0, pad))) + jnp.diag(jnp.arange(size + pad) >= size)

    def blocks(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        weights, chosen = carry
        start = i * block

        def cut(x: Array) -> Array:
            return lax.dynamic_slice_in_dim(x, start, block, 2)

        rows = lax.dynamic_slice_in_dim(factor, start, block, 1)
        triangle, own = cut(rows), jax.tree.map(cut, parts)

        def column(current: Array, j: Array) -> tuple[Array, tuple[Array, Array]]:
            def at(x: Array) -> Array:
                return lax.dynamic_index_in_dim(x, j, 2, keepdims=False)

            value, row = at(current), lax.dynamic_index_in_dim(triangle, j, 1, keepdims=False)
            result = choose(value, jax.tree.map(at, own))
            error = (value - result) / lax.dynamic_index_in_dim(row, j, 1)
            return current - error[:, :, None] * row[:, None, :], (result, error)

        _, (results, errors) = lax.scan(column, cut(weights), jnp.arange(block))
        results, errors = (jnp.moveaxis(x, 0, 2) for x in (results, errors))
        chosen = lax.dynamic_update_slice_in_dim(chosen, results, start, 2)
        return weights - jnp.matmul(errors, rows, precision="highest"), chosen

    _, chosen = lax.fori_loop(0, (size + pad) // block, blocks, (weights, jnp.zeros_like(weights)))
    return chosen[:, :, :size]


def losses(weights: Array, chosen: Array, squares: Array) -> Array:
    """[G, R]: sum of squared errors of each output."""
    error = weights - chosen
    return jnp.sum(jnp.matmul(error, squares, precision="highest") * error, -1)
