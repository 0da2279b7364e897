"""Tracing a function on arguments of all kinds: arrays are abstract, everything else is as it was given."""

from collections.abc import Callable, Hashable
from typing import Any

import jax

from nncompress_jax.errors import InputError
from nncompress_jax.inputs import is_array, of_arrays, shapes_of
from nncompress_jax.leaves import native
from nncompress_jax.tree import joined_keys, keyed_leaves
from nncompress_jax.types import Apply
from nncompress_jax.weights.base import is_compressed

Outputs = list[tuple[str, jax.ShapeDtypeStruct]]
"""Arrays that a function returns, with their paths; that of a single array is empty."""


def traced(
    apply: Apply,
    variables: Any,
    *inputs: Any,
    stand_in: Callable[[Any], Any] | None = None,
    **keywords: Any,
) -> tuple[Any, Outputs]:
    """The program of a function.

    Args:
      apply: of the other arguments.
      variables: its first argument.
      *inputs: the next ones: trees of arrays, `jax.ShapeDtypeStruct`, random keys, numbers, flags, None.
      stand_in: of a compressed weight, the description of the array that apply sees; by default apply is given the
        weight, of parts that are arrays.
      **keywords: likewise.

    Returns:
      The program, of the arrays among the arguments in the order of `jax.tree.leaves`; and the arrays that the function
      returns.

    Raises:
      InputError: where apply cannot be traced with these arguments.

    Example:
      >>> import jax.numpy as jnp
      >>> _, outputs = traced(lambda w, x, twice: x @ w if twice else x, jnp.ones((3, 2)), jnp.ones((4, 3)), twice=True)
      >>> outputs
      [('', ShapeDtypeStruct(shape=(4, 2), dtype=float32))]
    """
    program, outputs = _traced(apply, variables, inputs, stand_in, keywords)
    return program.jaxpr, outputs


def traced_closed(
    apply: Apply, variables: Any, *inputs: Any, stand_in: Callable[[Any], Any] | None = None, **keywords: Any
) -> Any:
    """The program of `traced`, closed: with the constants that it uses."""
    return _traced(apply, variables, inputs, stand_in, keywords)[0]


def traced_with_outputs(apply: Apply, variables: Any, *inputs: Any) -> tuple[Any, Outputs]:
    """The program of `traced`, closed, and the arrays that the function returns."""
    return _traced(apply, variables, inputs, None, {})


def _traced(
    apply: Apply,
    variables: Any,
    inputs: tuple[Any, ...],
    stand_in: Callable[[Any], Any] | None,
    keywords: dict[str, Any],
) -> tuple[Any, Outputs]:
    # Nodes of the arguments' own types are made of what they are for alone: some look at it, and cast it.
    paths: list[str] = []

    def called(given: tuple[tuple[Any, ...], dict[str, Any]]) -> Any:
        arguments, keywords = given
        returned = [(keys, leaf) for keys, leaf in keyed_leaves(apply(*arguments, **keywords)) if is_array(leaf)]
        paths[:] = joined_keys([keys for keys, _ in returned])
        return [leaf for _, leaf in returned]

    function, arrays = of_arrays(
        called,
        ((variables, *inputs), keywords),
        is_leaf=is_compressed if stand_in else None,
        stand_in=lambda leaf: stand_in(leaf) if stand_in and is_compressed(leaf) else native(leaf),
    )
    try:
        program, outputs = jax.make_jaxpr(function, return_shape=True)(arrays)
    except InputError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        given = shapes_of((*inputs, keywords) if keywords else inputs)
        hint = " (a tuple in batches= holds apply's further arguments, no labels)" if len(inputs) > 1 else ""
        raise InputError(
            f"apply cannot be traced with inputs of shape {given}{hint}: {type(error).__name__}: {lines[0]}"
        ) from error
    return program, list(zip(paths, outputs, strict=True))


def kinds(tree: Any) -> Hashable:
    """Equal for two trees of which a function that sees all weights dense has the same program.

    Example:
      >>> import jax.numpy as jnp
      >>> kinds({"w": jnp.ones(2), "n": 3}) == kinds({"w": jnp.zeros(2), "n": 3}) != kinds({"w": jnp.zeros(2), "n": 4})
      True
    """
    leaves, structure = jax.tree.flatten(tree, is_leaf=is_compressed)
    return structure, tuple(_kind(leaf) for leaf in leaves)


def _kind(leaf: Any) -> Hashable:
    if is_compressed(leaf) or is_array(leaf):
        array = leaf if is_compressed(leaf) else native(leaf)
        return tuple(array.shape), str(array.dtype), bool(getattr(array, "weak_type", False))
    return type(leaf), leaf
