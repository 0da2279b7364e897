"""How much each group of channels can lose."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.progress import track

from nncompress_jax import checksums
from nncompress_jax.coupling.groups import Group
from nncompress_jax.errors import InputError
from nncompress_jax.inputs import listed
from nncompress_jax.measurements import Measurements
from nncompress_jax.methods.channels.criteria import Criterion, by_path, l1
from nncompress_jax.methods.channels.pruning import chosen
from nncompress_jax.table import Table
from nncompress_jax.tree import Where
from nncompress_jax.types import Apply, Context
from nncompress_jax.weights.base import dense, is_compressed

FORMATS = {"group": "", "channels": ",", "rate": ".2f", "kept": ",", "accuracy": ".4f"}


def sensitivity(
    apply: Apply,
    variables: Any,
    measure: Callable[[Any], float],
    *,
    batches: Sequence[Any],
    criterion: Criterion = l1,
    rates: Sequence[float] = (0.25, 0.5, 0.75, 0.9),
    where: Where = None,
    file: Path | None = None,
    title: str = "",
) -> Table:
    """Accuracy when one group of channels is cut, the others whole; group by group, at several rates.

    Args:
      apply: of (variables, inputs), as in `coupling`.
      variables: dense.
      measure: accuracy, or whatever counts, of variables in which the channels are zero: dense, so that one compiled
        program serves all.
      batches: inputs, of which the first is traced; each a tuple of apply's further arguments, or the only one.
      criterion: whose smallest scores go first; of `nnc.criteria`.
      rates: shares of the channels that go; one channel stays.
      where: groups, by a pattern or predicate on their names; by default all that can be cut.
      file: of measurements, a line each, which are not repeated: of these weights, under this title.
      title: of the table; says what `measure` measures.

    Returns:
      A row for each group and rate, with the columns group, channels, rate, kept and accuracy; rate 0 is the network as
      it is. `report.plots.sensitivity(table.rows, title, path)` draws it.

    Raises:
      InputError: for rates outside of 0 to 1, and as `coupling` does.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"a": jnp.arange(1.0, 9.0)[None], "b": jnp.ones((8, 3))}
      >>> apply = lambda weights, x: x @ weights["a"] @ weights["b"]
      >>> total = lambda weights: float(weights["a"].sum())
      >>> table = sensitivity(apply, weights, total, batches=[jnp.ones((2, 1))], rates=[0.5])
      >>> [(row["group"], row["kept"], row["accuracy"]) for row in table.rows]
      [('a', 8, 36.0), ('a', 4, 26.0)]
    """
    if bad := [rate for rate in rates if not 0 < rate < 1]:
        raise InputError(f"rates {bad}: expected more than 0 and less than 1, the share of the channels that goes")
    batches = listed(batches)
    coupled, groups = chosen(apply, variables, batches, where)
    scores = criterion(groups, *by_path(variables, Context(apply, batches)))
    measurements = Measurements(file)
    network = {"measured": title, "weights": checksums.of_description(checksums.of_leaves(variables))}
    tasks = [(group, score, rate) for group, score in zip(groups, scores, strict=True) for rate in (0.0, *rates)]
    rows: list[dict[str, Any]] = []
    for group, score, rate in track(tasks, "measuring", transient=True, disable=file is None):
        count = max(round((1 - rate) * group.size), 1)
        there = np.isin(np.arange(group.size), np.argsort(-score, kind="stable")[:count])
        gone = {"group": group.name, "channels": np.flatnonzero(~there).tolist()} if rate else {}

        def measured(group: Group = group, there: np.ndarray = there) -> dict[str, float]:
            cut = coupled.cut(variables, {group.name: there})
            return {"accuracy": measure(jax.tree.map(dense, cut, is_leaf=is_compressed))}

        row = {"group": group.name, "channels": group.size, "rate": rate, "kept": count}
        rows.append(row | measurements.of(network | {"without": gone}, measured))
    return Table(title, FORMATS, rows)
