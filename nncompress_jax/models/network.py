"""What all networks by name have in common: their fields, their layers, and how they take the widths of variables.

Layers are numbered by kind in the order in which images pass them: Conv_0, BatchNorm_0, ..., Dense_0. A shortcut's
convolution comes behind those of the path beside it. Dense layers of early exits are Exit_0, Exit_1, ...
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax.errors import InputError
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Array

N = TypeVar("N")
Initializer = Callable[..., Array]


class Network(nn.Module):
    """A network of (images [B, H, H, I], train=False) -> logits [B, C]; with exits, a tuple of them, its own the last.

    Attributes:
      blocks: the configuration, of a type of the network's own.
      exits: blocks, by number, behind which there is an exit: the maps are averaged to 4x4, a dense layer classifies.
      num_classes: C.
      initialization: "he" (He et al. 2015: normal, by fan in; biases 0, batch-norm scales 1, last dense layer 0) or
        "seed" (the original project's: kernels and biases uniform in +-1/sqrt(fan in), scales in [0, 1)).
      dtype: of the computation; parameters, batch statistics and logits are float32.
      conv_general_dilated: in place of lax's in every convolution, such as `ops.int8`'s.
      dot_general: likewise in dense layers.
    """

    blocks: tuple[Any, ...] = ()
    exits: tuple[int, ...] = ()
    num_classes: int = 10
    initialization: Literal["he", "seed"] = "he"
    dtype: Any = jnp.float32
    conv_general_dilated: Any = None
    dot_general: Any = None

    def fields_for(self, widths: Iterator[int]) -> dict[str, Any]:
        """The fields of the same network with other numbers of channels, all that change.

        Args:
          widths: outputs of every layer with a kernel, in order: convolutions, then dense layers.
        """
        raise NotImplementedError

    def image_size(self, variables: Any) -> int:
        """H of the images that variables of this network take.

        Args:
          variables: where they take images of any size, or None: H of those that the network is published for.
        """
        raise NotImplementedError

    def _convolution(
        self,
        x: Array,
        features: int,
        window: int = 3,
        stride: int = 1,
        *,
        train: bool,
        depthwise: bool = False,
        bias: bool = False,
        batch_norm: bool = True,
        activation: Callable[[Array], Array] | None = nn.relu,
    ) -> Array:
        groups = features if depthwise else 1
        kernel_init, bias_init, scale_init = self._initializers(fan_in=window**2 * x.shape[-1] // groups)
        x = nn.Conv(
            features,
            (window, window),
            stride,
            padding=window // 2,
            feature_group_count=groups,
            use_bias=bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
            dtype=self.dtype,
            conv_general_dilated=self.conv_general_dilated,
        )(x)
        x = self._batch_norm(x, scale_init, train) if batch_norm else x
        return activation(x) if activation else x

    def _batch_norm(self, x: Array, scale_init: Initializer, train: bool) -> Array:
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            scale_init=scale_init,
            dtype=self.dtype,
            # E[x^2] - E[x]^2 in float32 loses so many digits that one and eight devices part within two steps.
            use_fast_variance=False,
        )(x)

    def _hidden(self, x: Array, features: int) -> Array:
        kernel_init, bias_init, _ = self._initializers(fan_in=x.shape[-1])
        dense = nn.Dense(
            features, kernel_init=kernel_init, bias_init=bias_init, dtype=self.dtype, dot_general=self.dot_general
        )
        return nn.relu(dense(x))

    def _exit(self, x: Array, block: int) -> list[Array]:
        """Logits of the exit behind a block, if there is one."""
        if block not in self.exits:
            return []
        x = averaged(x, min(4, x.shape[1]))
        return [self._logits(x.reshape(x.shape[0], -1), name=f"Exit_{self.exits.index(block)}")]

    def _logits(self, x: Array, name: str | None = None) -> Array:
        """A dense layer to the classes, in float32 at least."""
        kernel_init, bias_init, _ = self._initializers(fan_in=x.shape[-1])
        kernel_init = nn.initializers.zeros if self.initialization == "he" else kernel_init
        dtype = jnp.promote_types(self.dtype, jnp.float32)
        return nn.Dense(
            self.num_classes,
            kernel_init=kernel_init,
            bias_init=bias_init,
            dtype=dtype,
            dot_general=self.dot_general,
            name=name,
        )(x)

    def _initializers(self, fan_in: int) -> tuple[Initializer, Initializer, Initializer]:
        """Of kernels, biases and batch-norm scales."""
        if self.initialization == "he":
            return nn.initializers.he_normal(), nn.initializers.zeros, nn.initializers.ones
        if self.initialization == "seed":
            bound = 1 / math.sqrt(fan_in)

            def uniform(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
                return jax.random.uniform(key, shape, dtype, -bound, bound)

            return uniform, uniform, nn.initializers.uniform(1.0)
        raise InputError(f"unknown initialization {self.initialization!r}; choose 'he' or 'seed'")


def checked_images(images: Array, expected: str = "", *, fits: bool = True) -> Array:
    """The images; Raises InputError unless they are [B, H, H, I] and fit."""
    if images.ndim != 4 or images.shape[1] != images.shape[2] or not fits:
        raise InputError(f"images are {list(images.shape)}, expected [B, H, H, I]{expected}")
    return images


def averaged(x: Array, size: int) -> Array:
    """Average pooling of [B, H, H, C] to [B, size, size, C].

    Raises:
      InputError: unless H is a multiple of size, or 1, where all averages are the same.

    Example:
      >>> averaged(jnp.arange(4.0).reshape(1, 2, 2, 1), 1).item()
      1.5
    """
    if x.shape[1] == size:
        return x
    if x.shape[1] == 1:
        return jnp.broadcast_to(x, (x.shape[0], size, size, x.shape[-1]))
    if x.shape[1] % size:
        raise InputError(f"images are {32 * x.shape[1]} high, expected 32 or a multiple of {32 * size}")
    window = (x.shape[1] // size,) * 2
    return nn.avg_pool(x, window, strides=window)


def added(x: Array, shortcut: Array) -> Array:
    """The sum of a block and its shortcut; Raises InputError for other channels, as widths that were made up have."""
    if x.shape != shortcut.shape:
        raise InputError(
            f"a block of {x.shape[-1]} channels beside a shortcut of {shortcut.shape[-1]}; expected as many in both"
        )
    return x + shortcut


def shapes(network: Network, image_shape: tuple[int, ...]) -> Any:
    """Variables of a network as shapes and dtypes.

    Args:
      network: by name, or with other widths.
      image_shape: [H, W, I].
    """
    return jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))


def fitting(network: N, variables: Any) -> N:
    """The network with the widths and the number of classes of these variables.

    Args:
      network: of the same layers.
      variables: with a kernel for each layer, of any type that has a shape.

    Raises:
      InputError: for variables of other layers.

    Example:
      >>> from nncompress_jax.models.vgg import VGG, configuration
      >>> network = VGG(configuration("64 M 128 M M M M"))
      >>> narrow = network.copy(blocks=configuration("8 M 16 M M M M"), num_classes=3)
      >>> fitting(network, shapes(narrow, (32, 32, 3))) == narrow
      True
    """
    if not isinstance(network, Network):
        return network  # of other people: its widths are theirs
    size = network.image_size(None)
    expected = shapes(network, (size, size, 3))["params"]
    found = {path: np.shape(leaf) for path, leaf in named_leaves(variables, lambda x: hasattr(x, "shape"))}
    layers = {path.split("/")[1] for path in found if path.startswith("params/")}
    kernels = [f"{kind}_{i}" for kind in ("Conv", "Dense") for i in range(len(expected)) if f"{kind}_{i}" in expected]
    missing = sorted(layers ^ expected.keys())
    if missing := missing or [path for name in kernels if not found.get(path := f"params/{name}/kernel")]:
        raise InputError(f"{missing[0]}: in one of the network and the variables, expected in both")
    return network.copy(**network.fields_for(iter([found[f"params/{name}/kernel"][-1] for name in kernels])))
