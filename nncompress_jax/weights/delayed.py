"""On the CPU a weight is made dense when its inputs are there, so that one layer at a time is.

XLA would do it for all layers at once, and hold them all: what depends on no input is computed first, and
`lax.optimization_barrier` does not outlive the compiler there. So integers are combined with a bit that is never set,
and that only the inputs tell. Where several devices share the inputs it would have to be sent around, and is left out.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import quax

from nncompress_jax.ops import portable


def after_inputs(values: Sequence[Any]) -> list[Any]:
    """The operands of an operation, such that nothing is made of the compressed ones before the inputs are there."""
    floats = (x for x in values if not _is_compressed(x) and jnp.issubdtype(jnp.result_type(x), jnp.floating))
    inputs = next((x for x in floats if jnp.ndim(x) and jnp.size(x)), None)
    if inputs is None or portable.is_active() or jax.default_backend() != "cpu" or jax.device_count() > 1:
        return list(values)
    never = jnp.ravel(inputs)[0] > jnp.inf

    def held(part: Any) -> Any:
        return held_for_inputs(part, never) if jnp.issubdtype(part.dtype, jnp.integer) else part

    return [jax.tree.map(held, value) if _is_compressed(value) else value for value in values]


OF_FIRST_OPERAND = ("held_for_inputs", "filled_for")
"""Names in a program by which its readers know that the result belongs to the weight of the first operand."""


@jax.jit
def held_for_inputs(part: Any, never: Any) -> Any:
    """The integers as they are."""
    return part ^ never.astype(part.dtype)


@functools.partial(jax.jit, static_argnames=("shape", "dtype"))
def filled_for(part: Any, value: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """One value everywhere, in a product that is part of a weight's."""
    return jnp.full(shape, value, dtype)


def zeros(size: int, dtype: Any, *, after: Any) -> Any:
    """[size] zeros that are made once `after` is there, [n] integers from 0 on: as a constant they would be at once."""
    return jnp.full(size, (after[0] < 0).astype(dtype))


def _is_compressed(x: Any) -> bool:
    return isinstance(x, quax.ArrayValue)
