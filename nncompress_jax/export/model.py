"""A graph as a model of ONNX."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nncompress_jax.errors import InputError, require

require("nnc.export_onnx", "onnx", extra="onnx")

import ml_dtypes
import onnx
from onnx import helper, numpy_helper

from nncompress_jax.export.activations import MOVING, integer_products, is_not_negative
from nncompress_jax.export.graph import Graph, Node, Product
from nncompress_jax.programs.sizes import Batch, Sizes

IR_VERSION = 10
"""Of ONNX 1.16, the first with opset 21."""

LARGEST = 2**31 - 2**20
"""Bytes of a model in one file."""


class _Nodes:
    """Nodes of ONNX, one after the other.

    Attributes:
      on_integers: products of codes by codes.
      quantized: of what is rounded: the array of codes, and its scale and zero point.
    """

    def __init__(self, graph: Graph, reduce_range: bool) -> None:
        self.graph, self.reduce_range = graph, reduce_range
        self.nodes: list[Any] = []
        self.on_integers = integer_products(graph)
        self.quantized: dict[str, tuple[str, float, np.uint8]] = {}

    def add(self, operation: str, inputs: Sequence[str], output: str, scope: str = "", **attributes: Any) -> str:
        if "to" in attributes:
            attributes["to"] = helper.np_dtype_to_tensor_dtype(np.dtype(attributes["to"]))
        name = f"{scope}/{output}" if scope else output
        self.nodes.append(helper.make_node(operation, inputs, [output], name, **attributes))
        return output

    def written(self, node: Node) -> None:
        if isinstance(node, Product):
            self.product(node)
        elif node.operation == "Rounded":
            self.rounded(node)
        elif node.operation in MOVING and node.inputs[0] in self.quantized:
            self.moved(node)
        else:
            (output,) = node.outputs
            self.add(node.operation, node.inputs, output, node.scope, **node.attributes)

    def moved(self, node: Node) -> None:
        """Codes instead of floats."""
        (name, *others), (output,) = node.inputs, node.outputs
        codes, scale, zero = self.quantized[name]
        new = self.add(node.operation, [codes, *others], f"{output}_codes", node.scope, **node.attributes)
        self.quantized[output] = new, scale, zero
        self.add("DequantizeLinear", [new, *self.parameters(scale, zero)], output, node.scope)

    def parameters(self, scale: float, zero: np.uint8) -> list[str]:
        return [self.graph.constant(np.float32(scale)), self.graph.constant(zero)]

    def rounded(self, node: Node) -> None:
        (name,), (output,) = node.inputs, node.outputs
        scale, zero = node.attributes["scale"], np.uint8(0 if is_not_negative(self.graph, name) else 128)
        scale *= 2 if zero and self.reduce_range else 1
        parameters = self.parameters(scale, zero)
        codes = self.add("QuantizeLinear", [name, *parameters], f"{output}_codes", node.scope)
        self.quantized[output] = codes, scale, zero
        self.add("DequantizeLinear", [codes, *parameters], output, node.scope)

    def product(self, node: Product) -> None:
        (x,), (output,) = node.inputs, node.outputs
        known = self.quantized[x] if node in self.on_integers else None
        rows = node.operation == "Dot" and len(self.graph.sizes[x]) != 2
        result = f"{output}_rows" if rows else output
        if rows:
            x = self._rows(x, node.weight.shape[0], known, output)
        inputs = [x, self._weight(node, known is not None, output)]
        if node.bias is not None:
            inputs.append(self._bias(node, known[1] if known else None, output))
        operation = "Gemm" if node.operation == "Dot" else node.operation
        self.add(operation, inputs, result, node.scope, **node.attributes)
        if rows:
            target = [-1 if isinstance(size, Batch) else size for size in self.graph.sizes[output]]
            self.add("Reshape", [result, self.graph.integers(target)], output, node.scope)

    def _rows(self, x: str, inner: int, known: tuple[str, float, np.uint8] | None, output: str) -> str:
        """[rows, inner]; of rounded data codes are moved."""
        shape = self.graph.integers([-1, inner])
        if known is None:
            return self.add("Reshape", [x, shape], f"{output}_flat")
        codes, scale, zero = known
        flat = self.add("Reshape", [codes, shape], f"{output}_flat_codes")
        return self.add("DequantizeLinear", [flat, *self.parameters(scale, zero)], f"{output}_flat")

    def _weight(self, node: Product, on_integers: bool, output: str) -> str:
        graph = self.graph
        if node.scale is None:
            return graph.constant(np.ascontiguousarray(node.weight))
        axis = 1 if node.operation in ("Dot", "ConvTranspose") else 0
        if on_integers:
            codes = self._codes(node, np.int8, output)
            inputs = [codes, graph.constant(node.scale), graph.constant(np.zeros(node.scale.shape, np.int8))]
            attributes = {"axis": axis} if node.scale.ndim else {}
            return self.add("DequantizeLinear", inputs, f"{output}_weight", node.scope, **attributes)
        floats = self._codes(node, np.float32 if node.book is None else np.int32, output)
        if node.book is not None:
            floats = self.add("Gather", [graph.constant(node.book), floats], f"{output}_values", node.scope, axis=0)
        scale = node.scale
        if scale.ndim:
            scale = scale.reshape([-1 if n == axis else 1 for n in range(node.weight.ndim)])
        return self.add("Mul", [floats, graph.constant(scale)], f"{output}_weight", node.scope)

    def _codes(self, node: Product, dtype: Any, output: str) -> str:
        """As numbers of a type; in the file in 4 bits, where they fit. onnxruntime casts constants on loading."""
        codes = np.ascontiguousarray(node.weight)
        narrow = np.dtype(ml_dtypes.int4 if codes.dtype == np.int8 else ml_dtypes.uint4)
        lowest, highest = (-8, 7) if codes.dtype == np.int8 else (0, 15)
        if codes.min(initial=0) >= lowest and codes.max(initial=0) <= highest:
            codes = codes.astype(narrow)
        elif codes.dtype == dtype:
            return self.graph.constant(codes)
        return self.add("Cast", [self.graph.constant(codes)], f"{output}_codes_cast", node.scope, to=dtype)

    def _bias(self, node: Product, scale: float | None, output: str) -> str:
        assert node.bias is not None
        if scale is None:
            return self.graph.constant(node.bias.astype(np.float32))
        assert node.scale is not None
        own = np.float32(scale) * node.scale
        limit = np.iinfo(np.int32).max
        codes = np.clip(np.rint(node.bias / own), -limit, limit).astype(np.int32)
        factors = [self.graph.constant(node.scale), self.graph.constant(np.float32(scale))]
        product = self.add("Mul", factors, f"{output}_bias_scale", node.scope)  # folded on loading: fewer bytes
        inputs = [self.graph.constant(codes), product]
        attributes = {"axis": 0} if own.ndim else {}
        return self.add("DequantizeLinear", inputs, f"{output}_bias", node.scope, **attributes)


def model_of(
    graph: Graph,
    names: Mapping[str, str],
    *,
    opset: int,
    metadata: Mapping[str, str],
    reduce_range: bool,
    outputs: Sequence[str] = (),
) -> Any:
    """A model, checked.

    Args:
      graph: whose data are rounded where that is known.
      names: of inputs and outputs, as the model is to show them.
      opset: of ONNX.
      metadata: beside the model.
      reduce_range: as of `export_onnx`.
      outputs: further arrays that it returns.
    """
    nodes = _Nodes(graph, reduce_range)
    for node in graph.nodes:
        nodes.written(node)
    results = [*graph.outputs, *(name for name in outputs if name not in graph.outputs)]
    renamed = {name: names.get(name, name) for name in [*graph.inputs, *results]}
    for node in nodes.nodes:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    written_nodes = _used(nodes.nodes, [renamed[name] for name in results])
    used = {name for node in written_nodes for name in node.input}
    constants = {name: array for name, array in graph.constants.items() if name in used}
    if (size := sum(array.nbytes for array in constants.values())) > LARGEST:
        raise InputError(f"a model of {size:,} bytes: ONNX holds at most {LARGEST:,} in one file; compress it further")
    inputs = [_described(renamed[name], graph.sizes[name], graph.dtypes[name]) for name in graph.inputs]
    returned = [_described(renamed[name], graph.sizes[name], graph.dtypes[name]) for name in results]
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    written = helper.make_graph(written_nodes, "network", inputs, returned, tensors)
    model = helper.make_model(
        written, opset_imports=[helper.make_opsetid("", opset)], producer_name="nncompress_jax", ir_version=IR_VERSION
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True))
    return model


def _used(nodes: Sequence[Any], results: Sequence[str]) -> list[Any]:
    """Nodes that results depend on."""
    needed, found = set(results), []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.output):
            needed |= set(node.input)
            found.append(node)
    return found[::-1]


def _described(name: str, sizes: Sizes, dtype: np.dtype) -> Any:
    shape = [("batch" if size.times == 1 else None) if isinstance(size, Batch) else size for size in sizes]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape)
