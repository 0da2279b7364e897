"""MobileNetV2 for small images: the first convolution and the stage of 24 channels have stride 1.

Source: Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2 for the stages, figure 4
for the block.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, Literal

import flax.linen as nn

from nncompress_jax.errors import InputError
from nncompress_jax.models.network import Network, added, checked_images
from nncompress_jax.types import Array

STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Table 2 of the paper for images of 32x32: expansion, channels, blocks, stride of the first."""

ACTIVATIONS = {"relu": nn.relu, "relu6": nn.relu6}


@dataclasses.dataclass(frozen=True)
class Block:
    """An inverted residual.

    Attributes:
      hidden: channels of the 1x1 convolution, and of the depthwise one behind it.
      features: channels of the 1x1 convolution at the end, without an activation.
      stride: of the depthwise convolution.
      expands: has the first 1x1 convolution; else the depthwise one sees the block's input.
      shortcut: what is added: the input, a 1x1 convolution of it with batch norm, or nothing.
    """

    hidden: int
    features: int
    stride: int = 1
    expands: bool = True
    shortcut: Literal["identity", "projection"] | None = None


def divisible(width: float) -> int:
    """The multiple of 8 next to a width, at least 8 and no less than nine tenths of it.

    Example:
      >>> [divisible(width) for width in (3, 20, 33.6)]
      [8, 24, 32]
    """
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest + 8 * (nearest < 0.9 * width)


def configuration(*, width: float = 1.0, as_published: bool = True) -> tuple[Block, ...]:
    """Blocks of the paper's stages.

    Args:
      width: multiplier of all channels.
      as_published: a block whose channels are not expanded has no first convolution, and where channels change nothing
        is added; else every block has one, and a convolution of the input is added wherever the stride is 1.

    Example:
      >>> configuration()[0]
      Block(hidden=32, features=16, stride=1, expands=False, shortcut=None)
    """
    blocks, inputs = [], divisible(32 * width)
    for expansion, channels, count, stride in STAGES:
        for index in range(count):
            features, step = divisible(channels * width), 1 if index else stride
            shortcut: Any = "identity" if inputs == features else None if as_published else "projection"
            expands = expansion > 1 or not as_published
            blocks.append(Block(expansion * inputs, features, step, expands, shortcut if step == 1 else None))
            inputs = features
    return tuple(blocks)


class MobileNetV2(Network):
    """A 3x3 convolution, inverted residuals, a 1x1 convolution, the average over all places, and one dense layer.

    Attributes:
      blocks: the configuration, of `Block`.
      stem: channels of the first convolution.
      last: channels of the last.
      activation: "relu6", as published, or "relu".
      dropout: share of the dense layer's inputs that training sets to zero; it draws from the stream "dropout".
      num_classes: C; for it and for all others see `Network`.
    """

    blocks: tuple[Block, ...] = ()
    stem: int = 32
    last: int = 1280
    activation: Literal["relu6", "relu"] = "relu6"
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Array:
        """Logits [B, C] of images [B, H, H, I]; `train` takes batch statistics from the batch."""
        if self.activation not in ACTIVATIONS:
            raise InputError(f"unknown activation {self.activation!r}; choose one of {', '.join(ACTIVATIONS)}")
        convolution = functools.partial(self._convolution, train=train, activation=ACTIVATIONS[self.activation])
        x = convolution(checked_images(images).astype(self.dtype), self.stem)
        for block in self.blocks:
            y = convolution(x, block.hidden, 1) if block.expands else x
            y = convolution(y, y.shape[-1], 3, block.stride, depthwise=True)
            y = convolution(y, block.features, 1, activation=None)
            if block.shortcut == "projection":
                x = convolution(x, block.features, 1, activation=None)
            x = added(y, x) if block.shortcut else y
        x = convolution(x, self.last, 1).mean(axis=(1, 2))
        return self._logits(nn.Dropout(self.dropout, deterministic=not train)(x))

    def fields_for(self, widths: Iterator[int]) -> dict[str, Any]:
        """As `Network.fields_for`."""
        stem, blocks = next(widths), []
        for block in self.blocks:
            hidden = next(widths)
            if block.expands:
                next(widths)  # depthwise: as wide as what comes in
            blocks.append(dataclasses.replace(block, hidden=hidden, features=next(widths)))
            if block.shortcut == "projection":
                next(widths)  # as wide as what it is added to
        return {"stem": stem, "blocks": tuple(blocks), "last": next(widths), "num_classes": next(widths)}

    def image_size(self, variables: Any) -> int:
        """As `Network.image_size`: variables take images of any size."""
        return 32
