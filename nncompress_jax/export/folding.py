"""Additions and multiplications behind a product become part of its weight and bias.

Of codes, the factor becomes part of their scale, and its sign of the codes: nothing is quantized anew.
"""

import numpy as np

from nncompress_jax.export.graph import Graph, Node, Product

ARITHMETIC = ("Add", "Sub", "Mul", "Div")


def fold(graph: Graph) -> None:
    """Takes these nodes out of a graph."""
    consumers = graph.consumers()
    for node in [node for node in graph.nodes if isinstance(node, Product)]:
        while True:
            (name,) = node.outputs
            behind = consumers.get(name, [])
            if len(behind) != 1 or name in graph.outputs or not _folded(graph, node, behind[0]):
                break
            graph.nodes.remove(behind[0])
            node.outputs = behind[0].outputs


def _folded(graph: Graph, node: Product, behind: Node) -> bool:
    """Whether it could be done."""
    if behind.operation not in ARITHMETIC:
        return False
    place = behind.inputs.index(node.outputs[0])
    other = behind.inputs[1 - place]
    if other not in graph.constants or behind.inputs[place] == other:
        return False
    if graph.sizes[behind.outputs[0]] != graph.sizes[node.outputs[0]]:
        return False
    numbers = _by_channel(graph.constants[other], node, len(graph.sizes[node.outputs[0]]))
    if numbers is None or (behind.operation == "Div" and (place == 1 or not numbers.all())):
        return False
    bias = np.zeros(node.channels) if node.bias is None else node.bias
    if behind.operation == "Add":
        node.bias = bias + numbers
    elif behind.operation == "Sub" and place == 0:
        node.bias = bias - numbers
    elif behind.operation == "Sub":
        node.multiply(np.full(node.channels, -1.0))
        node.bias = numbers - bias
    else:
        factor = 1 / numbers if behind.operation == "Div" else numbers
        node.multiply(factor)
        node.bias = None if node.bias is None else bias * factor
    return True


def _by_channel(array: np.ndarray, node: Product, rank: int) -> np.ndarray | None:
    """[O] float64, if the array has no more entries than that for the output."""
    if array.size == 1:
        return np.full(node.channels, array.item(), np.float64)
    axis = node.channel_axis % rank
    if array.ndim != rank or array.size != array.shape[axis] or array.size != node.channels:
        return None
    return array.reshape(-1).astype(np.float64)
