"""Low rank: a weight as a chain of smaller ones."""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax.errors import InputError
from nncompress_jax.inputs import arguments
from nncompress_jax.methods.closest_factors import Factors, closest_factors
from nncompress_jax.methods.in_sequence import replaced_in_sequence
from nncompress_jax.methods.layout import use_of
from nncompress_jax.methods.second_order import Problem
from nncompress_jax.methods.selection import leave_alone, replaced
from nncompress_jax.tracing.injection import visits
from nncompress_jax.tracing.roles import Use
from nncompress_jax.tree import Where, named_leaves
from nncompress_jax.types import Array, Context, Method
from nncompress_jax.weights.base import is_compressed
from nncompress_jax.weights.low_rank import LowRank

Kind = Literal["spatial", "tucker", "cp"]
ITERATIONS = 100
"""Of alternating least squares, for the canonical polyadic decomposition."""


def factorize(
    *,
    rank: int | None = None,
    energy: float | None = None,
    macs: float | None = None,
    kind: Kind = "spatial",
    where: Where = None,
    most_error: float | None = None,
    compensate: bool = False,
) -> Method:
    """Weights as products of factors of low rank (`LowRank`), the nearest in the sum of squares as a rule.

    Matrices [I, O] and kernels over single pixels become two factors, by their singular values. Larger kernels become
    a chain of the `kind`. Depthwise kernels, weights of other axes, of zeros alone, and those whose chain would take
    more multiply-accumulates than they do, are left as they are, with a warning. With `apply` and `batches` the program
    says what the chain takes, wherever it would have to be multiplied out as well.

    Args:
      rank: of every weight; of a Tucker-2 decomposition both ranks, as far as there are channels.
      energy: instead, the least rank that keeps this share of the squared singular values (for "tucker" on both sides).
      macs: instead, the largest rank whose chain takes this share of the weight's multiply-accumulates at most.
      kind: "spatial": [H, 1, I, R] [1, W, R, O], the best pair in closed form; "tucker": [1, 1, I, R] [H, W, R, S]
        [1, 1, S, O], by higher-order singular values; "cp": [1, 1, I, R] [H, 1, 1, R] [1, W, 1, R] [1, 1, R, O],
        by alternating least squares (tensorly), which needs rank or macs. Kernels of one spatial axis, or three,
        become Tucker-2 where "spatial" is asked for.
      where: which leaves, as in `quantize`.
      most_error: a weight whose relative error (norm of the difference over norm) would be more is left as it is.
      compensate: factors whose outputs are nearest to those of the network as it was, weight after weight in the order
        of the program, instead of factors whose product is nearest to the weight; energy is then that of the outputs.
        This needs `apply` and `batches`, a thousand examples or so.

    Returns:
      A method for `compress` and `chain`.

    Raises:
      InputError: for numbers that cannot be; (when applied) for leaves that are compressed, not float, or not finite,
        and for a rank above the full one, with the leaf's path.

    Example:
      >>> from nncompress_jax.types import Context
      >>> small = factorize(rank=1)({"kernel": jnp.outer(jnp.arange(1.0, 9.0), jnp.ones(8))}, Context())["kernel"]
      >>> [factor.shape for factor in small.factors], round(small.materialise()[7, 0].item(), 4)
      ([(8, 1), (1, 8)], 8.0)

    Source: spatial pair: Tai et al. 2016, "Convolutional Neural Networks with Low-rank Regularization", section 3.1;
    Tucker-2: Kim et al. 2016, "Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile
    Applications", section 3.1; CP: Lebedev et al. 2015.
    """
    if sum(choice is not None for choice in (rank, energy, macs)) != 1:
        raise InputError("factorize takes one of rank=, energy= and macs=")
    for name, share in (("energy", energy), ("macs", macs)):
        if share is not None and not 0 < share <= 1:
            raise InputError(f"{name}={share}: expected a share, more than 0 and at most 1")
    if rank is not None and rank < 1:
        raise InputError(f"rank={rank}: expected at least 1")
    if kind not in ("spatial", "tucker", "cp"):
        raise InputError(f"kind={kind!r}: expected 'spatial', 'tucker' or 'cp'")
    if kind == "cp" and energy is not None:
        raise InputError("kind='cp' has no singular values to take energy= of; give rank= or macs=")

    def make(path: str, leaf: Array, use: Use, problem: Problem | None) -> Any:
        if reason := _unfit(leaf, use, named=where is not None):
            leave_alone(path, reason)
            return leaf
        kernel = np.asarray(leaf, np.float32)
        decomposition = _decomposition(kernel, kind)

        def decompose(kernel: np.ndarray) -> Factors:
            return decomposition(path, kernel, rank, energy, macs)

        if problem is None or len(problem.places) > 1:
            factors = decompose(kernel)
        else:
            pair, turned = decomposition in (_pair, _spatial), use.roles == ("output", "input")
            factors = closest_factors(problem, kernel, decompose, pair=pair, turned=turned)
        cost = sum(factor.size for factor in factors)
        if cost >= kernel.size:
            leave_alone(path, f"its chain would take {cost / kernel.size:.2f} times the multiply-accumulates")
            return leaf
        weight = LowRank(tuple(jnp.asarray(factor, leaf.dtype) for factor in factors), leaf.dtype.name)
        error = np.linalg.norm(np.asarray(weight.materialise(), np.float32) - kernel) / np.linalg.norm(kernel)
        if most_error is not None and error > most_error:
            leave_alone(path, f"a relative error of {error:.3f}, expected at most most_error={most_error}")
            return leaf
        return weight

    def method(variables: Any, context: Context) -> Any:
        def make_here(path: str, leaf: Array, problem: Problem | None = None) -> Any:
            return make(path, leaf, use_of(path, leaf, context), problem)

        change = replaced_in_sequence if compensate else replaced
        return _cheaper(variables, change(variables, where, make_here, makes=LowRank, context=context), context)

    return method


