"""A graph as ONNX has it, before it is written: nodes with names of arrays, and constants."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from nncompress_jax.errors import InputError
from nncompress_jax.programs.sizes import Batch, Sizes


@dataclasses.dataclass(eq=False)
class Node:
    """An operation.

    Attributes:
      operation: of ONNX, or one of ours: "Rounded", "Product" (see `Product`).
      inputs: names of arrays; "" for one that is left out.
      outputs: likewise.
      attributes: of the operation.
      scope: module of the network that it comes from.
    """

    operation: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)
    scope: str = ""


@dataclasses.dataclass(eq=False)
class Product(Node):
    """A product of data, its only input, and a weight that is known.

    Attributes:
      weight: float32, or codes: [O, I / groups, ...] of a convolution, [I, O] of a dot product. int8, or uint8 with a
        book.
      scale: of codes: float32, one for all or [O].
      book: float32 [K], in which codes are places.
      bias: [O] float64, or None.
    """

    weight: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(()))
    scale: np.ndarray | None = None
    book: np.ndarray | None = None
    bias: np.ndarray | None = None

    @property
    def channel_axis(self) -> int:
        """Of O in the output."""
        return -1 if self.operation == "Dot" else 1

    @property
    def channels(self) -> int:
        """O."""
        if self.operation == "ConvTranspose":
            return int(self.weight.shape[1] * self.attributes.get("group", 1))
        return int(self.weight.shape[1 if self.operation == "Dot" else 0])

    def multiply(self, factor: np.ndarray) -> None:
        """By a number for each output channel, [O]. Scales of integers stay above zero: signs and zeros go to codes."""
        axis = 1 if self.operation in ("Dot", "ConvTranspose") else 0
        weight, groups = self.weight, self.attributes.get("group", 1)
        if self.operation == "ConvTranspose" and groups > 1:  # [I, O / groups, ...]
            rows = factor.reshape(groups, -1).repeat(weight.shape[0] // groups, 0)
            shaped = rows.reshape(*rows.shape, *[1] * (weight.ndim - 2))
        else:
            shaped = factor.reshape([-1 if n == axis else 1 for n in range(weight.ndim)])
        if self.scale is None:
            self.weight = (weight * shaped).astype(np.float32)
            return
        scale = np.asarray(self.scale, np.float64) * factor
        if self.book is None:
            self.weight = (weight * np.sign(shaped)).astype(np.int8)
            scale = np.where(scale == 0, 1, np.abs(scale))
        self.scale = scale.astype(np.float32)


class Graph:
    """What is written, in the order in which it runs.

    Attributes:
      nodes: all.
      constants: arrays, by name.
      sizes: of arrays, by name, as they are stored.
      dtypes: likewise.
      inputs, outputs: names.
      scope: of the nodes that are added next.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}
        self.sizes: dict[str, Sizes] = {}
        self.dtypes: dict[str, np.dtype] = {}
        self.inputs: list[str] = []
        self.outputs: list[str] = []
        self.scope = ""
        self._count = 0
        self._known: dict[Any, str] = {}

    def copy(self) -> "Graph":
        """To which more can be added."""
        other = Graph()
        other.nodes = [copy.copy(node) for node in self.nodes]
        for node in other.nodes:
            node.inputs, node.outputs = [*node.inputs], [*node.outputs]
        other.constants, other.sizes, other.dtypes = dict(self.constants), dict(self.sizes), dict(self.dtypes)
        other.inputs, other.outputs = [*self.inputs], [*self.outputs]
        other._count, other._known = self._count, dict(self._known)
        return other

    def new(self, kind: str, sizes: Sequence[int | Batch], dtype: Any) -> str:
        """Name of an array that a node will make."""
        self._count += 1
        name = f"{kind.lower()}_{self._count}"
        self.sizes[name], self.dtypes[name] = tuple(sizes), np.dtype(dtype)
        return name

    def add(
        self, operation: str, inputs: Sequence[str], sizes: Sequence[int | Batch], dtype: Any, **attributes: Any
    ) -> str:
        """A node of one result, which it names."""
        name = self.new(operation, sizes, dtype)
        self.nodes.append(Node(operation, [*inputs], [name], attributes, self.scope))
        return name

    def product(self, operation: str, x: str, sizes: Sequence[int | Batch], **fields: Any) -> str:
        """A node that multiplies by a weight; `fields`: of `Product`."""
        name = self.new(operation, sizes, np.float32)
        node = Product(operation, [x], [name], scope=self.scope, **fields)
        if node.scale is not None and np.min(node.scale) <= 0:
            factor, node.scale = np.broadcast_to(node.scale, node.channels), np.ones((), np.float32)
            node.multiply(factor)
        self.nodes.append(node)
        return name

    def constant(self, array: Any) -> str:
        """Its name; the same for the same array."""
        array = np.asarray(array)
        key = array.dtype.name, array.shape, array.tobytes()
        if key not in self._known:
            self._known[key] = self.new("constant", array.shape, array.dtype)
            self.constants[self._known[key]] = array
        return self._known[key]

    def integers(self, values: Sequence[int]) -> str:
        """A constant vector."""
        return self.constant(np.asarray(values, np.int64))

    def batch_size(self) -> str:
        """[1] int64: the number of examples, as the first input with a leading axis of them has it."""
        for name in self.inputs:
            if self.sizes[name] and self.sizes[name][0] == Batch():
                return self.add("Shape", [name], [1], np.int64, start=0, end=1)
        raise InputError("no input has a leading axis of examples")

    def shape(self, sizes: Sequence[int | Batch]) -> str:
        """[n] int64: these sizes, as an array."""
        if all(isinstance(size, int) for size in sizes):
            return self.integers([int(size) for size in sizes])  # type: ignore[arg-type]
        batch = self.batch_size()
        parts = []
        for size in sizes:
            if isinstance(size, int):
                parts.append(self.integers([size]))
            else:
                parts.append(self.add("Mul", [batch, self.integers([size.times])], [1], np.int64))
        return self.add("Concat", parts, [len(sizes)], np.int64, axis=0)

    def producers(self) -> dict[str, Node]:
        """By array, the node that makes it."""
        return {name: node for node in self.nodes for name in node.outputs}

    def consumers(self) -> dict[str, list[Node]]:
        """By array, the nodes that take it."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                found.setdefault(name, []).append(node)
        return found
