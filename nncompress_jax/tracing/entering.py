"""What enters each batch normalization of a network, as a function that can be differentiated."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend import core

from nncompress_jax.inputs import is_array
from nncompress_jax.leaves import native
from nncompress_jax.tracing.flat import evaluate
from nncompress_jax.tracing.graph import Graph
from nncompress_jax.tracing.moments import Met
from nncompress_jax.tracing.normalization import Normalization, normalizations
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Apply, Array
from nncompress_jax.weights.base import dense, is_compressed

Statistics = list[tuple[Array, Array]]
"""Of each normalization a mean and a variance [N], in one order of its channels."""


@dataclasses.dataclass(frozen=True)
class Entering:
    """A network and its batch normalizations.

    Attributes:
      program: flat.
      found: its normalizations.
      met: of each, the entries of its mean that the data meet.
    """

    program: Graph
    found: Sequence[Normalization]
    met: Sequence[Met]

    def __call__(self, leaves: Sequence[Any], *inputs: Array) -> tuple[list[Array], Statistics]:
        """Outputs, and the statistics of the batch at each normalization.

        Args:
          leaves: as `leaves_of` gives them.
          *inputs: arrays, of the shapes that the program was traced for.
        """
        jaxpr = self.program.program.jaxpr
        known = dict(zip(jaxpr.constvars, self.program.program.consts, strict=True))
        known |= zip(jaxpr.invars, [*leaves, *inputs], strict=True)

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, core.Literal) else known[atom]

        evaluate([self.program.equations[place] for place in sorted(self.program.needed)], known)
        statistics = [met.statistics(known[each.value]) for each, met in zip(self.found, self.met, strict=True)]
        return [read(atom) for atom in jaxpr.outvars], statistics

    def stored(self, leaves: Sequence[Any]) -> Statistics:
        """What the variables hold of each normalization."""
        by_path: Mapping[str, Any] = dict(zip(self.program.paths, leaves, strict=True))
        pairs = zip(self.found, self.met, strict=True)
        return [
            (by_path[each.mean].ravel()[met.entries], by_path[each.variance].ravel()[met.entries])
            for each, met in pairs
        ]


def entering(apply: Apply, variables: Any, *inputs: Any) -> Entering:
    """The batch normalizations of a network in inference, with the statistics of the data that enter them.

    Args:
      apply: of (variables, *inputs), in the mode in which it takes the statistics from its variables.
      variables: any tree of arrays, `jax.ShapeDtypeStruct`, or compressed weights, which count as the dense array.
      *inputs: arrays or descriptions of them.

    Raises:
      InputError: where apply cannot be traced with these arguments.

    Example:
      >>> import jax.numpy as jnp
      >>> leaves = {"w": jnp.ones((1, 1)), "m": jnp.zeros(1), "v": jnp.ones(1)}
      >>> apply = lambda tree, x: (x @ tree["w"] - tree["m"]) / jnp.sqrt(tree["v"] + 0.5)
      >>> x = jnp.array([[1.0], [3.0]])
      >>> found = entering(apply, leaves, x)
      >>> _, ((mean, variance),) = found(leaves_of(leaves), x)
      >>> mean.tolist(), variance.tolist()
      ([2.0], [1.0])
    """
    found = normalizations(apply, variables, *inputs)
    shapes = {path: np.shape(leaf) for path, leaf in named_leaves(variables, is_compressed)}
    met = [Met.of(each.places[each.mean], shapes[each.mean], each.value.aval.ndim) for each in found.found]
    return Entering(found.program, found.found, met)


def leaves_of(variables: Any) -> list[Any]:
    """The arrays among the leaves, dense, in the order in which a program takes them."""
    found = (leaf for _, leaf in named_leaves(variables, is_compressed))
    return [dense(native(leaf)) for leaf in found if is_compressed(leaf) or is_array(leaf)]
