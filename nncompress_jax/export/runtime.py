"""Files of ONNX, run by onnxruntime on the CPU."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax.bars import tracked
from nncompress_jax.errors import InputError, require

require("nnc.export_onnx", "onnxruntime", extra="onnx")

import onnxruntime

from nncompress_jax.export.activations import without_unknown
from nncompress_jax.export.graph import Graph
from nncompress_jax.export.model import model_of
from nncompress_jax.inputs import is_array
from nncompress_jax.types import Apply

ERRORS = 3
"""The least severity of what onnxruntime prints."""


def session(model: bytes | str | Path) -> Any:
    """That runs a model, a file or what is in one, on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@dataclasses.dataclass(frozen=True)
class Served:
    """A network of one array in, and one out or, with early exits, a tuple of them.

    Attributes:
      apply: of ({}, images), as those of networks here; may be compiled.
      metadata: strings that the file holds, by name.
      takes_pixels: whether images are uint8, and normalized inside.
    """

    apply: Apply
    metadata: Mapping[str, str]
    takes_pixels: bool


def served(path: str | Path) -> Served:
    """The network in a file of ONNX, as a function that JAX can call.

    Raises:
      InputError: for what is no such file, and for networks of several inputs, or of outputs without examples.
    """
    try:
        runs = session(Path(path))
    except Exception as error:  # of onnxruntime's own types, which have no base
        line = str(error).splitlines()[0]
        raise InputError(f"{path}: no ONNX file that onnxruntime can run: {line}") from None
    inputs, outputs = runs.get_inputs(), runs.get_outputs()
    if len(inputs) != 1 or not all(output.shape for output in outputs):
        shapes = ", ".join(str(output.shape) for output in outputs)
        raise InputError(f"{path}: {len(inputs)} inputs, outputs {shapes}; expected one input, and outputs [B, ...]")
    name = inputs[0].name

    def run(images: Any) -> tuple[np.ndarray, ...]:
        return tuple(map(np.asarray, runs.run(None, {name: np.asarray(images)})))

    def apply(_: Any, images: Any) -> Any:
        shapes = (jax.ShapeDtypeStruct((images.shape[0], *output.shape[1:]), jnp.float32) for output in outputs)
        found = jax.pure_callback(run, tuple(shapes), images)
        return found if len(outputs) > 1 else found[0]

    metadata = dict(runs.get_modelmeta().custom_metadata_map)
    return Served(apply, metadata, "uint8" in inputs[0].type)


def measured(
    graph: Graph, names: Mapping[str, str], batches: Sequence[Any], wanted: Sequence[str], **options: Any
) -> dict[str, float]:
    """The largest magnitude of arrays of a graph.

    Args:
      graph: which stays as it is.
      names: of inputs and outputs.
      batches: arguments of the network.
      wanted: names of arrays.
      **options: of `model_of`.
    """
    open_graph = graph.copy()
    without_unknown(open_graph)
    runtime = session(model_of(open_graph, names, outputs=wanted, **options).SerializeToString())
    largest = dict.fromkeys(wanted, 0.0)
    shown = [names.get(name, name) for name in wanted]
    for batch in tracked(batches, "ranges of the data"):
        arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(batch) if is_array(leaf)]
        feed = dict(zip([names[name] for name in graph.inputs], arrays, strict=True))
        for name, found in zip(wanted, runtime.run(shown, feed), strict=True):
            largest[name] = max(largest[name], float(np.abs(found).max(initial=0)))
    return largest
