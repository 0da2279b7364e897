"""How many more examples a compressed network gets wrong than the network that it was made of, and how sure that is."""

import dataclasses
import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np

from nncompress_jax import losses
from nncompress_jax.errors import InputError
from nncompress_jax.inputs import arguments, compiled, examples_in, pieces
from nncompress_jax.tracing.injection import inject
from nncompress_jax.types import Apply

Measure = Callable[[Any], Any]
"""variables -> [N], for each example of a fixed set whether the network is right."""

CONFIDENCE = 0.95
"""Of the bounds, each on its own side."""

BATCH = 250


@dataclasses.dataclass(frozen=True)
class Drop:
    """The share of examples that are lost, as a fraction.

    Attributes:
      mean: measured.
      least: which the true one exceeds with a confidence of 95 %.
      most: which it stays below, likewise.
      examples: that were measured.
    """

    mean: float
    least: float
    most: float
    examples: int


def paired(before: Any, after: Any) -> Drop:
    """The drop of accuracy between two networks on the same examples.

    Args:
      before: [N], whether the first network is right.
      after: [N], the second.

    Raises:
      InputError: for two that are not of the same examples.

    Example:
      >>> drop = paired([True] * 90 + [False] * 10, [True] * 87 + [False] * 13)
      >>> f"{drop.mean:.3f}, at most {drop.most:.3f}"
      '0.030, at most 0.061'

    Source: Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions": half an
    example is added to each of the four counts.
    """
    one, other = (np.asarray(flags).astype(bool) for flags in (before, after))
    if one.ndim != 1 or one.shape != other.shape or not one.size:
        raise InputError(
            f"measure gave {list(one.shape)} and {list(other.shape)}: expected one entry for each of the same examples"
        )
    lost, won, count = int((one & ~other).sum()), int((other & ~one).sum()), one.size
    n = count + 2
    centre, apart = (lost - won) / n, (lost + won + 1) / n
    width = NormalDist().inv_cdf(CONFIDENCE) * math.sqrt((apart - centre**2) / n)
    return Drop((lost - won) / count, centre - width, centre + width, count)


def measure_of(apply: Apply, inputs: Any, labels: Any) -> Measure:
    """Whether the largest output is the label, for each example.

    Args:
      apply: to logits [N, C], or a tuple of them, whose last counts.
      inputs: apply's further arguments as a tuple, or the only one, of all examples.
      labels: [N] classes.

    Raises:
      InputError: for labels that are not one number for each example.
    """
    given, count = arguments(inputs), examples_in(arguments(inputs))
    labels = np.asarray(labels)
    if labels.shape != (count,):
        raise InputError(f"labels {list(labels.shape)} for {count} examples; expected a class for each")

    def measure(variables: Any) -> np.ndarray:
        logits = compiled(inject(apply, fast=True), variables)
        found = [np.asarray(losses.last(logits(*batch))).argmax(-1) for _, batch in pieces(given, BATCH)]
        return np.concatenate(found) == labels

    return measure
