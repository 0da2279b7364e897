"""Tracing a function on arguments of all kinds: arrays are abstract, everything else is as it was given."""

from typing import Any

import equinox as eqx
import jax

from nncompress_jax.errors import InputError
from nncompress_jax.inputs import is_array, shapes_of
from nncompress_jax.types import Apply


def traced(apply: Apply, variables: Any, *inputs: Any, **keywords: Any) -> tuple[Any, Any]:
    """The program of a function.

    Args:
      apply: of the other arguments.
      variables: its first argument.
      *inputs: the next ones: trees of arrays, `jax.ShapeDtypeStruct`, random keys, numbers, flags, None.
      **keywords: likewise.

    Returns:
      The program, of the arrays among the arguments in the order of `jax.tree.leaves`; and what the function returns,
      with shapes in the places of arrays.

    Raises:
      InputError: where apply cannot be traced with these arguments.

    Example:
      >>> import jax.numpy as jnp
      >>> _, outputs = traced(lambda w, x, twice: x @ w if twice else x, jnp.ones((3, 2)), jnp.ones((4, 3)), twice=True)
      >>> outputs.shape
      (4, 2)
    """
    arrays, others = eqx.partition(((variables, *inputs), keywords), is_array)
    leaves, structure = jax.tree.flatten(arrays)

    def function(*leaves: Any) -> Any:
        arguments, keywords = eqx.combine(jax.tree.unflatten(structure, leaves), others)
        return eqx.filter(apply(*arguments, **keywords), is_array)

    try:
        program, outputs = jax.make_jaxpr(function, return_shape=True)(*leaves)
    except InputError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        given = shapes_of((*inputs, keywords) if keywords else inputs)
        hint = " (a tuple in batches= holds apply's further arguments, no labels)" if len(inputs) > 1 else ""
        raise InputError(
            f"apply cannot be traced with inputs of shape {given}{hint}: {type(error).__name__}: {lines[0]}"
        ) from error
    return program.jaxpr, outputs
