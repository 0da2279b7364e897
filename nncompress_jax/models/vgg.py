"""VGG with batch norm for small images, and its depthwise separable twins.

Source: Simonyan and Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
table 1; Howard et al. 2017, "MobileNets", section 3.1, for the separable block.
"""

import dataclasses
import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax.errors import InputError
from nncompress_jax.tree import named_leaves
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


def fitting(network: "VGG", variables: Any) -> "VGG":
    """The network with the widths and the number of classes of these variables.

    Args:
      network: of the same number of layers.
      variables: with a kernel for each layer, of any type that has a shape.

    Raises:
      InputError: for variables of other layers.

    Example:
      >>> import jax
      >>> network = VGG(configuration("64 M 128 M M M M"))
      >>> narrow = network.copy(blocks=configuration("8 M 16 M M M M"), num_classes=3)
      >>> variables = jax.eval_shape(narrow.init, jax.random.key(0), jnp.ones((1, 32, 32, 3)))
      >>> fitting(network, variables) == narrow
      True
    """
    count = sum(1 + block.separable for block in network.blocks if block.features)
    names = [*(f"Conv_{i}" for i in range(count)), "Dense_0"]
    shapes = {path: np.shape(leaf) for path, leaf in named_leaves(variables, lambda x: hasattr(x, "shape"))}
    layers = {path.split("/")[1] for path in shapes if path.startswith("params/")}
    kernels = [f"params/{name}/kernel" for name in names]
    missing = sorted(layers ^ {*names, *(f"BatchNorm_{i}" for i in range(count))})
    if missing := missing or [path for path in kernels if not shapes.get(path)]:
        raise InputError(f"{missing[0]}: in one of the network and the variables, expected in both")
    widths = iter([shapes[path][-1] for path in kernels])
    blocks = []
    for block in network.blocks:
        for _ in range(block.separable):
            next(widths)  # depthwise: as wide as what comes in
        blocks.append(dataclasses.replace(block, features=next(widths)) if block.features else block)
    return network.copy(blocks=tuple(blocks), num_classes=next(widths))


class VGG(nn.Module):
    """3x3 convolutions with batch norm and ReLU, then one dense layer.

    Attributes:
      blocks: the configuration.
      num_classes: C.
      initialization: "he" (He et al. 2015: normal, by fan out; biases 0, batch-norm scales 1) or "seed"
        (the original project's: kernels and biases uniform in +-1/sqrt(fan in), scales in [0, 1)).
      dtype: of the computation; parameters, batch statistics and logits are float32.
      conv_general_dilated: in place of lax's in every convolution, such as `ops.int8`'s.
      dot_general: likewise in the dense layer.
    """

    blocks: tuple[Block, ...]
    num_classes: int = 10
    initialization: Literal["he", "seed"] = "he"
    dtype: Any = jnp.float32
    conv_general_dilated: Any = None
    dot_general: Any = None

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Array:
        """Logits [B, C] of images [B, H, H, I]; `train` takes batch statistics from the batch."""
        if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[1] % 32:
            raise InputError(f"images are {list(images.shape)}, expected [B, H, H, I] with H divisible by 32")
        x = images.astype(self.dtype)
        for block in self.blocks:
            if not block.features:
                x = nn.max_pool(x, window_shape=(2, 2), strides=(2, 2))
            elif block.separable:
                x = self._convolution(x, x.shape[-1], (3, 3), block.stride, depthwise=True, train=train)
                x = self._convolution(x, block.features, (1, 1), train=train)
            else:
                x = self._convolution(x, block.features, (3, 3), block.stride, train=train)
        x = x.reshape(x.shape[0], -1)
        kernel, bias, _ = self._initializers(fan_in=x.shape[1])
        kernel = nn.initializers.zeros if self.initialization == "he" else kernel
        head_dtype = jnp.promote_types(self.dtype, jnp.float32)
        return nn.Dense(
            self.num_classes, kernel_init=kernel, bias_init=bias, dtype=head_dtype, dot_general=self.dot_general
        )(x)

    def image_size(self, variables: Any) -> int:
        """H of the images that variables of this network take."""
        features = [block.features for block in self.blocks if block.features][-1]
        inputs = variables["params"]["Dense_0"]["kernel"].shape[0]
        return 32 * round((inputs / features) ** 0.5)

    def _convolution(
        self,
        x: Array,
        features: int,
        window: tuple[int, int],
        stride: int = 1,
        *,
        depthwise: bool = False,
        train: bool,
    ) -> Array:
        groups = features if depthwise else 1
        kernel, bias, scale = self._initializers(fan_in=math.prod(window) * x.shape[-1] // groups)
        x = nn.Conv(
            features,
            window,
            stride,
            padding=window[0] // 2,
            feature_group_count=groups,
            kernel_init=kernel,
            bias_init=bias,
            dtype=self.dtype,
            conv_general_dilated=self.conv_general_dilated,
        )(x)
        x = nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            scale_init=scale,
            dtype=self.dtype,
            # E[x^2] - E[x]^2 in float32 loses so many digits that one and eight devices part within two steps.
            use_fast_variance=False,
        )(x)
        return nn.relu(x)

    def _initializers(self, fan_in: int) -> tuple[Any, Any, Any]:
        if self.initialization == "he":
            return nn.initializers.he_normal(), nn.initializers.zeros, nn.initializers.ones
        if self.initialization == "seed":
            bound = 1 / math.sqrt(fan_in)

            def uniform(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
                return jax.random.uniform(key, shape, dtype, -bound, bound)

            return uniform, uniform, nn.initializers.uniform(1.0)
        raise InputError(f"unknown initialization {self.initialization!r}; choose 'he' or 'seed'")
