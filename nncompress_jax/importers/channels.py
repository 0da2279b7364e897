"""Orders of channels, where a project's stand in another than the network's."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nncompress_jax.models.resnet import ResNet

Order = tuple[Any, Any]
"""Of a layer's inputs and of its outputs, by our place the project's; `slice(None)`: the same."""

SAME = slice(None)


def with_zeros_around(network: ResNet) -> Mapping[str, Order]:
    """Orders of a network whose shortcuts put half of the zeros before the channels and half behind.

    Ours puts all of them behind. The same network has the padded channels first, those beside zeros after them.

    Args:
      network: of blocks in which `padding` is the only other shortcut than the identity.

    Returns:
      By the name of a layer; those that are missing have the same order.

    Example:
      >>> from nncompress_jax.models.resnet import Block
      >>> orders = with_zeros_around(ResNet((Block(2, 4, 2, "padding"),), stem=2))
      >>> orders["Dense_0"][0].tolist()
      [1, 2, 0, 3]
    """
    order = np.arange(network.stem)
    orders: dict[str, Order] = {}
    for index, block in enumerate(network.blocks):
        inputs = order
        if block.shortcut == "padding":
            first = order + (block.features - len(order)) // 2
            order = np.concatenate([first, np.setdiff1d(np.arange(block.features), first)])
        orders[f"Conv_{2 * index + 1}"] = (inputs, SAME)
        orders[f"Conv_{2 * index + 2}"] = orders[f"BatchNorm_{2 * index + 2}"] = (SAME, order)
    orders["Dense_0"] = (order, SAME)
    return orders


def ordered(array: np.ndarray, order: Order) -> np.ndarray:
    """An array of a layer, [..., I, O] or [O], with its channels in our order.

    Example:
      >>> ordered(np.array([[1, 2], [3, 4]]), (np.array([1, 0]), SAME)).tolist()
      [[3, 4], [1, 2]]
    """
    inputs, outputs = order
    return array[outputs] if array.ndim == 1 else array[..., inputs, :][..., outputs]
