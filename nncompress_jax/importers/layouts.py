"""Layouts of torch's state dicts: under which keys, and in which order of axes, a network's arrays stand.

A layout names the modules of a network in the order of its layers. Which layer each is follows by counting (Conv_0,
Conv_1, ..., BatchNorm_0, ..., Dense_0), and all shapes follow from the network's.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from nncompress_jax.importers.channels import Order, with_zeros_around
from nncompress_jax.models.mobilenet import MobileNetV2
from nncompress_jax.models.network import Network
from nncompress_jax.models.resnet import ResNet
from nncompress_jax.models.vgg import VGG

Module = tuple[str, str]
"""The kind of a layer, as its name begins, and the key of its torch module."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one project writes its networks.

    Attributes:
      source: the projects, in words.
      fits: whether a network can be written so.
      modules: a network that fits -> its modules, in the order of its layers.
      orders: a network that fits -> the orders of channels, by layer, where they are not the network's.
    """

    source: str
    fits: Callable[[Network], bool]
    modules: Callable[[Any], Iterator[Module]]
    orders: Callable[[Any], Mapping[str, Order]] = lambda network: {}


def linen_names(modules: Iterable[Module]) -> dict[str, str]:
    """The names of layers by the keys of their modules.

    Args:
      modules: of a layout.

    Example:
      >>> linen_names([("Conv", "conv1"), ("BatchNorm", "bn1"), ("Conv", "layer1.0.conv1")])
      {'conv1': 'Conv_0', 'bn1': 'BatchNorm_0', 'layer1.0.conv1': 'Conv_1'}
    """
    counts: dict[str, int] = {}
    names = {}
    for kind, key in modules:
        names[key] = f"{kind}_{counts.setdefault(kind, 0)}"
        counts[kind] += 1
    return names


def _normalized(convolution: str, batch_norm: str) -> Iterator[Module]:
    yield "Conv", convolution
    yield "BatchNorm", batch_norm


def _features(network: VGG) -> Iterator[Module]:
    """One sequence of convolutions, batch norm, ReLU and pooling, numbered with those that hold nothing."""
    position = 0
    for block in network.blocks:
        for _ in range((1 + block.separable) if block.features else 0):
            yield "Conv", f"features.{position}"
            if network.batch_norm:
                yield "BatchNorm", f"features.{position + 1}"
            position += 2 + network.batch_norm
        position += not block.features


def _vgg(network: VGG) -> Iterator[Module]:
    """Dense layers in a sequence with ReLU and dropout."""
    yield from _features(network)
    for index in range(len(network.head) + 1):
        yield "Dense", f"classifier.{3 * index}"


def _vgg_of_one_dense_layer(network: VGG) -> Iterator[Module]:
    yield from _features(network)
    yield "Dense", "classifier"


def _residual(network: ResNet, shortcut: str, dense: str) -> Iterator[Module]:
    """Blocks numbered within stages, which begin with stride 2."""
    yield from _normalized("conv1", "bn1")
    stage, index = 1, 0
    for block in network.blocks:
        if block.stride > 1:
            stage, index = stage + 1, 0
        prefix = f"layer{stage}.{index}"
        for number in (1, 2):
            yield from _normalized(f"{prefix}.conv{number}", f"{prefix}.bn{number}")
        if block.shortcut == "projection":
            yield from _normalized(f"{prefix}.{shortcut}.0", f"{prefix}.{shortcut}.1")
        index += 1
    yield "Dense", dense


def _resnet_with_downsample(network: ResNet) -> Iterator[Module]:
    return _residual(network, "downsample", "fc")


def _resnet_with_shortcut(network: ResNet) -> Iterator[Module]:
    return _residual(network, "shortcut", "linear")


def _mobilenet_of_layers(network: MobileNetV2) -> Iterator[Module]:
    yield from _normalized("conv1", "bn1")
    for index, block in enumerate(network.blocks):
        for number in (1, 2, 3):
            yield from _normalized(f"layers.{index}.conv{number}", f"layers.{index}.bn{number}")
        if block.shortcut == "projection":
            yield from _normalized(f"layers.{index}.shortcut.0", f"layers.{index}.shortcut.1")
    yield from _normalized("conv2", "bn2")
    yield "Dense", "linear"


def _mobilenet_of_features(network: MobileNetV2) -> Iterator[Module]:
    """One sequence; within a block convolutions with an activation are sequences of their own."""
    yield from _normalized("features.0.0", "features.0.1")
    for index, block in enumerate(network.blocks, start=1):
        prefix, activated = f"features.{index}.conv", 1 + block.expands
        for number in range(activated):
            yield from _normalized(f"{prefix}.{number}.0", f"{prefix}.{number}.1")
        yield from _normalized(f"{prefix}.{activated}", f"{prefix}.{activated + 1}")
    index = len(network.blocks) + 1
    yield from _normalized(f"features.{index}.0", f"features.{index}.1")
    yield "Dense", "classifier.1"


def _is_vgg(network: Network) -> bool:
    return isinstance(network, VGG) and not network.head


def _is_vgg_with_head(network: Network) -> bool:
    return isinstance(network, VGG) and bool(network.head)


def _is_resnet_of_projections(network: Network) -> bool:
    return isinstance(network, ResNet) and all(block.shortcut != "padding" for block in network.blocks)


def _is_resnet_without_projections(network: Network) -> bool:
    return isinstance(network, ResNet) and all(block.shortcut != "projection" for block in network.blocks)


def _is_resnet_of_three_stages(network: Network) -> bool:
    """Of more stages, others pool behind the first convolution, which no array tells."""
    return _is_resnet_of_projections(network) and sum(block.stride > 1 for block in network.blocks) == 2


def _is_mobilenet_that_expands(network: Network) -> bool:
    return isinstance(network, MobileNetV2) and all(block.expands for block in network.blocks)


def _is_mobilenet_as_published(network: Network) -> bool:
    return isinstance(network, MobileNetV2) and all(block.shortcut != "projection" for block in network.blocks)


LAYOUTS = (
    Layout("the original project", _is_vgg, _vgg),
    Layout("kuangliu/pytorch-cifar", _is_vgg, _vgg_of_one_dense_layer),
    Layout("torchvision and chenyaofo/pytorch-cifar-models", _is_vgg_with_head, _vgg),
    Layout("chenyaofo/pytorch-cifar-models", _is_resnet_of_three_stages, _resnet_with_downsample),
    Layout(
        "akamaster/pytorch_resnet_cifar10", _is_resnet_without_projections, _resnet_with_shortcut, with_zeros_around
    ),
    Layout("kuangliu/pytorch-cifar", _is_resnet_of_projections, _resnet_with_shortcut),
    Layout("kuangliu/pytorch-cifar", _is_mobilenet_that_expands, _mobilenet_of_layers),
    Layout("chenyaofo/pytorch-cifar-models", _is_mobilenet_as_published, _mobilenet_of_features),
)
"""All that are known; of those that fit a network, its own comes first."""
