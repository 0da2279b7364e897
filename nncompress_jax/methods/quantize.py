"""Quantization to true 8-bit integers."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax.errors import InputError
from nncompress_jax.methods.calibration import Rule, input_steps
from nncompress_jax.ops import int8
from nncompress_jax.tree import Where, named_leaves, selected
from nncompress_jax.types import Array, Context, Method
from nncompress_jax.weights.base import is_compressed
from nncompress_jax.weights.quantized import Quantized


def quantize(
    *,
    where: Where = None,
    inputs: bool = True,
    ranges: Rule | None = None,
    axes: Sequence[int] = (-1,),
) -> Method:
    """Weights as 8-bit integers, symmetric, one scale for each output channel.

    Args:
      where: which leaves, a pattern or a predicate on the path; the default is that of `tree.selected`.
      inputs: whether what the weight multiplies is quantized too, so that products run on integers; else the weight
        is only stored small, and products run on floats.
      ranges: static ranges of the inputs, by a rule of `calibration`; this needs `apply` and `batches`. By default each
        example (each row, in a dot product) brings its own range.
      axes: along which the scale varies; (0, -1) for kernels that are stacked for `scan`.

    Returns:
      A method for `compress` and `chain`.

    Raises:
      InputError: (when applied) for leaves that are compressed, not float, or not finite, all named; for static ranges
        without `apply` and `batches`, or with weights that no batch reached.

    Example:
      >>> small = quantize()({"kernel": jnp.array([[0.5, 2.0], [-1.0, 1.0]])}, Context())
      >>> small["kernel"].codes.tolist()
      [[64, 127], [-127, 64]]

    Source: Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference", section 3.
    """

    def method(variables: Any, context: Context) -> Any:
        leaves = named_leaves(variables, is_compressed)
        paths = selected(leaves, where)
        _check(dict(leaves), paths)
        steps: dict[str, Array] = {}
        if ranges and inputs:
            if context.apply is None:
                raise InputError(
                    "static ranges need apply= and batches=: compress(variables, method, apply=, batches=)"
                )
            steps = input_steps(context.apply, variables, context.batches, paths, ranges)
        chosen = set(paths)
        small = [
            _quantized(leaf, axes, steps.get(path), integer=inputs) if path in chosen else leaf for path, leaf in leaves
        ]
        return jax.tree.unflatten(jax.tree.structure(variables, is_leaf=is_compressed), small)

    return method


def _quantized(leaf: Array, axes: Sequence[int], step: Array | None, *, integer: bool) -> Quantized:
    leaf = jnp.asarray(leaf)
    varying = {axis % leaf.ndim for axis in axes} if leaf.ndim > 1 else set()
    codes, scale = _codes(leaf, tuple(axis for axis in range(leaf.ndim) if axis not in varying))
    return Quantized(codes, scale, step, integer=integer, dtype_name=leaf.dtype.name)


@functools.partial(jax.jit, static_argnames="shared")
def _codes(leaf: Array, shared: tuple[int, ...]) -> int8.Codes:
    return int8.quantize(leaf, shared)[0]


def _check(leaves: dict[str, Any], paths: Sequence[str]) -> None:
    def refuse(problem: str, advice: str, is_bad: Callable[[Any], bool]) -> None:
        bad = [path for path in paths if is_bad(leaves[path])]
        if bad:
            raise InputError(f"{', '.join(bad)}: {problem}; {advice}")

    refuse("compressed already", "start from nnc.decompress(variables), or choose with where=", is_compressed)
    refuse("not floating point", "choose other leaves with where=", lambda leaf: not _is_float(leaf))
    refuse("no entries", "choose other leaves with where=", lambda leaf: not np.size(leaf))
    refuse("NaN or infinite values", "restore an earlier checkpoint", lambda leaf: not _is_finite(leaf))


def _is_float(leaf: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.floating))


def _is_finite(leaf: Any) -> bool:
    """Traced values pass: nothing is known of them."""
    return isinstance(leaf, jax.core.Tracer) or bool(np.isfinite(np.asarray(leaf, np.float32)).all())
