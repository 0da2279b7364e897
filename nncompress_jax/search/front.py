"""What can be had: the best networks for several budgets."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nncompress_jax.bars import tracked
from nncompress_jax.errors import InputError
from nncompress_jax.measurements import Measurements
from nncompress_jax.methods.layout import context_of
from nncompress_jax.methods.rounding import Rounding, check_rounding
from nncompress_jax.search.candidates import tables
from nncompress_jax.search.cutting import Cutting, Small
from nncompress_jax.search.drop import Measure
from nncompress_jax.search.fitting import RESERVED, Fitting, whole_bytes
from nncompress_jax.search.reference import Reference
from nncompress_jax.search.stitching import Stitching
from nncompress_jax.table import Table
from nncompress_jax.tracing.fisher import Likelihood
from nncompress_jax.tree import Where
from nncompress_jax.types import Apply, Context, Method

FORMATS = {"budget": ".4f", "share": ".4f", "bytes": ",", "macs": ".2f", "loss": ".2e", "accuracy": ".4f"}
"""budget, share: of the bytes of all arrays, uncompressed. macs: as of `auto`. loss: as of `candidates.ladders`."""


@dataclasses.dataclass(frozen=True)
class Point:
    """One network of a front.

    Attributes:
      budget: that was asked for, a share.
      weights: a row for each weight: its step, and why.
      candidates: a row for each step that a weight could have got.
      method: makes the network, for `compress` with the same variables, apply and batches.
    """

    budget: float
    weights: Table
    candidates: Table
    method: Method


@dataclasses.dataclass(frozen=True)
class Front:
    """Networks from large to small.

    Attributes:
      table: a row for each point.
      points: in the same order.
    """

    table: Table
    points: Sequence[Point]


def front(
    apply: Apply,
    variables: Any,
    batches: Sequence[Any],
    *,
    bytes: Sequence[float] = (0.1, 0.05, 0.03, 0.02, 0.01, 0.005),
    macs: float | None = None,
    measure: Measure | None = None,
    where: Where = None,
    rounding: Rounding = "second_order",
    inputs: bool = True,
    short: bool = True,
    likelihood: Likelihood = "gaussian",
    file: str | Path | None = None,
    title: str = "",
) -> Front:
    """What `auto` makes of a network with several budgets.

    Args:
      apply: the network, in inference.
      variables: of it.
      batches: representative inputs.
      bytes: budgets, each as of `auto`; those that are below what is possible are left out.
      macs: as of `auto`; without `measure` all channels stay.
      measure: of variables, for each of N examples whether the network is right. With it every network is made and its
        file measured; without, sizes are predicted from those of single weights.
      where: as of `auto`, and so are rounding, inputs, short, likelihood and file.
      title: of the table.

    Returns:
      The table, with a row for each budget, and the points, each with the method that makes its network.

    Raises:
      InputError: for budgets that are none, and where all are below what is possible.

    Example:
      >>> import jax, nncompress_jax as nnc
      >>> keys = jax.random.split(jax.random.key(0))
      >>> weights, x = {"w": jax.random.normal(keys[0], (64, 64))}, jax.random.normal(keys[1], (128, 64))
      >>> apply = lambda v, x: x @ v["w"]
      >>> found = front(apply, weights, [x], bytes=[0.2, 0.12], rounding="nearest")
      >>> [round(row["share"], 2) for row in found.table.rows]
      [0.16, 0.08]
      >>> type(nnc.compress(weights, found.points[1].method, apply=apply, batches=[x])["w"]).__name__
      'Quantized'
    """
    check_rounding(rounding)
    if bad := [size for size in bytes if not size > 0]:
        raise InputError(f"bytes={bad}: expected shares up to 1, or numbers of bytes")
    reference = Reference(variables, context_of(variables, apply, batches))
    stitching = Stitching(rounding, inputs, short)
    cutting = Cutting(reference, stitching, Measurements(file), where, macs if measure else 1.0, likelihood)
    whole = whole_bytes(variables)
    shares = sorted((size if size <= 1 else size / whole for size in bytes), reverse=True)
    points, rows = [], []
    for share in tracked(shares, "budgets"):
        size = share * whole
        small = cutting.best(size, Fitting.held) if measure else cutting.best(size - RESERVED, Fitting.aimed)
        if small is None:
            continue
        rows.append({"budget": share} | _row(small, measure))
        chosen = tables(small.fitting.ladders, small.choice, f"{title} {share:.4f}")
        points.append(Point(share, *chosen, functools.partial(_make, cutting, small)))
    if not points:
        cutting.within(shares[0] * whole, f"bytes={shares[0]}")
    return Front(Table(title, FORMATS, rows), points)


def _make(cutting: Cutting, small: Small, variables: Any, context: Context) -> Any:
    """The network of a point, for the same variables, apply and batches."""
    cut = dataclasses.replace(cutting, reference=Reference(variables, context)).cut(small.macs)
    return cutting.stitching(cut, small.fitting.steps(small.choice))


def _row(small: Small, measure: Measure | None) -> dict[str, Any]:
    fitting, choice = small.fitting, small.choice
    row: dict[str, Any] = {"loss": fitting.loss(choice), "macs": small.macs, "accuracy": None}
    if measure is None:
        size = fitting.around + sum(ladder.sizes[i] for ladder, i in zip(fitting.ladders, choice, strict=True))
    else:
        size = small.size
        row |= fitting.figures(choice, "accuracy", lambda made: {"accuracy": float(np.mean(measure(made)))})
    return row | {"bytes": size, "share": fitting.share(size)}
