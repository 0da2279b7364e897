"""Weights of which little is left, whose outputs stay closest: errors of single entries are made up for by the others.

The loss of an output is quadratic in what becomes of its weights w: (q - w) H (q - w)^T, H the Gram matrix of their
inputs. Column after column an entry becomes what it may; what that changes is spread over the columns behind it, as the
Cholesky factor of the inverse of H says.

Source: Hassibi and Stork 1993, "Second order derivatives for network pruning: Optimal Brain Surgeon"; Frantar and
Alistarh 2022, "Optimal Brain Compression"; Frantar et al. 2023, "GPTQ", algorithm 1.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax import lax

from nncompress_jax.errors import InputError
from nncompress_jax.tracing.grams import Gram, permuted
from nncompress_jax.types import Array

BLOCK = 128
"""Columns whose errors reach the others at once."""

DAMPING = 0.01
"""Of the mean of H's diagonal, added to it; ten times as much, and so on, where it has no Cholesky factor yet."""

LEAST_ROWS = 1 / 8
"""Rows of data for each column, below which nothing is known of most directions."""

ITERATIONS = 20
"""Of conjugate gradients, at most as many as there are columns."""

Choose = Callable[[Array, Any, Any], Array]
"""Of a column [G, R], the parts that belong to it and constants, what its entries become."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """A weight as matrices whose outputs are to stay close, the columns that matter most first.

    Attributes:
      places: [G, R, n] int32: entry of the weight's flat array, -1 where none is.
      target: [G, R, n] float32: the closest outputs without any constraint; 0 where no entry is.
      squares: [G, n, n] float32: H, damped.
      factor: [G, n, n] float64, upper triangles U with U^T U = H^-1.
      met: [G, 1, n] bool: where inputs were ever other than zero.
      shape: of the weight.
    """

    places: np.ndarray
    target: Array
    squares: Array
    factor: np.ndarray
    met: np.ndarray
    shape: tuple[int, ...]

    @property
    def there(self) -> np.ndarray:
        """[G, R, n] bool: where the weight has entries."""
        return self.places >= 0

    @property
    def precisions(self) -> np.ndarray:
        """[G, 1, n]: what the square of one entry costs if the others make up for it, 1 / (H^-1)_jj."""
        return self.met / np.square(self.factor).sum(1)[:, None]

    def columns(self, entries: Any) -> np.ndarray:
        """[G, R, n] of what broadcasts to the weight; anything where no entry is."""
        return np.broadcast_to(np.asarray(entries), self.shape).ravel()[self.places]

    def entries(self, columns: Any, leaf: Any) -> np.ndarray:
        """Of the weight's shape, float32, of [G, R, n]; entries that stand in no column are the leaf's."""
        flat = np.array(leaf, np.float32).ravel()
        flat[self.places[self.there]] = np.asarray(columns)[self.there]
        return flat.reshape(self.shape)

    def rounded(self, choose: Choose, parts: Any, constants: Any = None) -> Array:
        """What becomes of it, [G, R, n], as of `spread`."""
        factor = jnp.asarray(self.factor, jnp.float32)
        return spread(self.target, factor, jnp.asarray(self.there), choose, parts, constants)

    def losses(self, chosen: Array) -> Array:
        """[G, R]: sum of squared errors of each output."""
        error = self.target - chosen
        return jnp.sum(jnp.matmul(error, self.squares, precision="highest") * error, -1)

    def fitted(self, kept: np.ndarray, start: Array | None = None) -> Array:
        """[G, R, n]: the closest outputs with entries only where they are kept; from a start that is near."""
        return least_squares(self.target, self.squares, jnp.asarray(kept & self.there, jnp.float32), start)


def problem_of(path: str, leaf: Any, gram: Gram) -> Problem:
    """What a second-order method solves for a weight.

    Args:
      path: for errors.
      leaf: the weight's float array, as it is in the reference network.
      gram: of its inputs; with `cross`, those of the reference network are what its outputs are made of there.

    Raises:
      InputError: for too few rows of data.
    """
    size = gram.squares.shape[-1]
    if gram.rows < LEAST_ROWS * size:
        raise InputError(
            f"{path}: its outputs are sums over {size} inputs, and the batches have {gram.rows} rows of them; "
            f"give {int(np.ceil(LEAST_ROWS * size))} at least, better {size} or more"
        )
    order = np.argsort(-np.diagonal(gram.squares, axis1=1, axis2=2), axis=-1, kind="stable")
    places = np.take_along_axis(gram.places, order[:, None], 2)
    squares = permuted(gram.squares, order)
    damping, factor = _factored(squares)
    weights = np.where(places >= 0, np.asarray(leaf, np.float64).ravel()[places], 0.0)
    target = weights
    if gram.cross is not None:
        outputs = np.matmul(weights, permuted(gram.cross, order).transpose(0, 2, 1)) + damping * weights
        target = np.matmul(np.matmul(outputs, factor.transpose(0, 2, 1)), factor)
    damped = squares + damping * np.eye(size)
    met = np.diagonal(squares, axis1=1, axis2=2)[:, None] > 0
    problem = Problem(
        places, jnp.asarray(target, jnp.float32), jnp.asarray(damped, jnp.float32), factor, met, leaf.shape
    )
    if problem.there.all():
        return problem
    return dataclasses.replace(problem, target=problem.fitted(problem.there))


def _factored(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[G, 1, 1] what is added to the diagonals, and the inverse factors of the sums."""
    size = squares.shape[-1]
    means = np.trace(squares, axis1=1, axis2=2)[:, None, None] / size
    means = np.where(means > 0, means, 1.0)
    damping = DAMPING
    while True:
        try:
            return damping * means, inverse_factor(squares + damping * means * np.eye(size))
        except np.linalg.LinAlgError:
            damping *= 10


