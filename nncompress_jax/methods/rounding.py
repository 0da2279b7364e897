"""Codes and values of a few, rounded so that outputs stay closest."""

from collections.abc import Sequence
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from nncompress_jax.errors import InputError
from nncompress_jax.methods.second_order import Choose, Problem
from nncompress_jax.types import Array

Rounding = Literal["nearest", "second_order"]
"""What a value becomes: the nearest, or the one with which outputs stay closest on `batches`."""

FACTORS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
"""Of scales that are tried: with few bits a finer scale is worth the values that it clips."""


def check_rounding(rounding: str) -> None:
    """Raises InputError for another word."""
    if rounding not in ("nearest", "second_order"):
        raise InputError(f"rounding={rounding!r}: expected 'nearest' or 'second_order'")


def closest_codes(
    problem: Problem,
    leaf: Array,
    scale: Array,
    zero_point: Array | None,
    bits: int,
    *,
    factors: tuple[float, ...] = FACTORS,
    choose: Choose | None = None,
) -> tuple[Array, Array]:
    """Codes whose outputs are closest, for the best of several scales of each output.

    Args:
      problem: of the leaf.
      leaf: float array, whose entries that multiply nothing are rounded to nearest.
      scale: float32, that broadcasts to the leaf, or has a divisor of its sizes: neighbours share it.
      zero_point: as the scale; None: codes are symmetric.
      bits: of the codes.
      factors: of the scale, from which each output takes one; outputs that share a scale, one together.
      choose: of `spread`, with parts (scale, zero point) and the least and largest code; by default `nearest`.

    Returns:
      Codes of the leaf's shape, int8, and the scale.
    """
    highest = 2 ** (bits - 1) - 1
    bounds = (float(-highest if zero_point is None else -highest - 1), float(highest))
    numbers = problem.columns(_repeated(np.arange(scale.size).reshape(scale.shape), leaf.shape))
    steps = np.asarray(scale, np.float32).ravel()
    zeros = np.zeros(scale.size, np.float32) if zero_point is None else np.asarray(zero_point, np.float32).ravel()
    owners = np.where(problem.there, numbers, scale.size - 1).min(-1)  # the first scale of each output
    least, chosen = np.full(scale.size, np.inf), np.zeros(scale.size, np.float32)
    best = np.zeros(problem.places.shape, np.float32)
    for factor in factors:
        values = problem.rounded(
            choose or nearest, (jnp.asarray(steps[numbers] * factor), jnp.asarray(zeros[numbers])), bounds
        )
        losses = np.bincount(owners.ravel(), np.asarray(problem.losses(values)).ravel(), scale.size)
        better = losses < least
        least, chosen = np.where(better, losses, least), np.where(better, np.float32(factor), chosen)
        best = np.where(better[owners][..., None], np.asarray(values), best)
    own = np.ones(scale.size, np.float32)
    own[numbers[problem.there]] = np.broadcast_to(chosen[owners][..., None], numbers.shape)[problem.there]
    steps = steps * own
    divisors, offsets = (_repeated(parts.reshape(scale.shape), leaf.shape) for parts in (steps, zeros))
    codes = np.clip(np.rint(problem.entries(best, leaf) / divisors) + offsets, *bounds)
    return jnp.asarray(codes.astype(np.int8)), jnp.asarray(steps.reshape(scale.shape))


def cheapest_codes(problem: Problem, leaf: Array, scale: Array, bits: int, price: float) -> Array:
    """Codes of a given step whose outputs are close, and which take few bits once they are entropy-coded.

    Errors that are spread make weights larger, and their codes rarer; what is not worth its bits becomes a step less,
    or zero.

    Args:
      problem: of the leaf.
      leaf: float array, whose entries that multiply nothing are rounded to nearest.
      scale: float32, that broadcasts to the leaf.
      bits: of the codes; they are symmetric.
      price: of a bit, in squared steps; the bits of a code follow from how often it is the nearest.

    Returns:
      Codes of the leaf's shape, int8.

    Source: Chou et al. 1989, "Entropy-constrained vector quantization", for the price.
    """
    highest = 2 ** (bits - 1) - 1
    steps = problem.columns(scale)
    whole = np.clip(np.rint(np.asarray(problem.target) / steps), -highest, highest)[problem.there].astype(int)
    counts = np.bincount(whole + highest, minlength=2 * highest + 1) + 1
    prices = price * np.log2(counts.sum() / counts)
    matters = 1 / np.square(np.diagonal(problem.factor, axis1=1, axis2=2))[:, None]
    parts = [jnp.asarray(part, jnp.float32) for part in (steps, matters / matters.mean())]
    values = problem.rounded(cheapest, parts, jnp.asarray(prices, jnp.float32))
    codes = np.clip(np.rint(problem.entries(values, leaf) / np.asarray(scale)), -highest, highest)
    return jnp.asarray(codes.astype(np.int8))


def closest_places(
    problem: Problem, places: np.ndarray, codebooks: np.ndarray, *, fixed: np.ndarray | None = None
) -> np.ndarray:
    """Values of codebooks whose outputs are closest, as places in the codebook.

    Args:
      problem: of the weight.
      places: uint8, of the weight's shape: of the nearest values; what multiplies nothing keeps them.
      codebooks: [1, K] float32, or [O, K]: one for each place along the last axis.
      fixed: which entries keep their values.
    """
    books = problem.columns(np.arange(places.shape[-1]) % len(codebooks))
    before = problem.columns(places)
    keeps = problem.columns(False if fixed is None else fixed)
    parts = [jnp.asarray(part) for part in (books, before, keeps)]
    values = np.asarray(problem.rounded(nearest_of, parts, jnp.asarray(codebooks)))
    found = np.abs(codebooks[books] - values[..., None]).argmin(-1)
    return problem.entries(found, places).astype(np.uint8)


def nearest(column: Array, parts: tuple[Array, Array], bounds: tuple[Any, Any]) -> Array:
    """The nearest value that a code has."""
    scale, zero_point = parts
    return (jnp.clip(jnp.round(column / scale) + zero_point, *bounds) - zero_point) * scale


def cheapest(column: Array, parts: Sequence[Array], prices: Array) -> Array:
    """The nearest value, the one beside it towards zero, or zero: by squared error, as it matters, and price."""
    step, matters = parts
    highest = prices.shape[0] // 2
    whole = column / step
    near = jnp.clip(jnp.round(whole), -highest, highest)
    choices = jnp.stack([near, near - jnp.sign(near), jnp.zeros_like(near)])
    costs = matters * jnp.square(whole - choices) + prices[choices.astype(jnp.int32) + highest]
    return jnp.take_along_axis(choices, jnp.argmin(costs, 0)[None], 0)[0] * step


def nearest_sign(column: Array, parts: tuple[Array, Array], bounds: tuple[Any, Any]) -> Array:
    """A scale, or its negative."""
    scale, _ = parts
    return jnp.where(column >= 0, scale, -scale)


def nearest_of(column: Array, parts: Sequence[Array], codebooks: Array) -> Array:
    """The nearest value of its codebook, or the one that it keeps."""
    book, before, keeps = parts
    values = codebooks[book]
    place = jnp.where(keeps, before, jnp.argmin(jnp.abs(values - column[..., None]), -1))
    return jnp.take_along_axis(values, place[..., None], -1)[..., 0]


def _repeated(parts: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Entries that neighbours share, for each of them."""
    for axis, size in enumerate(shape):
        parts = parts.repeat(size // parts.shape[axis], axis)
    return parts
