"""VGG, for small images with one dense layer, as published with three, and its depthwise separable twins.

Source: Simonyan and Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
table 1; Howard et al. 2017, "MobileNets", section 3.1, for the separable block.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import flax.linen as nn

from nncompress_jax.models.network import Network, averaged, checked_images
from nncompress_jax.types import Array


@dataclasses.dataclass(frozen=True)
class Block:
    """One row of a configuration: a convolution to `features` channels, or max pooling (features 0)."""

    features: int
    stride: int = 1
    separable: bool = False


def configuration(text: str, *, separable: bool = False) -> tuple[Block, ...]:
    """Blocks from the paper's notation.

    Args:
      text: channels of each 3x3 convolution in order, `/2` behind one of stride 2, `M` for 2x2 max pooling.
      separable: every convolution but the first is depthwise separable.

    Example:
      >>> configuration("64 M 128/2", separable=True)[1:]
      (Block(features=0, stride=1, separable=False), Block(features=128, stride=2, separable=True))
    """
    blocks: list[Block] = []
    for word in text.split():
        features, _, stride = word.partition("/")
        if features == "M":
            blocks.append(Block(0))
        else:
            blocks.append(Block(int(features), int(stride or 1), separable and bool(blocks)))
    return tuple(blocks)


D = "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M"
CONFIGURATIONS = {
    "A": configuration("64 M 128 M 256 256 M 512 512 M 512 512 M"),
    "B": configuration("64 64 M 128 128 M 256 256 M 512 512 M 512 512 M"),
    "D": configuration(D),
    "E": configuration("64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M"),
    "D-DSM": configuration(D, separable=True),
    "D-DS": configuration("64 64/2 128/2 128 256/2 256 256 512/2 512 512 512/2 512 512", separable=True),
}
"""DSM keeps the pooling of D; DS replaces it by stride 2 in the depthwise convolutions."""


class VGG(Network):
    """3x3 convolutions with ReLU, then dense layers.

    Attributes:
      blocks: the configuration, of `Block`.
      batch_norm: behind every convolution.
      head: widths of dense layers with ReLU and dropout, before that of the classes.
      dropout: share of the inputs of a dense layer behind another that training sets to zero; it draws from the
        stream "dropout".
      pooled: maps are averaged to this height and width before the dense layers; None: they stay as they are.
      num_classes: C; for it and for all others see `Network`.
    """

    blocks: tuple[Block, ...] = ()
    batch_norm: bool = True
    head: tuple[int, ...] = ()
    dropout: float = 0.5
    pooled: int | None = None

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Array | tuple[Array, ...]:
        """Logits [B, C] of images [B, H, H, I]; `train` takes batch statistics from the batch."""
        x = checked_images(images, " with H divisible by 32", fits=images.ndim == 4 and images.shape[1] % 32 == 0)
        x = x.astype(self.dtype)
        convolution = functools.partial(self._convolution, bias=True, batch_norm=self.batch_norm, train=train)
        early: list[Array] = []
        for number, block in enumerate(self.blocks):
            if not block.features:
                x = nn.max_pool(x, window_shape=(2, 2), strides=(2, 2))
            elif block.separable:
                x = convolution(x, x.shape[-1], 3, block.stride, depthwise=True)
                x = convolution(x, block.features, 1)
            else:
                x = convolution(x, block.features, 3, block.stride)
            early += self._exit(x, number)
        x = averaged(x, self.pooled) if self.pooled else x
        x = x.reshape(x.shape[0], -1)
        for features in self.head:
            x = nn.Dropout(self.dropout, deterministic=not train)(self._hidden(x, features))
        return (*early, self._logits(x)) if early else self._logits(x)

    def fields_for(self, widths: Iterator[int]) -> dict[str, Any]:
        """As `Network.fields_for`."""
        blocks = []
        for block in self.blocks:
            for _ in range(block.separable):
                next(widths)  # depthwise: as wide as what comes in
            blocks.append(dataclasses.replace(block, features=next(widths)) if block.features else block)
        return {"blocks": tuple(blocks), "head": tuple(next(widths) for _ in self.head), "num_classes": next(widths)}

    def image_size(self, variables: Any) -> int:
        """As `Network.image_size`: with `pooled`, variables take images of any size."""
        if self.pooled or variables is None:
            return 32 * (self.pooled or 1)
        features = [block.features for block in self.blocks if block.features][-1]
        inputs = variables["params"]["Dense_0"]["kernel"].shape[0]
        return 32 * round((inputs / features) ** 0.5)
