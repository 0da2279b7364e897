"""How much each weight, or each group of channels, can lose."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nncompress_jax import checksums
from nncompress_jax.bars import tracked
from nncompress_jax.coupling.groups import Group
from nncompress_jax.errors import InputError
from nncompress_jax.inputs import listed
from nncompress_jax.measurements import Measurements
from nncompress_jax.methods.channels.criteria import Criterion, by_path, l1
from nncompress_jax.methods.channels.pruning import chosen
from nncompress_jax.methods.layout import context_of
from nncompress_jax.search.candidates import candidates, ladders
from nncompress_jax.search.reference import Reference
from nncompress_jax.table import Table
from nncompress_jax.tree import Where
from nncompress_jax.types import Apply, Context
from nncompress_jax.weights.base import dense, is_compressed

FORMATS = {"group": "", "channels": ",", "rate": ".2f", "kept": ",", "accuracy": ".4f"}


def sensitivity(
    apply: Apply,
    variables: Any,
    measure: Callable[[Any], float] | None = None,
    *,
    batches: Sequence[Any],
    criterion: Criterion = l1,
    rates: Sequence[float] = (0.25, 0.5, 0.75, 0.9),
    where: Where = None,
    file: str | Path | None = None,
    title: str = "",
) -> Table:
    """What each weight costs the network when it is made small alone, or, measured, what each group of channels does.

    Without `measure`: the steps between which `auto` chooses, weight by weight, with the bytes that each takes in a
    file, and the loss that is predicted for it. With `measure`: accuracy when one group of channels is cut, the others
    whole, group by group, at several rates.

    Args:
      apply: of (variables, inputs), as in `coupling`.
      variables: dense.
      measure: accuracy, or whatever counts, of variables in which the channels are zero: dense, so that one compiled
        program serves all.
      batches: inputs, each a tuple of apply's further arguments, or the only one; with `measure` the first is traced.
      criterion: with `measure`, whose smallest scores go first; of `nnc.criteria`.
      rates: with `measure`, shares of the channels that go; one channel stays.
      where: weights, as `quantize` has them, or groups, by a pattern or predicate on their names; by default all.
      file: of measurements, a line each, which are not repeated: of these weights, under this title.
      title: of the table; says what `measure` measures.

    Returns:
      A row for each weight and step, with the columns weight, entries, step, bytes, bits_per_entry and loss, drawn by
      `report.plots.steps(table.rows, title, path)`; or for each group and rate, with the columns group, channels, rate,
      kept and accuracy, rate 0 the network as it is, drawn by `report.plots.sensitivity`.

    Raises:
      InputError: for rates outside of 0 to 1, and as `auto` and `coupling` do.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"a": jnp.arange(1.0, 9.0)[None], "b": jnp.ones((8, 3))}
      >>> apply = lambda weights, x: x @ weights["a"] @ weights["b"]
      >>> total = lambda weights: float(weights["a"].sum())
      >>> table = sensitivity(apply, weights, total, batches=[jnp.ones((2, 1))], rates=[0.5])
      >>> [(row["group"], row["kept"], row["accuracy"]) for row in table.rows]
      [('a', 8, 36.0), ('a', 4, 26.0)]
      >>> steps = sensitivity(apply, weights, batches=[jnp.ones((2, 1))], where="b").rows
      >>> {row["weight"] for row in steps}, steps[0]["loss"] < steps[-1]["loss"]
      ({'b'}, True)
    """
    if bad := [rate for rate in rates if not 0 < rate < 1]:
        raise InputError(f"rates {bad}: expected more than 0 and less than 1, the share of the channels that goes")
    if measure is None:
        reference = Reference(variables, context_of(variables, apply, batches))
        found = ladders(reference, where, measurements=Measurements(file))
        return candidates(found, title)
    batches = listed(batches)
    coupled, groups = chosen(apply, variables, batches, where)
    scores = criterion(groups, *by_path(variables, Context(apply, batches)))
    measurements = Measurements(file)
    network = {"measured": title, "weights": checksums.of_description(checksums.of_leaves(variables))}
    tasks = [(group, score, rate) for group, score in zip(groups, scores, strict=True) for rate in (0.0, *rates)]
    rows: list[dict[str, Any]] = []
    for group, score, rate in tracked(tasks, "measuring"):
        count = max(round((1 - rate) * group.size), 1)
        there = np.isin(np.arange(group.size), np.argsort(-score, kind="stable")[:count])
        gone = {"group": group.name, "channels": np.flatnonzero(~there).tolist()} if rate else {}

        def measured(group: Group = group, there: np.ndarray = there) -> dict[str, float]:
            cut = coupled.cut(variables, {group.name: there})
            return {"accuracy": measure(jax.tree.map(dense, cut, is_leaf=is_compressed))}

        row = {"group": group.name, "channels": group.size, "rate": rate, "kept": count}
        rows.append(row | measurements.of(network | {"without": gone}, measured))
    return Table(title, FORMATS, rows)
