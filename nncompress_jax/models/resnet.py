"""Residual networks for small images.

Source: He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2 for three stages of 16, 32 and 64
channels, section 3.3 for shortcuts; table 1 for the four stages of the 18-layer network, here behind a 3x3 convolution
of stride 1, as is usual for images of 32x32.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from nncompress_jax.errors import InputError
from nncompress_jax.models.network import Network, added, checked_images
from nncompress_jax.types import Array

Shortcut = Literal["identity", "padding", "projection"]
"""What is added to a block: its input; its input at every second place, with zeros for the channels that it lacks
(the paper's option A); or a 1x1 convolution of it with batch norm (option B)."""


@dataclasses.dataclass(frozen=True)
class Block:
    """Two 3x3 convolutions, to `inner` and to `features` channels, the first with the stride; and a shortcut."""

    inner: int
    features: int
    stride: int = 1
    shortcut: Shortcut = "identity"


def configuration(widths: tuple[int, ...], depth: int, shortcut: Shortcut) -> tuple[Block, ...]:
    """Blocks of stages.

    Args:
      widths: channels of each stage; every stage but the first begins with stride 2.
      depth: blocks of each stage.
      shortcut: of blocks with stride 2; all others have the identity.

    Example:
      >>> [block.shortcut for block in configuration((16, 32), 2, "padding")]
      ['identity', 'identity', 'padding', 'identity']
    """
    blocks = []
    for stage, width in enumerate(widths):
        first = Block(width, width, 2, shortcut) if stage else Block(width, width)
        blocks += [first] + [Block(width, width)] * (depth - 1)
    return tuple(blocks)


class ResNet(Network):
    """A 3x3 convolution, blocks of two with shortcuts, the average over all places, and one dense layer.

    Attributes:
      blocks: the configuration, of `Block`.
      stem: channels of the first convolution.
      num_classes: C; for it and for all others see `Network`.
    """

    blocks: tuple[Block, ...] = ()
    stem: int = 16

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Array | tuple[Array, ...]:
        """Logits [B, C] of images [B, H, H, I]; `train` takes batch statistics from the batch."""
        convolution = functools.partial(self._convolution, train=train)
        x = convolution(checked_images(images).astype(self.dtype), self.stem)
        early: list[Array] = []
        for number, block in enumerate(self.blocks):
            y = convolution(x, block.inner, stride=block.stride)
            y = convolution(y, block.features, activation=None)
            if block.shortcut == "projection":
                x = convolution(x, block.features, 1, block.stride, activation=None)
            elif block.shortcut == "padding":
                x = padded(x, block.features, block.stride)
            x = nn.relu(added(y, x))
            early += self._exit(x, number)
        logits = self._logits(x.mean(axis=(1, 2)))
        return (*early, logits) if early else logits

    def fields_for(self, widths: Iterator[int]) -> dict[str, Any]:
        """As `Network.fields_for`."""
        stem, blocks = next(widths), []
        for block in self.blocks:
            blocks.append(dataclasses.replace(block, inner=next(widths), features=next(widths)))
            if block.shortcut == "projection":
                next(widths)  # as wide as what it is added to
        return {"stem": stem, "blocks": tuple(blocks), "num_classes": next(widths)}

    def image_size(self, variables: Any) -> int:
        """As `Network.image_size`: variables take images of any size."""
        return 32


def padded(x: Array, features: int, stride: int) -> Array:
    """A shortcut without parameters, to more channels.

    The paper does not say where the zeros stand. Here they stand behind all channels, so that a network whose channels
    were cut is told by its widths alone.

    Args:
      x: [B, H, W, I].
      features: O, at least I.
      stride: between the places that stay.

    Returns:
      [B, H / stride, W / stride, O], zeros in the last O - I channels.

    Raises:
      InputError: for fewer channels.

    Example:
      >>> padded(jnp.ones((1, 4, 4, 1)), 2, 2)[0, 0].tolist()
      [[1.0, 0.0], [1.0, 0.0]]

    Source: He et al. 2016, section 3.3, option A.
    """
    if features < x.shape[-1]:
        raise InputError(f"a shortcut from {x.shape[-1]} to {features} channels, expected no fewer than before")
    return jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, features - x.shape[-1])))
