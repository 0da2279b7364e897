"""Weight sharing: every weight is one of a few values."""

from typing import Literal

import jax.numpy as jnp
import numpy as np

from nncompress_jax.errors import InputError
from nncompress_jax.methods.in_sequence import replaced_in_sequence
from nncompress_jax.methods.rounding import Rounding, check_rounding, closest_places
from nncompress_jax.methods.second_order import Problem
from nncompress_jax.methods.selection import replaced
from nncompress_jax.tree import Where
from nncompress_jax.types import Array, Method
from nncompress_jax.weights.clustered import Clustered
from nncompress_jax.weights.packed import packed

Start = Literal["linear", "density", "k-means++"]
ITERATIONS = 100
"""Of k-means, at most: it ends when no value changes its cluster."""


def cluster(
    *,
    bits: int = 4,
    where: Where = None,
    start: Start = "linear",
    by_channel: bool = False,
    keeps_zero: bool = False,
    seed: int = 0,
    rounding: Rounding = "nearest",
) -> Method:
    """Weights as codes of a codebook of 2^bits values, found by k-means.

    Args:
      bits: from 1 to 8 for each weight.
      where: which leaves, as in `quantize`; of `Sparse` weights the values, of `LowRank` ones the factors.
      start: of k-means: evenly spaced between the least and the largest, evenly spaced in rank, or k-means++.
      by_channel: a codebook for each output channel; else for each weight.
      keeps_zero: zero is one of the values, and weights that are zero stay so (for dense weights with zeros in them).
      seed: of k-means++.
      rounding: "nearest", or "second_order", as in `quantize`: of the values that k-means found.

    Returns:
      A method for `compress` and `chain`.

    Raises:
      InputError: for bits or a start that are not there; (when applied) for leaves that are compressed otherwise, not
        float, or not finite.

    Example:
      >>> from nncompress_jax.types import Context
      >>> small = cluster(bits=1)({"kernel": jnp.array([[1.0, 5.0], [2.0, 6.0]])}, Context())["kernel"]
      >>> small.codebook.tolist(), small.materialise().tolist()
      ([1.5, 5.5], [[1.5, 5.5], [1.5, 5.5]])

    Source: Han et al. 2016, "Deep Compression", section 3; k-means++: Arthur and Vassilvitskii 2007.
    """
    if bits not in range(1, 9):
        raise InputError(f"bits={bits}: expected from 1 to 8")
    if start not in ("linear", "density", "k-means++"):
        raise InputError(f"start={start!r}: expected 'linear', 'density' or 'k-means++'")

    check_rounding(rounding)

    def make(path: str, leaf: Array, problem: Problem | None = None) -> Clustered:
        values = np.asarray(leaf if problem is None else problem.entries(problem.target, leaf), np.float32)
        if problem is not None and keeps_zero:
            values = np.where(np.asarray(leaf) == 0, np.float32(0), values)
        apart = by_channel and values.ndim > 1
        columns = values.reshape(-1, values.shape[-1]).T if apart else values.reshape(1, -1)
        results = [k_means(column, 2**bits, start, keeps_zero=keeps_zero, seed=seed) for column in columns]
        codebooks, codes = (np.stack(parts) for parts in zip(*results, strict=True))
        codes = (codes.T if len(columns) > 1 else codes).reshape(values.shape)
        if problem is not None:
            codes = closest_places(problem, codes, codebooks, fixed=codes == 0 if keeps_zero else None)
        codebook = codebooks[0] if len(columns) == 1 else codebooks.T
        return Clustered(jnp.asarray(codebook), packed(jnp.asarray(codes), bits), leaf.dtype.name)

    change = replaced if rounding == "nearest" else replaced_in_sequence
    return lambda variables, context: change(variables, where, make, makes=Clustered, context=context)


def k_means(
    values: np.ndarray, count: int, start: Start = "linear", *, keeps_zero: bool = False, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Clusters numbers by Lloyd's algorithm, on sorted values and their running sums.

    Args:
      values: [n] float32.
      count: K, of clusters.
      start: as in `cluster`.
      keeps_zero: zero is one of the centers, and takes the zeros alone.
      seed: of k-means++.

    Returns:
      Centers [K] float32, ascending but for a zero, and for each value the place of its center, [n] uint8.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order].astype(np.float64)
    if keeps_zero:
        ordered = ordered[ordered != 0]
        count -= 1
    if not len(ordered):
        return np.zeros(count + keeps_zero, np.float32), np.zeros(values.shape, np.uint8)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centers = _first_centers(ordered, count, start, seed)
    edges = None
    for _ in range(ITERATIONS):
        middles = (centers[1:] + centers[:-1]) / 2
        new = np.concatenate([[0], np.searchsorted(ordered, middles), [len(ordered)]])
        if edges is not None and np.array_equal(new, edges):
            break
        edges = new
        members = np.diff(edges)
        means = np.diff(sums[edges]) / np.maximum(members, 1)
        centers = np.sort(np.where(members > 0, means, centers))
    centers = centers.astype(np.float32)
    codes = np.searchsorted((centers[1:] + centers[:-1]) / 2, values).astype(np.uint8)
    if not keeps_zero:
        return centers, codes
    codes = np.where(values == 0, np.uint8(0), codes + np.uint8(1))
    return np.concatenate([np.zeros(1, np.float32), centers]), codes


def _first_centers(ordered: np.ndarray, count: int, start: Start, seed: int) -> np.ndarray:
    if start == "linear":
        return np.linspace(ordered[0], ordered[-1], count)
    if start == "density":
        return np.quantile(ordered, (np.arange(count) + 0.5) / count)
    random = np.random.default_rng(seed)
    sample = ordered if len(ordered) <= 100_000 else random.choice(ordered, 100_000)
    centers = [random.choice(sample)]
    distances = (sample - centers[0]) ** 2
    for _ in range(count - 1):
        total = distances.sum()
        centers.append(random.choice(sample, p=distances / total) if total else centers[0])
        distances = np.minimum(distances, (sample - centers[-1]) ** 2)
    return np.sort(np.array(centers))
