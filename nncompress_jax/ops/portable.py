"""Programs for other runtimes: in operations of lax alone, and with products of integers as products of floats.

Within `portable()` no float operation takes a form of our own, and nothing asks on which backend it is traced. A
product on 8-bit integers is the float operation on `dequantized_p` of the kernel's codes and `rounded_p` of the inputs,
of which a runtime makes integers again; or it stays one on integers, with a branch for each platform.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any, Literal

import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend import core
from jax.interpreters import mlir

from nncompress_jax.types import Array

rounded_p = core.Primitive("rounded")
"""Of (x, scale) or (x,): x rounded to whole scales from -127 to 127; without a scale, to one of its own choice."""

dequantized_p = core.Primitive("dequantized")
"""Of (codes, scale): int8 codes times a float32 scale that broadcasts to them."""

Products = Literal["floats", "integers"]

_PRODUCTS = contextvars.ContextVar[Products | None]("portable", default=None)


@contextlib.contextmanager
def portable(products: Products = "floats") -> Iterator[None]:
    """While a program is traced.

    Args:
      products: what products on 8-bit integers are written as.

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
    token = _PRODUCTS.set(products)
    try:
        yield
    finally:
        _PRODUCTS.reset(token)


def is_active() -> bool:
    """Whether a program is traced in this way."""
    return _PRODUCTS.get() is not None


def products_are_floats() -> bool:
    """Whether those on 8-bit integers are to be written so."""
    return _PRODUCTS.get() == "floats"


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
