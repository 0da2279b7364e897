"""What the axes of a weight are for: as the traced program has it, or else by names and shapes."""

from typing import Any

from nncompress_jax.tracing.roles import Role, Use
from nncompress_jax.tree import EMBEDDINGS
from nncompress_jax.types import Context

_ATTENTION = {
    **dict.fromkeys(("query", "key", "value"), Use("dot", ("input", "output", "output"))),
    "out": Use("dot", ("input", "input", "output")),
}
"""Kernels of flax's attention, with heads along an axis of their own, by the name of their layer."""


def use_of(path: str, leaf: Any, context: Context) -> Use:
    """Of a weight; the first product of several.

    Args:
      path: of the weight, or of a part of one: those have their inputs before the last axis.
      leaf: an array.
      context: of the method.

    Example:
      >>> import jax.numpy as jnp
      >>> use_of("attention/query/kernel", jnp.ones((8, 2, 4)), Context()).roles
      ('input', 'output', 'output')
    """
    if path.endswith("/values") and leaf.ndim > 2:  # of groups, whose neighbours have an axis of their own
        return _grouped(use_of(path.removesuffix("/values"), leaf[0], context))
    found = (context.uses or {}).get(path)
    if found:
        return next((use for use in found if "output" in use.roles), found[0])
    rank, names = leaf.ndim, path.split("/")
    if rank == 2 and names[-1] in EMBEDDINGS:
        return Use("look-up", ("stacked", "output"))
    if rank == 3 and names[-1] == "kernel" and names[-2:-1] and names[-2] in _ATTENTION:
        return _ATTENTION[names[-2]]
    if rank < 2:
        return Use("", ("output",) * rank)
    windows: tuple[Role, ...] = ("window",) * (rank - 2)
    return Use("convolution" if windows else "dot", (*windows, "input", "output"))


def _grouped(use: Use) -> Use:
    place = use.axes("input")[-1]
    return Use(use.operation, (*use.roles[:place], "input", *use.roles[place:]))


def scaled_axes(path: str, leaf: Any, context: Context) -> tuple[int, ...]:
    """From the back, axes along which scales vary: outputs, and weights side by side; of a table, its rows."""
    use = use_of(path, leaf, context)
    roles = ("stacked",) if use.operation == "look-up" else ("output", "stacked")
    return tuple(axis - leaf.ndim for axis in use.axes(*roles) if leaf.shape[axis] > 1)


def input_axis(path: str, leaf: Any, context: Context) -> int | None:
    """From the back, the axis of input channels, the last one of several; None: it has none."""
    axes = use_of(path, leaf, context).axes("input")
    return axes[-1] - leaf.ndim if axes else None
