"""What each weight may become, what that takes in a file, and what it costs the network."""

import dataclasses
import functools
import warnings
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax import checksums
from nncompress_jax.artifact.size import stored_size
from nncompress_jax.bars import tracked
from nncompress_jax.inputs import arguments
from nncompress_jax.measurements import Measurements
from nncompress_jax.methods.in_sequence import replaced_in_sequence
from nncompress_jax.methods.quantize import quantize
from nncompress_jax.methods.rounding import Rounding, cheapest_codes
from nncompress_jax.methods.second_order import Problem
from nncompress_jax.methods.selection import LeftAlone, network, replaced
from nncompress_jax.search.reference import Reference
from nncompress_jax.search.stitching import PRICE
from nncompress_jax.table import Table
from nncompress_jax.tracing.fisher import Likelihood, fisher
from nncompress_jax.tree import Where
from nncompress_jax.types import Array, Context
from nncompress_jax.weights.quantized import Quantized

FORMATS = {"weight": "", "entries": ",", "step": ".3g", "bytes": ",", "bits_per_entry": ".3f", "loss": ".2e"}
"""bytes: in the file, of this weight alone. loss: as of `ladders`."""

RUNGS = 24
"""Steps of a weight that are tried: from a hundredth of the largest entry to one that leaves next to nothing."""

COARSER = 6
"""As many more in second-order rounding, where entries grow that make up for others."""


@dataclasses.dataclass(frozen=True)
class Ladder:
    """The steps of one weight, from fine to coarse.

    Attributes:
      path: of the weight, or of the part that is quantized.
      entries: of it.
      steps: between values.
      sizes: bytes in a file, at each step.
      losses: by which that of an example is predicted to grow, at each step.
      information: mean over entries, of Fisher.
    """

    path: str
    entries: int
    steps: tuple[float, ...]
    sizes: tuple[int, ...]
    losses: tuple[float, ...]
    information: float

    def weighed(self, power: float) -> list[float]:
        """Losses in which the mean information, by which this weight stands out, counts with a power from 0 to 1."""
        return [loss * max(self.information, 1e-30) ** (power - 1) for loss in self.losses]


def ladders(
    reference: Reference,
    where: Where,
    *,
    rounding: Rounding = "nearest",
    likelihood: Likelihood = "gaussian",
    measurements: Measurements | None = None,
) -> list[Ladder]:
    """Of every weight that `quantize` would take.

    The loss of a step is half the sum of squared errors of rounding to nearest, each times the Fisher information of
    its entry. After second-order rounding errors of neighbours make up for one another: there it is half the sum of
    squared errors of outputs on the reference's inputs, each times the information that an entry of its weights has for
    each square of what it multiplies.

    Args:
      reference: the network, dense, or compressed otherwise than by codes.
      where: as `quantize` has it.
      rounding: as of `quantize`.
      likelihood: as of `tracing.fisher.fisher`.
      measurements: of ladders that are known.

    Raises:
      InputError: as `quantize` does, and where apply or batches are missing.

    Source: Choi et al. 2017, "Towards the Limit of Network Quantization", section 3, for the loss; Martens and Grosse
    2015, "Optimizing Neural Networks with Kronecker-factored Approximate Curvature", for that of outputs.
    """
    leaves: dict[str, Array] = {}

    def take(path: str, leaf: Array) -> Array:
        leaves[path] = leaf
        return leaf

    variables, context = reference.variables, reference.context
    replaced(variables, where, take, makes=Quantized, context=context)
    apply, _ = network(context, "auto")

    @functools.cache
    def information() -> Mapping[str, np.ndarray]:
        return fisher(apply, variables, context.batches, likelihood=likelihood)

    measurements = measurements or Measurements(None)
    of_all = fingerprint(reference) | {"likelihood": likelihood, "rungs": [RUNGS, COARSER], "rounding": rounding}
    found: dict[str, Ladder] = {}

    def measure(path: str, leaf: Array, problem: Problem | None = None) -> Array:
        figures = measurements.of(of_all | {"weight": path}, lambda: _figures(leaf, information()[path], problem))
        steps, sizes, losses = (tuple(figures[name]) for name in ("steps", "sizes", "losses"))
        found[path] = Ladder(path, leaf.size, steps, sizes, losses, figures["information"])
        return leaf

    if rounding == "second_order" and not all(of_all | {"weight": path} in measurements for path in leaves):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LeftAlone)
            replaced_in_sequence(variables, where, measure, makes=Quantized, context=context)
    for path, leaf in tracked(leaves.items(), "steps of each weight"):
        measure(path, leaf)
    return [found[path] for path in leaves]


