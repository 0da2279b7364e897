"""Files of ONNX, run by onnxruntime on the CPU."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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
    """A network of one array in and one out.

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
      InputError: for what is no such file, and for networks of several inputs or outputs.
    """
    try:
        runs = session(Path(path))
    except Exception as error:  # of onnxruntime's own types, which have no base
        line = str(error).splitlines()[0]
        raise InputError(f"{path}: no ONNX file that onnxruntime can run: {line}") from None
    inputs, outputs = runs.get_inputs(), runs.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1 or len(outputs[0].shape) < 1:
        raise InputError(f"{path}: {len(inputs)} inputs and {len(outputs)} outputs; expected one of each")
    name, shape = inputs[0].name, outputs[0].shape[1:]

    def run(images: Any) -> np.ndarray:
        return np.asarray(runs.run(None, {name: np.asarray(images)})[0])

    def apply(_: Any, images: Any) -> Any:
        return jax.pure_callback(run, jax.ShapeDtypeStruct((images.shape[0], *shape), jnp.float32), images)

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
    for batch in batches:
        arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(batch) if is_array(leaf)]
        feed = dict(zip([names[name] for name in graph.inputs], arrays, strict=True))
        for name, found in zip(wanted, runtime.run(shown, feed), strict=True):
            largest[name] = max(largest[name], float(np.abs(found).max(initial=0)))
    return largest