def _unfit(leaf: Array, use: Use, *, named: bool) -> str:
    """Why it has no factors, in words; a table that is looked up has some where it was asked for."""
    if leaf.ndim < 2:
        return "a vector"
    if use.operation == "look-up":
        return "" if named and leaf.ndim == 2 else "rows of it are looked up, which takes no multiplications now"
    if use.operation in ("depthwise convolution", "grouped convolution"):
        return f"of a {use.operation}"
    if not use.operation and leaf.shape[-2] == 1:
        return "one input channel, as depthwise kernels have; apply= and batches= would tell"
    one = [axis for axis, size in enumerate(leaf.shape) if size == 1]
    wanted = ("window",) * (leaf.ndim - 2) + ("input", "output")
    if any(role != here for axis, (role, here) in enumerate(zip(wanted, use.roles, strict=True)) if axis not in one):
        transposed = leaf.ndim == 2 and use.roles == ("output", "input")
        return "" if transposed else f"its axes are {', '.join(use.roles)}, expected {', '.join(wanted)}"
    return "" if np.any(np.asarray(leaf)) else "all of it is zero"


def _cheaper(variables: Any, factorized: Any, context: Context) -> Any:
    """Without the chains that take more multiply-accumulates in the program than the weights did."""
    if context.apply is None or not context.batches:
        return factorized
    before, after = (_macs(context, tree) for tree in (variables, factorized))
    old, new = (named_leaves(tree, is_compressed) for tree in (variables, factorized))
    leaves = []
    for (path, leaf), (_, weight) in zip(old, new, strict=True):
        dearer = weight is not leaf and after.get(path, 0) > before.get(path, 0) > 0
        if dearer:
            leave_alone(path, f"its chain would take {after[path] / before[path]:.2f} times the multiply-accumulates")
        leaves.append(leaf if dearer else weight)
    return jax.tree.unflatten(jax.tree.structure(variables, is_leaf=is_compressed), leaves)


def _macs(context: Context, variables: Any) -> dict[str, int]:
    """Of each weight, over a whole batch, by path."""
    assert context.apply is not None
    macs: dict[str, int] = {}
    for visit in visits(context.apply, variables, *arguments(context.batches[0])):
        for path in dict.fromkeys(filter(None, visit.sources[:2])) if visit.product else ():
            assert visit.product is not None
            macs[path] = macs.get(path, 0) + visit.product.macs * visit.repeats
    return macs


def _decomposition(kernel: np.ndarray, kind: Kind) -> Callable[..., Factors]:
    if math.prod(kernel.shape[:-2]) == 1:
        return _pair
    if kind == "spatial" and kernel.ndim == 4:
        return _spatial
    return _polyadic if kind == "cp" else _tucker


def _pair(path: str, kernel: np.ndarray, rank: int | None, energy: float | None, macs: float | None) -> Factors:
    """[..., I, O] -> [..., I, R] [..., R, O], all other sizes 1."""
    *ones, inputs, outputs = kernel.shape
    left, right = _svd(path, kernel.reshape(inputs, outputs), rank, energy, macs, inputs * outputs)
    return [left.reshape(*ones, inputs, -1), right.reshape(*ones, -1, outputs)]