def tables(found: Sequence[Ladder], choice: Sequence[int], title: str) -> tuple[Table, Table]:
    """A row for each weight: its step, and why; and a row for each step that it could have got."""
    pairs = zip(found, choice, strict=True)
    taken = [rung == of_ladder for ladder, of_ladder in pairs for rung in range(len(ladder.steps))]
    rows = [{**row, "chosen": chosen} for row, chosen in zip(candidates(found, title).rows, taken, strict=True)]
    chosen = [{name: row[name] for name in FORMATS} for row in rows if row["chosen"]]
    return Table(title, FORMATS, chosen), Table(title, FORMATS | {"chosen": ""}, rows)


def candidates(found: Sequence[Ladder], title: str) -> Table:
    """A row for each step of each weight."""
    rows = [
        {
            "weight": ladder.path,
            "entries": ladder.entries,
            "step": step,
            "bytes": size,
            "bits_per_entry": 8 * size / max(ladder.entries, 1),
            "loss": loss,
        }
        for ladder in found
        for step, size, loss in zip(ladder.steps, ladder.sizes, ladder.losses, strict=True)
    ]
    return Table(title, FORMATS, rows)


def fingerprint(reference: Reference) -> dict[str, Any]:
    """What tells a network and its batches from others: checksums of its weights, and of its outputs for a batch."""
    variables, batches = reference.variables, reference.context.batches
    outputs = reference.outputs_of(variables)(*arguments(batches[0]))
    return {
        "weights": checksums.of_description(checksums.of_leaves(variables)),
        "batches": checksums.of_description(checksums.of_leaves(list(batches))),
        "outputs": zlib.crc32(b"".join(np.asarray(leaf).tobytes() for leaf in outputs)),
    }


def _figures(leaf: Array, curvature: np.ndarray, problem: Problem | None) -> dict[str, Any]:
    largest = float(np.abs(np.asarray(leaf, np.float32)).max())
    count = RUNGS if problem is None else RUNGS + COARSER
    steps = (largest or 1.0) / 100 * 190 ** (np.arange(count) / (RUNGS - 1))
    sizes, losses = [], []
    for step in steps.tolist():
        alone = nearest(leaf, step)
        if problem is not None:
            alone = dataclasses.replace(alone, codes=cheapest_codes(problem, leaf, alone.scale, 8, PRICE))
        sizes.append(stored_size(alone))
        rounded = alone.materialise()
        losses.append(
            float(_loss(leaf, rounded, curvature) if problem is None else _of_outputs(problem, rounded, curvature))
        )
    return {"steps": steps.tolist(), "sizes": sizes, "losses": losses, "information": float(curvature.mean())}


def nearest(leaf: Array, step: float) -> Quantized:
    """An array whose values are rounded to multiples of a step."""
    made: Quantized = quantize(step=step, where=lambda _: True)({"weight": leaf}, Context())["weight"]
    return made


def _of_outputs(problem: Problem, rounded: Array, curvature: np.ndarray) -> float:
    there = problem.there
    squares = (np.diagonal(problem.squares, axis1=1, axis2=2)[:, None] * there).sum(-1)
    weights = (problem.columns(curvature) * there).sum(-1) / np.where(squares > 0, squares, 1)
    errors = problem.losses(jnp.asarray(problem.columns(rounded) * there, jnp.float32))
    return 0.5 * float((weights * np.asarray(errors)).sum())


@jax.jit
def _loss(leaf: Array, rounded: Array, curvature: Array) -> Array:
    error = leaf.astype(jnp.float32) - rounded.astype(jnp.float32)
    return 0.5 * jnp.sum(curvature * jnp.square(error))
