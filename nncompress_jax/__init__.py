"""Compress trained JAX and Flax networks."""

import importlib.metadata

from nncompress_jax import losses, models
from nncompress_jax.artifact.info import Info
from nncompress_jax.artifact.reader import Loaded, load
from nncompress_jax.artifact.size import stored_size
from nncompress_jax.artifact.writer import save
from nncompress_jax.coupling.analysis import coupling
from nncompress_jax.errors import ArtifactError, InputError
from nncompress_jax.exits import early_exit, exit_macs, exit_thresholds
from nncompress_jax.export.onnx import Exported, export_onnx
from nncompress_jax.export.stablehlo import export_stablehlo
from nncompress_jax.importers.safetensors import load_safetensors, save_safetensors
from nncompress_jax.methods import batch_norm, calibration
from nncompress_jax.methods.bias_correction import correct_biases
from nncompress_jax.methods.binarize import binarize
from nncompress_jax.methods.channels import criteria
from nncompress_jax.methods.channels.pruning import prune_channels
from nncompress_jax.methods.channels.shrinking import shrink
from nncompress_jax.methods.channels.unused import remove_unused_channels
from nncompress_jax.methods.cluster import cluster
from nncompress_jax.methods.conversion import convert
from nncompress_jax.methods.equalize import equalize
from nncompress_jax.methods.factorize import factorize
from nncompress_jax.methods.fake_quantize import fake_quantize
from nncompress_jax.methods.hash_weights import hash_weights
from nncompress_jax.methods.prune import prune
from nncompress_jax.methods.quantize import quantize
from nncompress_jax.methods.reestimate import reestimate
from nncompress_jax.methods.synthetic import synthetic_images
from nncompress_jax.methods.ternarize import ternarize
from nncompress_jax.recipes import chain, compress, decompress, recipe
from nncompress_jax.report.explain import explain
from nncompress_jax.report.int8 import int8_report
from nncompress_jax.report.page import report
from nncompress_jax.search.auto import auto
from nncompress_jax.search.front import front
from nncompress_jax.search.mixed_bits import mixed_bits
from nncompress_jax.search.sweep import sensitivity
from nncompress_jax.tracing.costs import Cost, LayerCost, cost
from nncompress_jax.tracing.injection import inject, observe
from nncompress_jax.weights.optimizer import ema, optimizer
from nncompress_jax.weights.parts import combine, decays, grad, partition, value_and_grad
from nncompress_jax.weights.stochastic_rounding import stochastic_rounding

__version__ = importlib.metadata.version("nncompress-jax")

__all__ = [
    "ArtifactError",
    "Cost",
    "Exported",
    "Info",
    "InputError",
    "LayerCost",
    "Loaded",
    "__version__",
    "auto",
    "batch_norm",
    "binarize",
    "calibration",
    "chain",
    "cluster",
    "combine",
    "compress",
    "convert",
    "correct_biases",
    "cost",
    "coupling",
    "criteria",
    "decays",
    "decompress",
    "early_exit",
    "ema",
    "equalize",
    "exit_macs",
    "exit_thresholds",
    "explain",
    "export_onnx",
    "export_stablehlo",
    "factorize",
    "fake_quantize",
    "front",
    "grad",
    "hash_weights",
    "inject",
    "int8_report",
    "load",
    "load_safetensors",
    "losses",
    "mixed_bits",
    "models",
    "observe",
    "optimizer",
    "partition",
    "prune",
    "prune_channels",
    "quantize",
    "recipe",
    "reestimate",
    "remove_unused_channels",
    "report",
    "save",
    "save_safetensors",
    "sensitivity",
    "shrink",
    "stochastic_rounding",
    "stored_size",
    "synthetic_images",
    "ternarize",
    "value_and_grad",
]
