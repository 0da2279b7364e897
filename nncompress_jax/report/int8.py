"""What runs on 8-bit integers, layer by layer, and what does not, and why."""

import dataclasses
from typing import Any

from nncompress_jax.report.explain import Place, explain
from nncompress_jax.table import Table
from nncompress_jax.types import Apply

FORMATS = {"path": "", "operation": "", "types": "", "algorithm": "", "why_float": ""}


@dataclasses.dataclass(frozen=True)
class Int8Report:
    """Rows in the order of the program, as lowered for `platform`."""

    rows: tuple[Place, ...]
    platform: str

    @property
    def floats(self) -> tuple[Place, ...]:
        """The rows that do not run on integers."""
        return tuple(row for row in self.rows if row.why_float)

    def print(self) -> None:
        """As a table on the terminal."""
        counted = f"{len(self.rows) - len(self.floats)} of {len(self.rows)} layers on integers"
        Table(f"{counted}, on {self.platform}", FORMATS, [dataclasses.asdict(row) for row in self.rows]).print()


def int8_report(
    apply: Apply, variables: Any, *inputs: Any, batch_size: int | None = None, **keywords: Any
) -> Int8Report:
    """On which types each layer runs, in the program that is lowered for this platform: a view of `explain`.

    Args:
      apply: of (variables, *inputs), as `inject` takes it.
      variables: compressed; dense ones are reported as such.
      *inputs: apply's further arguments, as of `cost`.
      batch_size: of the examples in them; by default the length of the first array that has a leading axis.
      **keywords: apply's keyword arguments.

    Returns:
      One row for each convolution or dot product of a weight with data. Products of data with data, as in attention,
      are no layers and have none.

    Example:
      >>> import jax.numpy as jnp
      >>> from nncompress_jax.recipes import compress
      >>> weights = compress({"kernel": jnp.ones((3, 4))})
      >>> int8_report(lambda weights, x: x @ weights["kernel"], weights, jnp.ones((2, 3))).rows[0].types
      'int8 x int8 -> int32'
    """
    explained = explain(apply, variables, *inputs, batch_size=batch_size, **keywords)
    return Int8Report(explained.places, explained.platform)
