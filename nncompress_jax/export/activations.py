"""How data are quantized between products, so that a runtime can multiply integers.

onnxruntime multiplies integers in a convolution where its inputs, its weight and its output are all quantized, and adds
integers where both summands and the sum are. Activations are uint8: behind a ReLU with zero as the least code.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from nncompress_jax.export.graph import Graph, Node, Product
from nncompress_jax.ops.quantizer import scale_of_range

MOVING = ("MaxPool", "Reshape", "Transpose", "Slice", "Expand", "Gather")
"""Operations whose result has entries of their first input alone: they may come before rounding or behind it."""

NOT_NEGATIVE = ("Relu", "Sigmoid", "Abs", "Exp", "Sqrt")


def integer_products(graph: Graph) -> list[Product]:
    """Products of codes and rounded data."""
    producers = graph.producers()
    found = [node for node in graph.nodes if isinstance(node, Product) and node.scale is not None]
    found = [node for node in found if node.book is None]
    found = [node for node in found if node.operation != "ConvTranspose"]  # onnxruntime has none on integers
    return [node for node in found if _operation(_source(producers, node.inputs[0])) == "Rounded"]


def wanted(graph: Graph) -> list[str]:
    """Arrays whose ranges have to be measured: what is rounded without a scale, and what comes out of convolutions."""
    names = [node.inputs[0] for node in graph.nodes if node.operation == "Rounded" and _scale(node) is None]
    for name in _unrounded(graph):
        names += [name, *_summands(graph, name)]
    return list(dict.fromkeys(names))


def quantize(graph: Graph, largest: Mapping[str, float]) -> None:
    """Rounds data wherever that lets products run on integers.

    Args:
      graph: changed in place.
      largest: magnitudes of arrays of `wanted`; where one is missing, data stay as they are.
    """
    for node in graph.nodes:
        if node.operation == "Rounded" and _scale(node) is None and node.inputs[0] in largest:
            node.attributes["scale"] = _of_range(largest[node.inputs[0]])
    without_unknown(graph)
    for name in _unrounded(graph):
        for array in [name, *_summands(graph, name)]:
            if array in largest:
                _round(graph, array, _of_range(largest[array]))
    _early(graph)
    _once(graph)


def is_not_negative(graph: Graph, name: str) -> bool:
    """Whether an array has no negative entries, as far as the operations say."""
    return _operation(_source(graph.producers(), name, (*MOVING, "Rounded", "AveragePool"))) in NOT_NEGATIVE


def _source(producers: Mapping[str, Node], name: str, through: Sequence[str] = MOVING) -> Node | None:
    """The node whose entries an array has, but for operations that move them."""
    while name in producers and producers[name].operation in through:
        name = producers[name].inputs[0]
    return producers.get(name)


def _of_range(largest: float) -> float:
    return float(np.float32(scale_of_range(largest or 1.0)))


def _scale(node: Node) -> float | None:
    scale: float | None = node.attributes["scale"]
    return scale


def _operation(node: Node | None) -> str:
    return node.operation if node is not None else ""


def without_unknown(graph: Graph) -> None:
    """What is rounded without a known scale is not rounded."""
    gone = {node.outputs[0]: node.inputs[0] for node in graph.nodes if node.operation == "Rounded" and not _scale(node)}
    graph.nodes = [node for node in graph.nodes if node.operation != "Rounded" or _scale(node)]
    for node in graph.nodes:
        node.inputs = [gone.get(name, name) for name in node.inputs]
    graph.outputs = [gone.get(name, name) for name in graph.outputs]


def _unrounded(graph: Graph) -> list[str]:
    """What convolutions on integers, or a ReLU behind them, hand on without rounding."""
    consumers, found = graph.consumers(), []
    for product in integer_products(graph):
        if product.operation == "Dot":
            continue
        (name,) = product.outputs
        behind = consumers.get(name, [])
        if len(behind) == 1 and behind[0].operation in ("Relu", "Clip"):
            (name,) = behind[0].outputs
            behind = consumers.get(name, [])
        if name not in graph.outputs and not all(_is_rounded(graph, consumers, node) for node in behind):
            found.append(name)
    return found


def _is_rounded(graph: Graph, consumers: Mapping[str, list[Node]], node: Node) -> bool:
    """Whether nothing but rounding and moving entries is done there."""
    if node.operation == "Rounded":
        return True
    behind = consumers.get(node.outputs[0], [])
    moves = node.operation in MOVING and node.outputs[0] not in graph.outputs
    return moves and bool(behind) and all(_is_rounded(graph, consumers, each) for each in behind)


def _summands(graph: Graph, name: str) -> list[str]:
    """What an array is added to."""
    sums = [node for node in graph.consumers().get(name, []) if node.operation == "Add"]
    others = [other for node in sums for other in node.inputs if other != name and other not in graph.constants]
    producers = graph.producers()
    return [other for other in others if _operation(producers.get(other)) != "Rounded"]


def _round(graph: Graph, name: str, scale: float) -> None:
    """All that takes an array takes it rounded; to the scale that it has somewhere already, if any."""
    consumers = graph.consumers().get(name, [])
    rounded = next((node for node in consumers if node.operation == "Rounded"), None)
    if rounded is None:
        outputs = [graph.new("Rounded", graph.sizes[name], np.float32)]
        rounded = Node("Rounded", [name], outputs, {"scale": scale})
        producer = graph.producers().get(name)
        graph.nodes.insert(graph.nodes.index(producer) + 1 if producer else 0, rounded)
    for node in consumers:
        if node.operation != "Rounded":
            node.inputs = [rounded.outputs[0] if each == name else each for each in node.inputs]
    graph.nodes = ordered(graph)


def _early(graph: Graph) -> None:
    """Rounding comes before operations that move entries: these move codes, then."""
    while True:
        producers, consumers = graph.producers(), graph.consumers()
        for node in graph.nodes:
            before = producers.get(node.inputs[0]) if node.operation == "Rounded" else None
            if before is None or before.operation not in MOVING or before.outputs[0] in graph.outputs:
                continue
            if len(consumers[before.outputs[0]]) > 1 or not _is_worth_it(producers, before):
                continue
            source = before.inputs[0]
            between = graph.new("Rounded", graph.sizes[source], np.float32)
            node.inputs, before.outputs, node.outputs = [source], node.outputs, [between]
            before.inputs = [between, *before.inputs[1:]]
            at, other = graph.nodes.index(before), graph.nodes.index(node)
            graph.nodes[at], graph.nodes[other] = node, before
            graph.nodes = ordered(graph)
            break
        else:
            return


def _is_worth_it(producers: Mapping[str, Node], before: Node) -> bool:
    """Of all entries where some are taken: only behind a convolution, which runs on integers then."""
    if before.operation in ("MaxPool", "Reshape", "Transpose"):
        return True
    return isinstance(_source(producers, before.inputs[0], (*MOVING, "Relu", "Clip")), Product)


def _once(graph: Graph) -> None:
    """The same array is rounded to the same scale once."""
    first: dict[tuple[str, float | None], str] = {}
    same: dict[str, str] = {}
    for node in [node for node in graph.nodes if node.operation == "Rounded"]:
        key = node.inputs[0], _scale(node)
        if key in first:
            same[node.outputs[0]] = first[key]
            graph.nodes.remove(node)
        first.setdefault(key, node.outputs[0])
    for node in graph.nodes:
        node.inputs = [same.get(name, name) for name in node.inputs]


def ordered(graph: Graph) -> list[Node]:
    """Nodes, each behind those whose results it takes."""
    producers, found, done = graph.producers(), [], set()
    for node in graph.nodes:
        stack = [node]
        while stack:
            last = stack[-1]
            waits = [producers[name] for name in last.inputs if name in producers and id(producers[name]) not in done]
            if waits and id(last) not in done:
                stack += waits
                continue
            stack.pop()
            if id(last) not in done:
                done.add(id(last))
                found.append(last)
    return found
