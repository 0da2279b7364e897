"""Elementwise operations on what lacks channels: on what is there, and once on the fills."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import quax
from jax import lax
from jax.extend.core.primitives import add_jaxvals_p

from nncompress_jax.axes.primitives import NAME, PVARY
from nncompress_jax.weights.base import bind, registered, run
from nncompress_jax.weights.channel_pruned import (
    ChannelPruned,
    at,
    channel_pruned,
    cuts_of,
    fill_of,
    has_zeros,
    on_fills,
)
from nncompress_jax.weights.channels import Cuts, intersection, union

NAMES = (
    "abs acos acosh add and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp clz complex conj copy "
    "cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt igamma igammac imag integer_pow is_finite "
    "le le_to lgamma log log1p logistic lt lt_to max min mul ne neg nextafter not or polygamma population_count pow "
    "real reduce_precision regularized_incomplete_beta rem round rsqrt select_n shift_left shift_right_arithmetic "
    "shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh xor zeta "
)
ELEMENTWISE = (
    NAME,
    PVARY,
    add_jaxvals_p,
    lax.convert_element_type_p,
    *(getattr(lax, f"{name}_p") for name in NAMES.split()),
)
"""Operations whose results depend on the operands' entries at the same place alone."""


def elementwise(primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
    """What is there in any operand is there in the result; a product lacks what any factor lacks as zero.

    A quotient lacks what its dividend does.
    """
    shape = jnp.broadcast_shapes(*(jnp.shape(value) for value in values))
    values = [_broadcast(value, shape) if jnp.ndim(value) else value for value in values]
    factors = {lax.mul_p: values, lax.div_p: values[:1]}.get(primitive, ())
    if any(map(has_zeros, factors)):
        cuts, fill = _every(intersection, [cuts_of(value) for value in factors if has_zeros(value)]), None
    elif primitive is lax.select_n_p and jnp.ndim(values[0]) and all(map(has_zeros, values[1:])):
        cuts, fill = _every(union, _there(values[1:])), None
    else:
        cuts = _every(union, _there([value for value in values if jnp.ndim(value)]))
        if all(cut is None for cut in cuts):
            return "with an array that has all channels"
        fill = on_fills(lambda *fills: primitive.bind(*map(jnp.asarray, fills), **params), [*map(fill_of, values)])
    return channel_pruned(run(primitive, [at(value, cuts) for value in values], params), fill, cuts)


def _broadcast(value: Any, shape: tuple[int, ...]) -> Any:
    """Axes of size 1 as long as the others'."""
    if jnp.shape(value) == shape:
        return value
    params = {"shape": shape, "broadcast_dimensions": tuple(range(len(shape))), "sharding": None}
    return bind(lax.broadcast_in_dim_p, (value,), params)


def _there(values: Sequence[Any]) -> list[Cuts]:
    """Cuts of the operands but those that are one value everywhere, unless all are."""
    return [cuts_of(value) for value in values if not (isinstance(value, ChannelPruned) and value.is_uniform)] or [
        cuts_of(values[0])
    ]


def _every(combine: Any, cuts: Sequence[Cuts]) -> Cuts:
    return tuple(map(combine, zip(*cuts, strict=True)))


def register() -> None:
    """Makes this the rule of what lacks channels."""
    for primitive in ELEMENTWISE:
        if primitive is not lax.convert_element_type_p:  # of which every weight has a rule
            registered(primitive, ChannelPruned, elementwise)


@quax.register(lax.convert_element_type_p)
def _(weight: ChannelPruned, **params: Any) -> Any:
    return elementwise(lax.convert_element_type_p, (weight,), params)
