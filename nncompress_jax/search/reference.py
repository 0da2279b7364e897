"""A network that others are compared with."""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax.bars import tracked
from nncompress_jax.inputs import arguments, is_array, of_arrays
from nncompress_jax.methods.reestimate import StatisticsMoved, reestimate
from nncompress_jax.methods.selection import network
from nncompress_jax.tracing.injection import inject
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Array, Context


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """A network as it was, with batches. What is known of it is computed once, and kept: outputs for all batches, too.

    Attributes:
      variables: of it.
      context: with apply and batches.
    """

    variables: Any
    context: Context

    def outputs_of(self, variables: Any) -> Callable[..., list[Array]]:
        """A function of a batch: the arrays that the network makes of it with other variables.

        It is compiled once for all variables that `compress` makes with weights of the same types.
        """
        apply, _ = network(self.context, "auto")
        run = inject(apply, fast=True)
        function, arrays = of_arrays(lambda tree, *batch: jax.tree.leaves(run(tree, *batch)), variables)
        others = tuple((type(leaf), leaf) for leaf in jax.tree.leaves(variables) if not is_array(leaf))
        key = "outputs", jax.tree.structure(variables), frozenset(arrays), others
        return functools.partial(self.context.kept(key, lambda: eqx.filter_jit(function)), arrays)

    @functools.cached_property
    def outputs(self) -> list[list[Array]]:
        """For each batch."""
        of_batch = self.outputs_of(self.variables)
        return [of_batch(*arguments(batch)) for batch in tracked(self.context.batches, "outputs of the network")]

    @functools.cached_property
    def variance(self) -> float:
        """Squared distance of the outputs from their mean over the examples of a batch, summed over all batches."""
        leaves = [np.asarray(leaf, np.float64) for outputs in self.outputs for leaf in outputs]
        return sum(float(np.square(leaf - leaf.mean(0)).sum()) for leaf in leaves if leaf.ndim)

    @functools.cached_property
    def statistics(self) -> Mapping[str, Any]:
        """By path, leaves as they are with the batch statistics of the batches."""
        return statistics_of(self.variables, self.context)

    def error(self, variables: Any, count: int | None = None) -> float:
        """Squared distance of the outputs for the first so many batches; by default for all."""
        of_batch, total = self.outputs_of(variables), 0.0
        for batch, theirs in zip(map(arguments, self.context.batches[:count]), self.outputs[:count], strict=True):
            pairs = zip(of_batch(*batch), theirs, strict=True)
            total += sum(float(jnp.square(a.astype(jnp.float32) - b.astype(jnp.float32)).sum()) for a, b in pairs)
        return total


def statistics_of(variables: Any, context: Context) -> dict[str, Any]:
    """By path, leaves as they are with the batch statistics of the batches; that they may do worse is not said."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StatisticsMoved)
        return dict(named_leaves(reestimate(variables, context)))
