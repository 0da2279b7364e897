"""Primitives of which JAX exports the functions alone, as programs of these functions show them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name


def _primitive(function: Callable[..., Any], *shapes: tuple[int, ...]) -> Any:
    operands = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    return jax.make_jaxpr(function)(*operands).eqns[-1].primitive


def _varying(x: Any) -> Any:
    mesh = jax.sharding.AbstractMesh((1,), ("a",))
    varying = jax.shard_map(
        lambda x: lax.pcast(x, "a", to="varying"), mesh=mesh, in_specs=jax.P(), out_specs=jax.P("a")
    )
    return varying(x)


NAME = _primitive(lambda x: checkpoint_name(x, "x"), (1,))
RAGGED_DOT = _primitive(lambda x, w: lax.ragged_dot(x, w, jnp.ones(1, jnp.int32)), (1, 1), (1, 1, 1))
PVARY = jax.make_jaxpr(_varying)(np.zeros(1, np.float32)).eqns[0].params["jaxpr"].eqns[-1].primitive
"""Says inside `jax.shard_map` that what all devices have alike meets what each has for itself."""
