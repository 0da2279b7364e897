"""Programs for other runtimes: in operations of lax alone, and with products of integers as products of floats.

Within `portable()` no operation takes a form of our own. A product on 8-bit integers is the float operation on
`dequantized_p` of the kernel's codes and `rounded_p` of the inputs; a runtime makes integers of that again.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend import core
from jax.interpreters import mlir

from nncompress_jax.types import Array

rounded_p = core.Primitive("rounded")
"""Of (x, scale) or (x,): x rounded to whole scales from -127 to 127; without a scale, to one of its own choice."""

dequantized_p = core.Primitive("dequantized")
"""Of (codes, scale): int8 codes times a float32 scale that broadcasts to them."""

_ACTIVE = contextvars.ContextVar("portable", default=False)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """While a program is traced.

    Example:
      >>> import jax
      >>> from nncompress_jax.ops.int8 import dot_general
      >>> product, x = lambda x: dot_general(x, x, (((1,), (0,)), ((), ()))), jnp.ones((2, 2))
      >>> with portable():
      ...     program = jax.make_jaxpr(product)(x)
      >>> names = [equation.primitive.name for equation in program.jaxpr.eqns[-1].params["call_jaxpr"].jaxpr.eqns]
      >>> names[-3:]
      ['dequantized', 'rounded', 'dot_general']
    """
    token = _ACTIVE.set(True)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def is_active() -> bool:
    """Whether a program is traced in this way."""
    return _ACTIVE.get()


def rounded(x: Array, *scale: Array) -> Array:
    """Rounded to whole scales, where one is given."""
    if not scale:
        return x
    return jnp.clip(jnp.round(x / scale[0]), -127, 127) * scale[0]


def dequantized(codes: Array, scale: Array) -> Array:
    """Float32."""
    return codes.astype(jnp.float32) * scale


def _define(primitive: Any, function: Any) -> None:
    primitive.def_impl(function)
    primitive.def_abstract_eval(lambda x, *_: ShapedArray(x.shape, jnp.float32))
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))


_define(rounded_p, rounded)
_define(dequantized_p, dequantized)
