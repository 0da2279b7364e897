"""Compressing variables, by one method or a chain of them, and undoing it."""

import functools
from collections.abc import Sequence
from typing import Any

import jax

from nncompress_jax.methods.quantize import quantize
from nncompress_jax.types import Apply, Context, Method
from nncompress_jax.weights.base import dense, is_compressed


def compress(
    variables: Any, method: Method | None = None, *, apply: Apply | None = None, batches: Sequence[Any] = ()
) -> Any:
    """Compresses the weights of a network.

    Args:
      variables: any pytree of arrays; it stays as it is.
      method: what is done, such as `quantize(...)` or `chain(...)`; by default 8-bit integers, one scale for each
        output channel, in every kernel and every larger matrix.
      apply: the network, for methods that need it.
      batches: representative inputs, for methods that need them; each an array, or a tuple of apply's further
        arguments.

    Returns:
      The same tree with compressed weights in the leaves' places; for `inject(apply)`.

    Raises:
      InputError: as the method says.

    Example:
      >>> import jax.numpy as jnp
      >>> small = compress({"kernel": jnp.ones((64, 64)), "bias": jnp.ones(64)})
      >>> type(small["kernel"]).__name__, small["kernel"].shape, small["kernel"].nbytes
      ('Quantized', (64, 64), 4352)
    """
    return (method or quantize())(variables, Context(apply, tuple(batches)))


def decompress(variables: Any) -> Any:
    """The same tree with dense arrays in the places of compressed weights.

    Example:
      >>> import jax.numpy as jnp
      >>> decompress(compress({"kernel": jnp.ones((64, 64))}))["kernel"].shape
      (64, 64)
    """
    return jax.tree.map(dense, variables, is_leaf=is_compressed)


def chain(*methods: Method) -> Method:
    """Several methods as one, the first first.

    Each sees what the one before it made. Where both would take the same leaf, the second refuses and names it.

    Example:
      >>> import jax.numpy as jnp
      >>> method = chain(quantize(where="a"), quantize(where="b", inputs=False))
      >>> [leaf.integer for leaf in compress({"a": jnp.ones((8, 8)), "b": jnp.ones((8, 8))}, method).values()]
      [True, False]
    """

    def method(variables: Any, context: Context) -> Any:
        return functools.reduce(lambda result, step: step(result, context), methods, variables)

    return method
