"""Small networks as people write them in Flax, for tests that change the structure of a network."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tests.zoo import in_nnx
from tests.zoo.convolutional import (
    VGG,
    ConvNeXt,
    DenseNet,
    MobileNetV2,
    MobileNetV3,
    PreActResNet,
    ResNet,
    ResNeXt,
    ShuffleNet,
    UNet,
)
from tests.zoo.tokens import MlpMixer, ViT


@dataclasses.dataclass(frozen=True)
class Specimen:
    """A network with weights and a batch of images.

    Attributes:
      apply: (variables, images) -> outputs, [B, 5], of the U-Net [B, H, W, 5].
      train: (variables, images) -> (outputs, batch statistics) in training mode.
      variables: {"params": ..., "batch_stats": ...}, every leaf drawn at random.
      images: [B, H, W, 3] float32.
    """

    apply: Callable[..., Any]
    train: Callable[..., Any]
    variables: Any
    images: jax.Array


def drawn(variables):
    """Arrays of the shapes given; what is zero or one at the start of training is neither here."""
    random = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        if name == "var" or name.endswith("scale"):
            values = random.uniform(0.5, 1.5, leaf.shape)
        elif name == "kernel":
            values = random.standard_normal(leaf.shape) * np.sqrt(2 * leaf.shape[-1] / leaf.size)
        else:
            values = 0.3 * random.standard_normal(leaf.shape)
        return jnp.asarray(values, leaf.dtype)

    return jax.tree.map_with_path(draw, variables)


def images_of(size):
    return jnp.asarray(np.random.default_rng(1).standard_normal((2, size, size, 3)), jnp.float32)


def of_linen(module, size=16):
    images = images_of(size)
    variables = drawn(jax.eval_shape(module.init, jax.random.key(0), images))
    mode = {"train": True} if "train" in inspect.signature(type(module).__call__).parameters else {}

    def train(variables, images):
        rngs = {"dropout": jax.random.key(0)}
        outputs, updates = module.apply(variables, images, **mode, rngs=rngs, mutable=["batch_stats"])
        return outputs, updates.get("batch_stats", {})

    return Specimen(module.apply, train, variables, images)


def of_nnx(kind, size=16):
    model = nnx.eval_shape(lambda: kind(rngs=nnx.Rngs(0)))
    model.eval()
    graph, *states = nnx.split(model, nnx.Param, nnx.BatchStat)
    variables = dict(zip(("params", "batch_stats"), map(nnx.to_pure_dict, states), strict=True))

    def apply(variables, images):
        return nnx.merge(graph, variables["params"], variables["batch_stats"])(images)

    def train(variables, images):
        model = nnx.merge(graph, variables["params"], variables["batch_stats"])
        model.train()
        outputs = model(images)
        return outputs, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    return Specimen(apply, train, drawn(variables), images_of(size))


ZOO = {
    name: functools.cache(make)
    for name, make in {
        "VGG": lambda: of_linen(VGG()),
        "ResNet": lambda: of_linen(ResNet(), 32),
        "pre-activation ResNet": lambda: of_linen(PreActResNet()),
        "DenseNet": lambda: of_linen(DenseNet()),
        "MobileNetV2": lambda: of_linen(MobileNetV2()),
        "MobileNetV3": lambda: of_linen(MobileNetV3()),
        "ShuffleNet": lambda: of_linen(ShuffleNet()),
        "ConvNeXt": lambda: of_linen(ConvNeXt()),
        "U-Net": lambda: of_linen(UNet()),
        "ViT": lambda: of_linen(ViT()),
        "MLP-Mixer": lambda: of_linen(MlpMixer()),
        "ResNeXt": lambda: of_linen(ResNeXt(), 32),
        "VGG in NNX": lambda: of_nnx(in_nnx.VGG),
        "ResNet in NNX": lambda: of_nnx(in_nnx.ResNet),
        "ViT in NNX": lambda: of_nnx(in_nnx.ViT),
    }.items()
}
"""Functions that make a specimen, by its name; each makes one only."""
