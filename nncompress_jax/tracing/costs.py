"""What a network costs, read off the program that JAX traces from it."""

import dataclasses
import math
from typing import Any

from nncompress_jax.inputs import examples_in
from nncompress_jax.leaves import described
from nncompress_jax.tracing.injection import visits
from nncompress_jax.tree import named_leaves, stored_bytes
from nncompress_jax.types import Apply
from nncompress_jax.weights.base import is_compressed


@dataclasses.dataclass
class LayerCost:
    """Cost of the weights that share a parent path, and of the operations where they meet data.

    Attributes:
      path: of the layer in its collection (`Conv_0`); empty for products of data with data (attention).
      operation: what multiplies there; "elementwise" where nothing but elementwise operations do.
      output_shape: of the last operation that the layer's weights enter, the batch included; empty if none does.
      parameters: entries of the layer's leaves in `params`, those of the dense array for a compressed one.
      macs: multiply-accumulates of convolutions and dot products, for one example.
      resident_bytes: of the layer's leaves in every collection, as they are stored.
    """

    path: str
    operation: str = "elementwise"
    output_shape: tuple[int, ...] = ()
    parameters: int = 0
    macs: int = 0
    resident_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Cost:
    """Totals of a network, and the rows they are summed from, in the order in which they run."""

    layers: tuple[LayerCost, ...]

    @property
    def parameters(self) -> int:
        """Entries of all leaves in `params` (of all leaves, where there is no such collection)."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and dot products, for one example."""
        return sum(layer.macs for layer in self.layers)

    @property
    def resident_bytes(self) -> int:
        """Bytes of all leaves as they are stored, batch statistics included."""
        return sum(layer.resident_bytes for layer in self.layers)


def cost(apply: Apply, variables: Any, *inputs: Any, batch_size: int | None = None, **keywords: Any) -> Cost:
    """Parameters, multiply-accumulates and bytes of any function of (variables, ...).

    Nothing is computed: the function is traced, and the traced program read. Taps of a convolution that fall
    on padding count; the zeros that a transposed convolution puts between its inputs do not. The body of a
    `while` loop counts once, `scan` as often as it runs, `cond` by its dearest branch. Operations on compressed
    weights count as those that they stand for.

    Args:
      apply: for instance a linen module's `apply`, unedited.
      variables: any tree of arrays, of `jax.ShapeDtypeStruct`, or of compressed weights.
      *inputs: apply's further arguments: trees of arrays or of `jax.ShapeDtypeStruct`, random keys, numbers, None.
      batch_size: of the examples in them, by which the multiply-accumulates are divided; by default the length of the
        first array that has a leading axis.
      **keywords: apply's keyword arguments.

    Returns:
      The cost, with a row for each layer.

    Raises:
      InputError: where apply cannot be traced with these arguments.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)}
      >>> total = cost(lambda w, x: x @ w["kernel"] + w["bias"], weights, jnp.ones((2, 4)))
      >>> total.parameters, total.macs, total.resident_bytes
      (15, 12, 60)
    """
    examples = examples_in((inputs, keywords), batch_size)
    leaves = [(path, leaf) for path, leaf in named_leaves(variables, is_compressed) if _is_stored(leaf)]
    has_collections = any(path.startswith("params/") for path, _ in leaves)
    sources = [layer_of(path, has_collections) for path, _ in leaves]

    layers: dict[str, LayerCost] = {}
    ran = visits(apply, variables, *inputs, name=lambda path: layer_of(path, has_collections), **keywords)
    for visit in ran:
        entering = list(dict.fromkeys(source for source in visit.sources if source))
        if visit.product:
            layer = layers.setdefault(*_row(entering[0] if entering else ""))
            layer.operation = visit.product.operation
            layer.output_shape = visit.equation.outvars[0].aval.shape
            layer.macs += visit.product.macs * visit.repeats
        elif None in visit.sources and visit.equation.outvars:
            for source in entering:
                layers.setdefault(*_row(source)).output_shape = visit.equation.outvars[0].aval.shape
    for layer in layers.values():
        layer.macs //= examples
    for source, (path, leaf) in zip(sources, leaves, strict=True):
        layer = layers.setdefault(*_row(source))
        parameters = leaf.parameters if is_compressed(leaf) else math.prod(leaf.shape)
        layer.parameters += parameters * (not has_collections or path.startswith("params/"))
        layer.resident_bytes += stored_bytes(leaf)
    return Cost(tuple(layers.values()))


def _is_stored(leaf: Any) -> bool:
    """Whether it is an array; numbers of Python are part of the program."""
    return hasattr(leaf, "shape") and described(leaf) is not None


def _row(path: str) -> tuple[str, LayerCost]:
    return path, LayerCost(path)


def layer_of(path: str, has_collections: bool) -> str:
    """`params/Conv_0/kernel` -> `Conv_0`; a leaf at the top is its own layer."""
    names = path.split("/")[1 if has_collections else 0 :]
    return "/".join(names[:-1] or names)
