"""Networks by name.

| names | network |
| --- | --- |
| vgg11 vgg13 vgg16 vgg19 | VGG with batch norm and one dense layer, for images of 32x32 |
| vgg16ds vgg16ds_stride | the same of depthwise separable convolutions; with strides in place of pooling |
| vgg11_bn_cifar ... vgg19_bn_cifar | the same as vgg11 ... with three dense layers of 512 |
| vgg11_torchvision ... vgg19_torchvision | as published: three dense layers of 4096, for images of 224x224 |
| vgg11_bn_torchvision ... vgg19_bn_torchvision | the same with batch norm |
| resnet20 resnet32 resnet44 resnet56 resnet110 | residual networks; shortcuts have no parameters (option A) |
| resnet20_projection ... resnet110_projection | the same with 1x1 convolutions as shortcuts (option B) |
| resnet18 | 64 to 512 channels in four stages, option B |
| vgg16_exits resnet56_exits | vgg16 and resnet56 with four early exits, behind 0.3 to 0.85 of their operations |
| mobilenetv2 | every block expands, 1x1 convolutions as shortcuts where channels change, ReLU |
| mobilenetv2_x0_5 mobilenetv2_x0_75 mobilenetv2_x1_0 mobilenetv2_x1_4 | as published, ReLU6; of so many channels |
"""

import functools
from collections.abc import Callable
from typing import Any

from nncompress_jax.errors import InputError
from nncompress_jax.models import mobilenet, resnet
from nncompress_jax.models.mobilenet import MobileNetV2
from nncompress_jax.models.network import Network, fitting
from nncompress_jax.models.own import OwnNetwork
from nncompress_jax.models.resnet import ResNet
from nncompress_jax.models.vgg import CONFIGURATIONS, VGG

__all__ = ["NAMES", "Network", "OwnNetwork", "create", "fitting", "named"]


def _vggs(suffix: str, **options: Any) -> dict[str, Callable[..., Network]]:
    """The paper's configurations of 11, 13, 16 and 19 layers."""
    layers = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}
    return {
        f"{name}{suffix}": functools.partial(VGG, CONFIGURATIONS[letter], **options) for name, letter in layers.items()
    }


def _resnets(suffix: str, shortcut: resnet.Shortcut) -> dict[str, Callable[..., Network]]:
    """6n + 2 layers: three stages of n blocks, the first convolution and the dense layer."""
    return {
        f"resnet{6 * depth + 2}{suffix}": functools.partial(
            ResNet, resnet.configuration((16, 32, 64), depth, shortcut), stem=16
        )
        for depth in (3, 5, 7, 9, 18)
    }


def _mobilenet(width: float) -> Callable[..., Network]:
    return functools.partial(
        MobileNetV2,
        mobilenet.configuration(width=width),
        stem=mobilenet.divisible(32 * width),
        last=mobilenet.divisible(1280 * max(1.0, width)),
        dropout=0.2,
    )


NAMES: dict[str, Callable[..., Network]] = {
    **_vggs(""),
    "vgg16ds": functools.partial(VGG, CONFIGURATIONS["D-DSM"]),
    "vgg16ds_stride": functools.partial(VGG, CONFIGURATIONS["D-DS"]),
    **_vggs("_bn_cifar", head=(512, 512)),
    **_vggs("_torchvision", head=(4096, 4096), pooled=7, batch_norm=False),
    **_vggs("_bn_torchvision", head=(4096, 4096), pooled=7),
    **_resnets("", "padding"),
    **_resnets("_projection", "projection"),
    "resnet18": functools.partial(ResNet, resnet.configuration((64, 128, 256, 512), 2, "projection"), stem=64),
    "vgg16_exits": functools.partial(VGG, CONFIGURATIONS["D"], exits=(5, 7, 9, 11)),
    "resnet56_exits": functools.partial(
        ResNet, resnet.configuration((16, 32, 64), 9, "padding"), stem=16, exits=(8, 12, 17, 22)
    ),
    "mobilenetv2": functools.partial(MobileNetV2, mobilenet.configuration(as_published=False), activation="relu"),
    "mobilenetv2_x0_5": _mobilenet(0.5),
    "mobilenetv2_x0_75": _mobilenet(0.75),
    "mobilenetv2_x1_0": _mobilenet(1.0),
    "mobilenetv2_x1_4": _mobilenet(1.4),
}
"""What makes a network of its fields, by its name."""


OWN: dict[str, OwnNetwork] = {}
"""Networks of other people, by package.module:function: those that the command line has named."""


def create(name: str, **options: Any) -> Network:
    """A network by name.

    Args:
      name: a key of `NAMES`.
      **options: fields of the network, such as those of `Network`.

    Returns:
      A linen module of (images [B, H, H, I], train=False) -> logits [B, C]; for VGG, H is divisible by 32.

    Raises:
      InputError: for a name that is not there.

    Example:
      >>> create("vgg16ds", num_classes=100).num_classes
      100
    """
    if name not in NAMES:
        raise InputError(f"unknown model {name!r}; choose one of {', '.join(NAMES)}")
    return NAMES[name](**options)


def named(name: str, **options: Any) -> Network | OwnNetwork:
    """As `create`, of networks of other people, too.

    Args:
      name: a key of `NAMES` or `OWN`.
      **options: as of `create`.

    Raises:
      InputError: for a name that is not there.
    """
    if ":" not in name:
        return create(name, **options)
    if name not in OWN:
        raise InputError(f"{name}: code of a network is imported from the command line alone; give it --model={name}")
    return OWN[name].copy(**options)