def inverse_factor(squares: np.ndarray) -> np.ndarray:
    """[G, n, n] float64, upper triangles U with U^T U = H^-1.

    H is taken with its rows and columns reversed, so that one factorization and one inverse of a triangle do.

    Example:
      >>> factor = inverse_factor(np.array([[[2.0, 1.0], [1.0, 2.0]]]))
      >>> bool(np.allclose(factor[0].T @ factor[0] @ [[2, 1], [1, 2]], np.eye(2)))
      True
    """
    lower = np.linalg.cholesky(squares[:, ::-1, ::-1])
    if squares.shape[-1] < BLOCK:
        inverse = np.linalg.inv(lower)
    else:
        inverse = np.stack([scipy.linalg.lapack.dtrtri(each, lower=1)[0] for each in lower])
    return np.ascontiguousarray(inverse[:, ::-1, ::-1])


@functools.partial(jax.jit, static_argnums=3)
def spread(weights: Array, factor: Array, there: Array, choose: Choose, parts: Any, constants: Any = None) -> Array:
    """What becomes of weights, column by column.

    Args:
      weights: [G, R, n] float32, the closest ones without any constraint.
      factor: [G, n, n] float32, of `inverse_factor`.
      there: [G, R, n] bool: other entries become 0.
      choose: a function at the top of a module: each other one is compiled anew.
      parts: a tree of arrays [G, R or 1, n], of which `choose` is given its column, [G, R or 1].
      constants: a tree of arrays that it is given as they are.

    Returns:
      [G, R, n].
    """
    size = weights.shape[-1]
    block = min(BLOCK, size)
    pad = -size % block
    weights, there, parts = jax.tree.map(
        lambda part: jnp.pad(part, ((0, 0), (0, 0), (0, pad)), mode="edge"), (weights, there, parts)
    )
    factor = jnp.pad(factor, ((0, 0), (0, pad), (0, pad))) + jnp.diag((jnp.arange(size + pad) >= size) * 1.0)

    def blocks(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        weights, chosen = carry

        def cut(x: Array) -> Array:
            return lax.dynamic_slice_in_dim(x, i * block, block, 2)

        rows = lax.dynamic_slice_in_dim(factor, i * block, block, 1)
        triangle, own = cut(rows), jax.tree.map(cut, (there, parts))

        def column(current: Array, j: Array) -> tuple[Array, tuple[Array, Array]]:
            def at(x: Array) -> Array:
                return lax.dynamic_index_in_dim(x, j, 2, keepdims=False)

            value, row = at(current), lax.dynamic_index_in_dim(triangle, j, 1, keepdims=False)
            is_there, part = jax.tree.map(at, own)
            result = jnp.where(is_there, choose(value, part, constants), 0)
            error = (value - result) / lax.dynamic_index_in_dim(row, j, 1)
            return current - error[:, :, None] * row[:, None, :], (result, error)

        _, (results, errors) = lax.scan(column, cut(weights), jnp.arange(block))
        results, errors = (jnp.moveaxis(x, 0, 2) for x in (results, errors))
        chosen = lax.dynamic_update_slice_in_dim(chosen, results, i * block, 2)
        return weights - jnp.matmul(errors, rows, precision="highest"), chosen

    _, chosen = lax.fori_loop(0, (size + pad) // block, blocks, (weights, jnp.zeros_like(weights)))
    return chosen[:, :, :size]


@jax.jit
def least_squares(target: Array, squares: Array, kept: Array, start: Array | None = None) -> Array:
    """The least loss with entries only where they are kept, for all outputs at once, by conjugate gradients.

    Args:
      target: [G, R, n] float32.
      squares: [G, n, n] float32.
      kept: [G, R, n] float32, of 0 and 1.
      start: [G, R, n] float32, of the iterations; the target by default.

    Returns:
      [G, R, n].
    """
    diagonal = jnp.diagonal(squares, axis1=1, axis2=2)[:, None]

    def times(x: Array) -> Array:
        return jnp.matmul(x, squares, precision="highest") * kept

    def inner(x: Array, y: Array) -> Array:
        return jnp.sum(x * y, -1, keepdims=True)

    def ratio(x: Array, y: Array) -> Array:
        return jnp.where(y > 0, x / jnp.where(y > 0, y, 1), 0)

    def iteration(_: int, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        x, residual, direction, size = carry
        moved = times(direction)
        length = ratio(size, inner(direction, moved))
        x, residual = x + length * direction, residual - length * moved
        new = inner(residual, residual / diagonal)
        return x, residual, residual / diagonal + ratio(new, size) * direction, new

    start = (target if start is None else start) * kept
    residual = times(target - start)
    first = (start, residual, residual / diagonal, inner(residual, residual / diagonal))
    return lax.fori_loop(0, min(ITERATIONS, target.shape[-1]), iteration, first)[0]
