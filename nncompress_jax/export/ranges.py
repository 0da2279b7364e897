"""Magnitudes of data inside of a network, measured by the runtime that will run it."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from nncompress_jax.errors import require

require("nnc.export_onnx", "onnxruntime", extra="onnx")

import onnxruntime

from nncompress_jax.export.activations import without_unknown
from nncompress_jax.export.graph import Graph
from nncompress_jax.export.model import model_of
from nncompress_jax.inputs import is_array


def session(content: bytes | str) -> Any:
    """That runs a model on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


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
