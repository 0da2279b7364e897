"""How much each group of channels can lose."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.progress import track

from nncompress_jax.couplings import Coupling, Group
from nncompress_jax.errors import InputError
from nncompress_jax.report.measurements import Measurements
from nncompress_jax.report.table import Table
from nncompress_jax.training import checksums
from nncompress_jax.weights.base import dense, is_compressed

FORMATS = {"group": "", "channels": ",", "rate": ".2f", "kept": ",", "accuracy": ".4f"}


def sensitivity(
    coupled: Coupling,
    variables: Any,
    scores: Sequence[np.ndarray],
    measure: Callable[[Any], float],
    *,
    rates: Sequence[float] = (0.25, 0.5, 0.75, 0.9),
    file: Path | None = None,
    title: str = "",
) -> Table:
    """Accuracy when one group of channels is cut, the others whole; group by group, at several rates.

    Args:
      coupled: of `nnc.coupling`.
      variables: dense.
      scores: [size] for each group of `coupled.groups`, of a criterion; the smallest go first.
      measure: accuracy, or whatever counts, of variables in which the channels are zero: dense, so that one compiled
        program serves all.
      rates: shares of the channels that go; one channel stays.
      file: of measurements, which are not repeated: of these weights, under this title.
      title: of the table; says what `measure` measures.

    Returns:
      A row for each group and rate; rate 0 is the network as it is.

    Raises:
      InputError: for rates outside of 0 to 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from nncompress_jax.couplings import coupling
      >>> weights = {"a": jnp.ones((4, 8)), "b": jnp.ones((8, 3))}
      >>> found = coupling(lambda w, x: x @ w["a"] @ w["b"], weights, jnp.ones((2, 4)))
      >>> table = sensitivity(found, weights, [np.arange(8)], lambda w: float(w["a"].mean()), rates=[0.5])
      >>> [(row["group"], row["kept"], row["accuracy"]) for row in table.rows]
      [('a', 8, 1.0), ('a', 4, 0.5)]
    """
    if bad := [rate for rate in rates if not 0 < rate < 1]:
        raise InputError(f"rates {bad}: expected more than 0 and less than 1, the share of the channels that goes")
    measurements = Measurements(file)
    network = {"measured": title, "weights": checksums.of_description(checksums.of_leaves(variables))}
    tasks = [
        (group, score, rate) for group, score in zip(coupled.groups, scores, strict=True) for rate in (0.0, *rates)
    ]
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
