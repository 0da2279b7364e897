"""What runs on 8-bit integers, layer by layer, and what does not, and why."""

import dataclasses
import re
from typing import Any

import jax

from nncompress_jax.injection import visits
from nncompress_jax.program import Visit
from nncompress_jax.report.table import Table
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Apply, Array
from nncompress_jax.weights.base import MATERIALISED, is_compressed

FORMATS = {"path": "", "operation": "", "types": "", "algorithm": "", "why_float": ""}


@dataclasses.dataclass(frozen=True)
class Int8Layer:
    """A place where a weight multiplies data.

    Attributes:
      path: of the weight.
      operation: "convolution", "depthwise convolution", "grouped convolution" or "dot".
      types: element types of the operands and the result, as `int8 x int8 -> int32`.
      algorithm: what runs it on this platform: "native", or one of `ops.integer`.
      why_float: what keeps it from integers; empty where it runs on them.
    """

    path: str
    operation: str
    types: str
    algorithm: str
    why_float: str = ""


@dataclasses.dataclass(frozen=True)
class Int8Report:
    """Rows in the order of the program, as lowered for `platform`."""

    rows: tuple[Int8Layer, ...]
    platform: str

    @property
    def floats(self) -> tuple[Int8Layer, ...]:
        """The rows that do not run on integers."""
        return tuple(row for row in self.rows if row.why_float)

    def print(self) -> None:
        """As a table on the terminal."""
        counted = f"{len(self.rows) - len(self.floats)} of {len(self.rows)} layers on integers"
        Table(f"{counted}, on {self.platform}", FORMATS, [dataclasses.asdict(row) for row in self.rows]).print()


def int8_report(apply: Apply, variables: Any, images: Array | jax.ShapeDtypeStruct, *inputs: Any) -> Int8Report:
    """Reads in the program that is lowered for this platform on which types each layer runs.

    Args:
      apply: of (variables, images, *inputs), as `inject` takes it.
      variables: compressed; dense ones are reported as such.
      images: [B, ...], or its `jax.ShapeDtypeStruct`.
      *inputs: apply's further arguments.

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
    leaves = dict(named_leaves(variables, is_compressed))
    ran = visits(apply, variables, images, *inputs)
    reasons: dict[str, list[str]] = {}
    for visit in ran:
        scope = str(visit.equation.source_info.name_stack)
        for reason in re.findall(f"{MATERIALISED}([^/]*)", scope):
            for path in filter(None, visit.owners):
                reasons.setdefault(path, []).append(reason)
    rows = [
        _row(visit, path, leaves[path], reasons.get(path, []))
        for visit in ran
        if visit.product and None in visit.owners
        for path in filter(None, visit.owners)
    ]
    return Int8Report(tuple(rows), jax.default_backend())


def _row(visit: Visit, path: str, leaf: Any, reasons: list[str]) -> Int8Layer:
    assert visit.product is not None
    left, right, output = visit.product.types
    why = ""
    if (left, right) != ("int8", "int8"):
        why = (
            "; ".join(dict.fromkeys(reasons)) if is_compressed(leaf) else f"the weight is {leaf.dtype}, not compressed"
        )
    return Int8Layer(path, visit.product.operation, f"{left} x {right} -> {output}", visit.product.algorithm, why)
