"""Weight by weight: how each is stored, where it runs, on what, and what kept it from running compressed."""

import dataclasses
import math
from typing import Any

import jax

from nncompress_jax.inputs import examples_in
from nncompress_jax.table import Table
from nncompress_jax.tracing.injection import visits
from nncompress_jax.tracing.program import Visit
from nncompress_jax.tree import named_leaves, stored_bytes
from nncompress_jax.types import Apply
from nncompress_jax.weights.base import is_compressed
from nncompress_jax.weights.materialised import materialised_p

FORMATS = {
    "path": "",
    "type": "",
    "shape": "",
    "bits": ".2f",
    "stored_bytes": ",",
    "density": ".3f",
    "rank": "",
    "operations": "",
    "types": "",
    "macs": ",",
    "runs": "",
}


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a weight multiplies data.

    Attributes:
      path: of the weight.
      operation: "convolution", "depthwise convolution", "grouped convolution" or "dot".
      types: element types of the operands and the result, as `int8 x int8 -> int32`.
      algorithm: what runs it on this platform: "native", or one of `ops.algorithms`.
      macs: multiply-accumulates for one example.
      why_float: what keeps it from 8-bit integers; empty where it runs on them.
    """

    path: str
    operation: str
    types: str
    algorithm: str
    macs: int
    why_float: str


@dataclasses.dataclass(frozen=True)
class Weight:
    """How a leaf of the variables is stored, and where it runs.

    Attributes:
      path: of the leaf.
      type: "dense", a type, or types inside one another (`LowRank of Quantized`).
      shape: logical.
      kept: the same, but for channels that are not there.
      bits: stored, for each entry of the logical shape; scales, positions and codebooks included.
      stored_bytes: of all its parts.
      density: share of the entries that exist; None unless some do not.
      rank: of a chain: the channels between its factors, as `32` or `32 x 48`; None for others.
      places: in the order of the program.
      materialised: what forced it into its dense form anywhere; empty where nothing did.
    """

    path: str
    type: str
    shape: tuple[int, ...]
    kept: tuple[int, ...]
    bits: float
    stored_bytes: int
    density: float | None
    rank: str | None
    places: tuple[Place, ...]
    materialised: str

    @property
    def runs(self) -> str:
        """In one word, or with the reason: compressed, dense, materialised, or not at all."""
        if not self.places and not self.materialised:
            return "no product"
        if self.type == "dense":
            return "dense"
        return f"materialised: {self.materialised}" if self.materialised else "compressed"


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Of all leaves that are compressed or multiply data, in the order of the variables; as lowered for `platform`."""

    weights: tuple[Weight, ...]
    places: tuple[Place, ...]
    platform: str

    def rows(self) -> list[dict[str, Any]]:
        """A row for each weight, under the columns of `FORMATS`."""
        return [
            {
                **{name: getattr(weight, name) for name in ("path", "type", "bits", "stored_bytes", "density", "runs")},
                "shape": " x ".join(map(str, weight.kept)),
                "rank": weight.rank or "",
                "operations": ", ".join(dict.fromkeys(place.operation for place in weight.places)),
                "types": ", ".join(dict.fromkeys(place.types for place in weight.places)),
                "macs": sum(place.macs for place in weight.places),
            }
            for weight in self.weights
        ]

    def print(self) -> None:
        """As a table on the terminal."""
        size = sum(weight.stored_bytes for weight in self.weights)
        Table(f"{len(self.weights)} weights, {size:,} bytes, on {self.platform}", FORMATS, self.rows()).print()


def explain(apply: Apply, variables: Any, *inputs: Any, batch_size: int | None = None, **keywords: Any) -> Explanation:
    """Reads in the program that is lowered for this platform how each weight is stored and where it runs.

    Args:
      apply: of (variables, *inputs), as `inject` takes it.
      variables: compressed or not.
      *inputs: apply's further arguments, as of `cost`.
      batch_size: of the examples in them; by default the length of the first array that has a leading axis.
      **keywords: apply's keyword arguments.

    Returns:
      Weights, and the places where they multiply data. Products of data with data, as in attention, are in neither.

    Example:
      >>> import jax.numpy as jnp
      >>> from nncompress_jax.recipes import compress, recipe
      >>> weights = compress({"kernel": jnp.arange(64.0).reshape(8, 8)}, recipe("prune:0.75"))
      >>> row = explain(lambda w, x: x @ w["kernel"], weights, jnp.ones((2, 8))).weights[0]
      >>> row.type, row.density, row.runs
      ('Sparse', 0.25, 'materialised: no rule for dot_general')
    """
    examples = examples_in((inputs, keywords), batch_size)
    leaves = dict(named_leaves(variables, is_compressed))
    ran = visits(apply, variables, *inputs, **keywords)
    reasons: dict[str, list[str]] = {}
    for visit in ran:
        path = visit.sources[0] if visit.equation.primitive is materialised_p else None
        if path and is_compressed(leaves[path]):
            reasons.setdefault(path, []).append(visit.equation.params["reason"])
    why = {path: "; ".join(dict.fromkeys(each)) for path, each in reasons.items()}
    places = [
        _place(visit, path, leaves[path], why.get(path, ""), examples)
        for visit in ran
        if visit.product and None in visit.sources
        for path in filter(None, visit.sources)
    ]
    by_path: dict[str, list[Place]] = {}
    for place in places:
        by_path.setdefault(place.path, []).append(place)
    weights = [
        _weight(path, leaf, tuple(by_path.get(path, ())), why.get(path, ""))
        for path, leaf in leaves.items()
        if is_compressed(leaf) or path in by_path
    ]
    return Explanation(tuple(weights), tuple(places), jax.default_backend())


def _place(visit: Visit, path: str, leaf: Any, materialised: str, examples: int) -> Place:
    assert visit.product is not None
    product, (left, right, output) = visit.product, visit.product.types
    why = ""
    if (left, right) != ("int8", "int8"):
        stored = f"{leaf.nesting}: floats" if is_compressed(leaf) else f"the weight is {leaf.dtype}, not compressed"
        why = materialised or stored
    macs = product.macs * visit.repeats // examples
    return Place(path, product.operation, f"{left} x {right} -> {output}", product.algorithm, macs, why)


def _weight(path: str, leaf: Any, places: tuple[Place, ...], materialised: str) -> Weight:
    size, stored = math.prod(leaf.shape), stored_bytes(leaf)
    compressed = is_compressed(leaf)
    return Weight(
        path,
        leaf.nesting if compressed else "dense",
        tuple(leaf.shape),
        leaf.stored_shape if compressed else tuple(leaf.shape),
        8 * stored / max(size, 1),
        stored,
        leaf.density if compressed else None,
        (" x ".join(map(str, leaf.ranks)) if compressed else "") or None,
        places,
        materialised,
    )
