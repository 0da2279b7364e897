"""What the axes of a weight are for: as the traced program has it, or else by names and shapes."""

import dataclasses
import functools
import re
from typing import Any

from nncompress_jax.inputs import arguments
from nncompress_jax.tracing.roles import Role, Use, uses
from nncompress_jax.tree import EMBEDDINGS
from nncompress_jax.types import Apply, Context

_ATTENTION = {
    **dict.fromkeys(("query", "key", "value"), Use("dot", ("input", "output", "output"))),
    "out": Use("dot", ("input", "input", "output")),
}
"""Kernels of flax's attention, with heads along an axis of their own, by the name of their layer."""


def context_of(variables: Any, apply: Apply | None, batches: Any) -> Context:
    """What methods may know of a network: `uses` where there are a function and a batch to trace it with."""
    context = Context(apply, batches)
    if apply is None or not context.batches:
        return context
    first = arguments(context.batches[0])
    return dataclasses.replace(context, uses=functools.cache(lambda: uses(apply, variables, *first)))


def use_of(path: str, leaf: Any, context: Context) -> Use:
    """Of a weight; the first product of several.

    Args:
      path: of the weight, or of a part of one.
      leaf: an array.
      context: of the method.

    Example:
      >>> import jax.numpy as jnp
      >>> use_of("attention/query/kernel", jnp.ones((8, 2, 4)), Context()).roles
      ('input', 'output', 'output')
    """
    rank, path = leaf.ndim, re.sub("(/values)+$", "", path)
    if found := (context.uses() or {}).get(path):
        use = next((use for use in found if "output" in use.roles), found[0])
        if len(use.roles) == rank:
            return use
        if len(use.roles) == rank - 1 and use.axes("input"):  # of groups: neighbours have an axis of their own
            last = use.axes("input")[-1]
            return Use(use.operation, (*use.roles[:last], "input", *use.roles[last:]))
    names = path.split("/")
    if rank == 2 and names[-1] in EMBEDDINGS:
        return Use("look-up", ("stacked", "output"))
    if rank == 3 and names[-1] == "kernel" and names[-2:-1] and names[-2] in _ATTENTION:
        return _ATTENTION[names[-2]]
    if rank < 2:
        return Use("", ("output",) * rank)
    windows: tuple[Role, ...] = ("window",) * (rank - 2)
    return Use("" if windows else "dot", (*windows, "input", "output"))


def scaled_axes(path: str, leaf: Any, context: Context) -> tuple[int, ...]:
    """From the back, axes along which scales vary: outputs, and weights side by side; of a table, its rows."""
    use = use_of(path, leaf, context)
    roles = ("stacked",) if use.operation == "look-up" else ("output", "stacked")
    return tuple(axis - leaf.ndim for axis in use.axes(*roles) if leaf.shape[axis] > 1)


def input_axis(path: str, leaf: Any, context: Context) -> int | None:
    """From the back, the axis of input channels, the last one of several; None: it has none."""
    axes = use_of(path, leaf, context).axes("input")
    return axes[-1] - leaf.ndim if axes else None