def _spatial(path: str, kernel: np.ndarray, rank: int | None, energy: float | None, macs: float | None) -> Factors:
    """[H, W, I, O] -> [H, 1, I, R] [1, W, R, O]."""
    height, width, inputs, outputs = kernel.shape
    matrix = kernel.transpose(0, 2, 1, 3).reshape(height * inputs, width * outputs)
    left, right = _svd(path, matrix, rank, energy, macs, kernel.size)
    right = right.reshape(-1, 1, width, outputs).transpose(1, 2, 0, 3)
    return [left.reshape(height, 1, inputs, -1), right]


def _svd(
    path: str, matrix: np.ndarray, rank: int | None, energy: float | None, macs: float | None, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best factors of a rank, each with the root of the singular values; `size` is the whole weight's."""
    full = min(matrix.shape)
    _check_rank(path, rank, full)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    if energy is not None:
        rank = _rank_of(values**2, energy)
    elif macs is not None:
        rank = min(full, max(1, int(macs * size / sum(matrix.shape))))
    roots = np.sqrt(values[:rank])
    return left[:, :rank] * roots, roots[:, None] * right[:rank]


def _tucker(path: str, kernel: np.ndarray, rank: int | None, energy: float | None, macs: float | None) -> Factors:
    """[..., I, O] -> [1, I, R] [..., R, S] [1, S, O], with bases of the channels from their own covariances."""
    *spatial, inputs, outputs = kernel.shape
    _check_rank(path, rank, max(inputs, outputs))
    bases = []
    for axis in (-2, -1):
        unfolded = np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)
        values, vectors = np.linalg.eigh(unfolded @ unfolded.T)
        bases.append((np.maximum(values[::-1], 0), vectors[:, ::-1]))

    def cost(share: float) -> int:
        first, second = (max(1, int(share * size)) for size in (inputs, outputs))
        return inputs * first + math.prod(spatial) * first * second + second * outputs

    if rank is not None:
        ranks = [min(rank, inputs), min(rank, outputs)]
    elif energy is not None:
        ranks = [_rank_of(values, energy) for values, _ in bases]
    else:
        assert macs is not None
        shares = np.linspace(0, 1, 1025)
        share = max((s for s in shares if cost(s) <= macs * kernel.size), default=0.0)
        ranks = [max(1, int(share * size)) for size in (inputs, outputs)]
    first, second = (vectors[:, :count] for (_, vectors), count in zip(bases, ranks, strict=True))
    core = np.einsum("...io,ir,os->...rs", kernel, first, second)
    ones = (1,) * len(spatial)
    return [first.reshape(*ones, *first.shape), core, second.T.reshape(*ones, *second.T.shape)]


def _polyadic(path: str, kernel: np.ndarray, rank: int | None, _: float | None, macs: float | None) -> Factors:
    """[H, W, I, O] -> [1, 1, I, R] [H, 1, 1, R] [1, W, 1, R] [1, 1, R, O], for any number of spatial axes."""
    from tensorly.decomposition import parafac

    *spatial, inputs, outputs = kernel.shape
    full = kernel.size // max(kernel.shape)
    _check_rank(path, rank, full)
    if macs is not None:
        rank = min(full, max(1, int(macs * kernel.size / sum(kernel.shape))))
    weights, parts = parafac(kernel, rank, n_iter_max=ITERATIONS, init="random", random_state=0)
    *along, of_inputs, of_outputs = parts
    count, ones = of_inputs.shape[1], (1,) * len(spatial)
    factors = [(of_inputs * weights).reshape(*ones, inputs, count)]
    for axis, part in enumerate(along):
        shape = [size if place == axis else 1 for place, size in enumerate(spatial)]
        factors.append(part.reshape(*shape, 1, count))
    return [*factors, of_outputs.T.reshape(*ones, count, outputs)]


def _rank_of(energies: np.ndarray, share: float) -> int:
    """How many of the largest energies make up this share of all."""
    return min(len(energies), int(np.searchsorted(np.cumsum(energies), share * energies.sum() * (1 - 1e-6))) + 1)


def _check_rank(path: str, rank: int | None, full: int) -> None:
    if rank is not None and rank > full:
        raise InputError(f"{path}: rank={rank} is above the full rank, {full}; lower it, or choose with where=")
