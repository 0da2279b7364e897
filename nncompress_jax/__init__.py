"""Compress trained JAX and Flax networks."""

from nncompress_jax import models
from nncompress_jax.costs import Cost, LayerCost, cost
from nncompress_jax.errors import InputError
from nncompress_jax.injection import inject, observe
from nncompress_jax.methods import calibration
from nncompress_jax.methods.quantize import quantize
from nncompress_jax.recipes import chain, compress, decompress
from nncompress_jax.report.int8 import int8_report

__all__ = [
    "Cost",
    "InputError",
    "LayerCost",
    "calibration",
    "chain",
    "compress",
    "cost",
    "decompress",
    "inject",
    "int8_report",
    "models",
    "observe",
    "quantize",
]
