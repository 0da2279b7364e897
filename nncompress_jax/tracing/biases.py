"""Biases of convolutions and dot products: the leaves that a program adds to their results."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from nncompress_jax.tracing.affine import Values
from nncompress_jax.tracing.graph import Graph
from nncompress_jax.tracing.positions import Positions
from nncompress_jax.tracing.terms import Datum


@dataclasses.dataclass(frozen=True)
class Bias:
    """Of a product of data and one weight.

    Attributes:
      path: of the leaf.
      weight: path of the weight.
      factor: what multiplies the leaf: 1, or -1 where it is subtracted.
      place: of the equation that adds it; it reads the product's result, and the leaf.
      places: where its entries stand in that result.
      obstacle: why it cannot be changed for this product alone, in words; empty: it can.
    """

    path: str
    weight: str
    factor: float
    place: int
    places: Positions
    obstacle: str


def biases(program: Graph, leaves: Mapping[str, Any]) -> list[Bias]:
    """In the order of the program.

    Args:
      program: of a network.
      leaves: its variables by path.

    Example:
      >>> import jax.numpy as jnp
      >>> from nncompress_jax.tracing.graph import graph
      >>> leaves = {"w": jnp.ones((3, 4)), "b": jnp.ones(4)}
      >>> (bias,) = biases(graph(lambda t, x: x @ t["w"] + t["b"], leaves, jnp.ones((2, 3))), leaves)
      >>> bias.path, bias.weight, bias.factor
      ('b', 'w', 1.0)
    """
    values, makers = Values(program, leaves), program.makers()
    found: dict[Datum, Bias] = {}
    for variable, value in values.known.items():
        datum = value.datum
        if datum is None or not datum.weight or datum in found or len(value.terms) != 2:
            continue
        own = frozenset({(datum, 1.0)})
        ((added, factor),) = [item for item in value.terms.items() if item[0] != own] or [(own, 0.0)]
        match [*added]:
            case [(str(path), 1.0)] if value.terms.get(own) == 1:
                meetings = values.meetings[path]
                obstacle = "" if meetings == {makers[variable]} else f"{path} is added at several places"
                found[datum] = Bias(path, datum.weight, factor, makers[variable], value.places[path], obstacle)
    return [*found.values()]
