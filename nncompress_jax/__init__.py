"""Compress trained JAX and Flax networks."""

from nncompress_jax import models
from nncompress_jax.costs import Cost, LayerCost, cost
from nncompress_jax.errors import InputError

__all__ = ["Cost", "InputError", "LayerCost", "cost", "models"]
