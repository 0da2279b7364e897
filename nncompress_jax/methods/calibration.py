"""Static ranges of activations, from what enters each weight on calibration batches."""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from nncompress_jax.bars import tracked
from nncompress_jax.errors import InputError
from nncompress_jax.inputs import arguments, compiled, listed
from nncompress_jax.leaves import check_there
from nncompress_jax.ops.quantizer import scale_of_range
from nncompress_jax.tracing.injection import observe, visits
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Apply, Array

BINS = 2048
MOST_APART = 4.0
"""Magnitudes that one range serves: of 127 codes, the smaller one has a quarter."""

APART = "its inputs are of different magnitudes at different places: each example brings its own range"


class DynamicRange(UserWarning):
    """A weight that has no static range, and why."""


@dataclasses.dataclass(frozen=True)
class Histogram:
    """Magnitudes of what entered a weight.

    Attributes:
      counts: [BINS], of magnitudes from 0 to `edge` in bins of equal width.
      edge: upper end of the last bin.
      largest: magnitude; at most `edge`.
    """

    counts: np.ndarray
    edge: float
    largest: float

    @property
    def centers(self) -> np.ndarray:
        """[BINS], magnitudes."""
        return (np.arange(BINS) + 0.5) * self.edge / BINS


Rule = Callable[[Histogram], float]
"""Chooses a range: the largest magnitude that is not clipped."""


def abs_max(histogram: Histogram) -> float:
    """The largest magnitude seen: nothing that was seen is clipped."""
    return histogram.largest


def percentile(fraction: float) -> Rule:
    """The magnitude that a fraction of the entries stay below.

    Args:
      fraction: from 0 to 1, such as 0.9999.

    Raises:
      InputError: for a fraction outside of that.

    Example:
      >>> uniform = Histogram(np.ones(BINS), edge=1.0, largest=1.0)
      >>> percentile(0.5)(uniform)
      0.5
    """
    if not 0 < fraction <= 1:
        raise InputError(f"percentile {fraction}: expected a fraction above 0, at most 1")

    def rule(histogram: Histogram) -> float:
        reached = np.cumsum(histogram.counts) >= fraction * histogram.counts.sum()
        return min(float(np.argmax(reached) + 1) * histogram.edge / BINS, histogram.largest)

    return rule


def mean_squared_error(histogram: Histogram) -> float:
    """The range whose 8-bit codes are nearest, in the mean square, to the entries.

    Source: Sung et al. 2015, "Resiliency of Deep Neural Networks under Quantization", section 2 (L2 error).
    """
    ranges = histogram.largest * np.linspace(0.01, 1, 100)
    scales = scale_of_range(ranges)[:, None]
    codes = np.minimum(np.round(histogram.centers / scales), 127)
    errors = (codes * scales - histogram.centers) ** 2 @ histogram.counts
    return float(ranges[np.argmin(errors)])


def input_scales(
    apply: Apply, variables: Any, batches: Sequence[Any], paths: Sequence[str], rule: Rule
) -> dict[str, Array]:
    """Static scales for the inputs of weights.

    Args:
      apply: of (variables, *inputs).
      variables: dense.
      batches: of inputs, at least one; each a tuple of apply's further arguments, or the only one.
      paths: of the weights.
      rule: from the magnitudes of a weight's inputs to their range.

    Returns:
      float32 scalars by path, or [length] for a weight that `scan` walks along; without the weights that multiply no
      data in a convolution or dot product (an embedding table), and without those whose inputs differ by more than
      `MOST_APART` from place to place: a warning names them.

    Raises:
      InputError: naming every weight that no batch reached, or whose inputs are not finite; where apply takes other
        arguments.
    """
    if not batches:
        raise InputError("static ranges need batches=: a list of representative inputs for calibration")
    check_there(named_leaves(variables))
    inputs = [arguments(batch) for batch in listed(batches)]
    used = _used(apply, variables, inputs[0])

    by_place = _collected(apply, variables, inputs, lambda _, x: jnp.abs(x).max(), np.maximum)
    largest = _merged(by_place, np.maximum)
    unreached = sorted(set(paths) - largest.keys() - used)
    if unreached:
        raise InputError(
            f"no calibration batch reached {', '.join(unreached)}; leave out what does not run with where="
        )
    largest = {path: magnitude for path, magnitude in largest.items() if path in paths}
    broken = [path for path, magnitude in largest.items() if not np.isfinite(magnitude).all()]
    if broken:
        raise InputError(f"calibration: the inputs of {', '.join(broken)} hold NaN or infinite values")

    for path in _apart(by_place) & largest.keys():
        warnings.warn(f"{path}: {APART}", DynamicRange, stacklevel=5)
        del largest[path]
    edges = {path: float(magnitude.max()) or 1.0 for path, magnitude in largest.items()}

    def counts(path: str, x: Array) -> Array:
        places = jnp.minimum(jnp.abs(x) * (BINS / edges.get(path, 1.0)), BINS - 1)
        return jnp.zeros(BINS, jnp.int32).at[places.astype(jnp.int32)].add(1)

    histograms = _merged(_collected(apply, variables, inputs, counts, np.add), np.add)
    scales = {}
    for path, magnitude in largest.items():
        ranges = np.ones(magnitude.shape, np.float32)
        for index in np.ndindex(magnitude.shape):
            if magnitude[index]:  # what is always zero keeps a range of one
                ranges[index] = rule(Histogram(histograms[path][index], edges[path], float(magnitude[index])))
        scales[path] = jnp.asarray(scale_of_range(ranges), jnp.float32)
    return scales


def _collected(
    apply: Apply,
    variables: Any,
    inputs: Sequence[tuple[Any, ...]],
    statistic: Callable[[str, Array], Any],
    combine: np.ufunc,
) -> dict[tuple[str, int], np.ndarray]:
    """A statistic of all batches, by path and place; without the places that none reached."""
    run = observe(apply, statistic)
    program = compiled(lambda variables, *batch: run(variables, *batch)[1], variables)
    collected: dict[tuple[str, int], np.ndarray] = {}
    for batch in tracked(inputs, "calibrating"):
        for path, observations in program(*batch).items():
            for place, observation in enumerate(observations):
                if np.any(observation.reached):  # a place that was not reached holds zeros
                    value, key = np.asarray(observation.value, np.float64), (path, place)
                    collected[key] = combine(collected[key], value) if key in collected else value
    return collected


def _merged(collected: dict[tuple[str, int], np.ndarray], combine: np.ufunc) -> dict[str, np.ndarray]:
    """Of all places of a weight together."""
    merged: dict[str, np.ndarray] = {}
    for (path, _), value in collected.items():
        merged[path] = combine(merged[path], value) if path in merged else value
    return merged


def _apart(largest: dict[tuple[str, int], np.ndarray]) -> set[str]:
    """Weights that meet inputs of different magnitudes at different places, which no range serves."""
    least = _merged(largest, np.minimum)
    most = _merged(largest, np.maximum)
    return {path for path in most if ((most[path] > MOST_APART * least[path]) & (least[path] > 0)).any()}


def _used(apply: Apply, variables: Any, inputs: tuple[Any, ...]) -> set[str]:
    """Weights that enter the program, but multiply no data in it."""
    ran = visits(apply, variables, *inputs)
    entering = {source for visit in ran for source in visit.sources if source}
    return entering - {source for visit in ran if visit.product for source in visit.sources if source}
