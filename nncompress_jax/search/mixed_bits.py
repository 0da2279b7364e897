"""How many bits each weight gets, by how much noise its rounding makes beside its signal."""

from typing import Any

import jax.numpy as jnp

from nncompress_jax.errors import InputError
from nncompress_jax.methods.quantize import quantize
from nncompress_jax.methods.selection import replaced
from nncompress_jax.methods.steps import base_path
from nncompress_jax.search.knapsack import knapsack
from nncompress_jax.tree import Where
from nncompress_jax.types import Array, Context, Method
from nncompress_jax.weights.quantized import Quantized

LEVELS = (2, 3, 4, 8)
"""Bits that a weight may get."""


def mixed_bits(*, bits: float = 4.0, where: Where = None) -> Method:
    """Weights as integers of 8, 4, 3 or 2 bits each, so that their ratios of noise to signal have the least sum.

    It looks at no data. The sum of these ratios is what reaches the output of a network where each layer adds its own
    noise and passes on that of the others. `auto` weighs weights by what they do to the loss instead.

    Args:
      bits: for each entry, on average over all weights, from 2 to 8.
      where: which leaves, as in `quantize`.

    Returns:
      A method for `compress` and `chain`.

    Raises:
      InputError: for other bits, and as `quantize` does.

    Example:
      >>> variables = {"large": {"kernel": jnp.ones((99, 64))}, "small": {"kernel": jnp.eye(32)}}
      >>> small = mixed_bits(bits=3)(variables, Context())
      >>> {name: type(layer["kernel"].codes).__name__ for name, layer in small.items()}  # of 2 to 4 bits, or of 8
      {'large': 'Packed', 'small': 'ArrayImpl'}

    Source: Lin et al. 2016, "Fixed Point Quantization of Deep Convolutional Networks", section 3: there the bits follow
    from the sizes of the layers, for weights of one distribution; here the noise is measured.
    """
    if not 2 <= bits <= 8:
        raise InputError(f"bits={bits}: expected from 2 to 8")

    def method(variables: Any, context: Context) -> Any:
        weights: dict[str, dict[str, Array]] = {}  # of each leaf, the arrays that it holds

        def take(path: str, leaf: Array) -> Array:
            weights.setdefault(base_path(path), {})[path] = leaf
            return leaf

        replaced(variables, where, take, makes=Quantized, context=context)
        sizes = [sum(leaf.size for leaf in arrays.values()) for arrays in weights.values()]
        costs = [[size * level for level in LEVELS] for size in sizes]
        ratios = [
            [sum(_noise(path, leaf, level, context) for path, leaf in arrays.items()) for level in LEVELS]
            for arrays in weights.values()
        ]
        places = knapsack(costs, ratios, bits * sum(sizes))
        assert places is not None  # the least bits always fit
        chosen = dict(zip(weights, [LEVELS[place] for place in places], strict=True))
        for level in LEVELS:
            if level in chosen.values():
                paths = {path for path, own in chosen.items() if own == level}
                variables = quantize(bits=level, where=paths.__contains__)(variables, context)
        return variables

    return method


def _noise(path: str, leaf: Array, bits: int, context: Context) -> float:
    """The squared error of rounding over the square of the weight."""
    rounded = quantize(bits=bits, where=lambda _: True)({path: leaf}, context)[path].materialise()
    square = float(jnp.square(leaf.astype(jnp.float32)).sum())
    return float(jnp.square(rounded.astype(jnp.float32) - leaf).sum()) / square if square else 0.0
