"""Operations on floats that have a form of our own, which runs well on every platform."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from nncompress_jax.ops import portable
from nncompress_jax.ops.conv import convolve
from nncompress_jax.ops.pooling import pool
from nncompress_jax.types import Array

FAST: dict[Any, Callable[..., Array]] = {lax.conv_general_dilated_p: convolve, lax.reduce_window_max_p: pool}
"""By primitive, functions of the same operands and parameters."""


def has_fast_form(primitive: Any, operands: Sequence[Any], params: Mapping[str, Any]) -> bool:
    """Whether `FAST` takes these operands (anything with a dtype)."""
    if primitive not in FAST or params.get("batch_group_count", 1) != 1 or portable.is_active():
        return False
    return all(jnp.issubdtype(jnp.result_type(x), jnp.floating) for x in operands)
