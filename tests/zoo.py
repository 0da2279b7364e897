"""Small networks as people write them in Flax, for tests that change the structure of a network."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx


class VGG(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        for stage in ((8, 10), (16, 20), (24,)):
            for width in stage:
                x = nn.Conv(width, (3, 3))(x)
                x = nn.BatchNorm(use_running_average=not train)(x)
                x = nn.relu(x)
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape((x.shape[0], -1))
        x = nn.relu(nn.Dense(32)(x))
        return nn.Dense(5)(x)


class BasicBlock(nn.Module):
    width: int
    stride: int = 1

    @nn.compact
    def __call__(self, x, train: bool = False):
        conv = functools.partial(nn.Conv, use_bias=False)
        norm = functools.partial(nn.BatchNorm, use_running_average=not train)
        y = nn.relu(norm()(conv(self.width, (3, 3), strides=self.stride)(x)))
        y = norm()(conv(self.width, (3, 3))(y))
        if x.shape != y.shape:
            x = norm(name="proj_norm")(conv(self.width, (1, 1), strides=self.stride, name="proj")(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.Conv(12, (3, 3), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        for width, stride in ((12, 1), (20, 2), (20, 1), (28, 2)):
            x = BasicBlock(width, stride)(x, train)
        return nn.Dense(5)(x.mean(axis=(1, 2)))


class PreActBlock(nn.Module):
    width: int
    stride: int = 1

    @nn.compact
    def __call__(self, x, train: bool = False):
        norm = functools.partial(nn.BatchNorm, use_running_average=not train)
        y = nn.relu(norm()(x))
        if self.stride > 1 or x.shape[-1] != self.width:
            x = nn.Conv(self.width, (1, 1), strides=self.stride, use_bias=False)(y)
        y = nn.Conv(self.width, (3, 3), strides=self.stride, use_bias=False)(y)
        y = nn.Conv(self.width, (3, 3), use_bias=False)(nn.relu(norm()(y)))
        return x + y


class PreActResNet(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.Conv(10, (3, 3), use_bias=False)(x)
        for width, stride in ((10, 1), (18, 2), (18, 1), (26, 2)):
            x = PreActBlock(width, stride)(x, train)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        return nn.Dense(5)(x.mean(axis=(1, 2)))


class DenseNet(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        conv = functools.partial(nn.Conv, use_bias=False)
        norm = functools.partial(nn.BatchNorm, use_running_average=not train)
        x = conv(12, (3, 3))(x)
        for block, layers in enumerate((3, 2)):
            if block:
                x = conv(x.shape[-1] // 2, (1, 1))(nn.relu(norm()(x)))
                x = nn.avg_pool(x, (2, 2), strides=(2, 2))
            for _ in range(layers):
                y = conv(24, (1, 1))(nn.relu(norm()(x)))
                y = conv(6, (3, 3))(nn.relu(norm()(y)))
                x = jnp.concatenate([x, y], axis=-1)
        x = nn.relu(norm()(x))
        return nn.Dense(5)(jnp.mean(x, axis=(1, 2)))


class ConvBN(nn.Module):
    width: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    act: Callable = lambda x: x

    @nn.compact
    def __call__(self, x, train: bool = False):
        kernel = (self.kernel, self.kernel)
        x = nn.Conv(self.width, kernel, self.stride, feature_group_count=self.groups, use_bias=False)(x)
        return self.act(nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-3)(x))


class InvertedResidual(nn.Module):
    width: int
    stride: int
    expand: int

    @nn.compact
    def __call__(self, x, train: bool = False):
        inputs = x.shape[-1]
        hidden = inputs * self.expand
        y = x
        if self.expand != 1:
            y = ConvBN(hidden, act=nn.relu6)(y, train)
        y = ConvBN(hidden, 3, self.stride, groups=hidden, act=nn.relu6)(y, train)
        y = ConvBN(self.width)(y, train)
        return x + y if self.stride == 1 and inputs == self.width else y


class MobileNetV2(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = ConvBN(8, 3, act=nn.relu6)(x, train)
        for expand, width, stride in ((1, 10, 1), (3, 12, 2), (3, 12, 1), (2, 18, 2)):
            x = InvertedResidual(width, stride, expand)(x, train)
        x = ConvBN(32, act=nn.relu6)(x, train)
        return nn.Dense(5)(x.mean(axis=(1, 2)))


class SqueezeExcite(nn.Module):
    @nn.compact
    def __call__(self, x):
        channels = x.shape[-1]
        y = nn.relu(nn.Conv(channels // 4, (1, 1))(jnp.mean(x, axis=(1, 2), keepdims=True)))
        return x * nn.hard_sigmoid(nn.Conv(channels, (1, 1))(y))


class MobileNetV3(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = ConvBN(10, 3, act=nn.hard_swish)(x, train)
        for kernel, hidden, width, excite, act, stride in (
            (3, 16, 10, True, nn.relu, 1),
            (3, 28, 14, False, nn.relu, 2),
            (5, 32, 14, True, nn.hard_swish, 1),
            (5, 24, 20, True, nn.hard_swish, 2),
        ):
            y = ConvBN(hidden, act=act)(x, train)
            y = ConvBN(hidden, kernel, stride, groups=hidden, act=act)(y, train)
            if excite:
                y = SqueezeExcite()(y)
            y = ConvBN(width)(y, train)
            x = x + y if x.shape == y.shape else y
        x = ConvBN(30, act=nn.hard_swish)(x, train).mean(axis=(1, 2))
        return nn.Dense(5)(nn.hard_swish(nn.Dense(26)(x)))


def channel_shuffle(x, groups):
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, groups, channels // groups)
    x = x.transpose(0, 1, 2, 4, 3)
    return x.reshape(batch, height, width, channels)


class ShuffleUnit(nn.Module):
    width: int
    stride: int = 1
    groups: int = 2

    @nn.compact
    def __call__(self, x, train: bool = False):
        hidden = self.width // 2
        outputs = self.width - x.shape[-1] if self.stride == 2 else self.width
        y = ConvBN(hidden, groups=self.groups, act=nn.relu)(x, train)
        y = channel_shuffle(y, self.groups)
        y = ConvBN(hidden, 3, self.stride, groups=hidden)(y, train)
        y = ConvBN(outputs, groups=self.groups)(y, train)
        if self.stride == 2:
            x = nn.avg_pool(x, (3, 3), strides=(2, 2), padding="SAME")
            return nn.relu(jnp.concatenate([x, y], axis=-1))
        return nn.relu(x + y)


class ShuffleNet(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = ConvBN(10, 3, act=nn.relu)(x, train)
        for width, stride in ((24, 2), (24, 1), (40, 2)):
            x = ShuffleUnit(width, stride)(x, train)
        return nn.Dense(5)(jnp.mean(x, axis=(1, 2)))


class ConvNeXtBlock(nn.Module):
    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        y = nn.Conv(width, (7, 7), feature_group_count=width)(x)
        y = nn.gelu(nn.Dense(4 * width)(nn.LayerNorm(epsilon=1e-6)(y)))
        y = nn.Dense(width)(y)
        return x + self.param("layer_scale", nn.initializers.constant(1e-6), (width,)) * y


class ConvNeXt(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm()(nn.Conv(8, (2, 2), strides=(2, 2), padding="VALID")(x))
        x = ConvNeXtBlock()(ConvNeXtBlock()(x))
        x = nn.Conv(14, (2, 2), strides=(2, 2), padding="VALID")(nn.LayerNorm()(x))
        x = ConvNeXtBlock()(x)
        return nn.Dense(5)(nn.LayerNorm()(x.mean(axis=(1, 2))))


class DoubleConv(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x, train: bool = False):
        for _ in range(2):
            x = nn.Conv(self.width, (3, 3), padding="SAME", use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        return x


class UNet(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        skips = []
        for width in (8, 14):
            skips.append(DoubleConv(width)(x, train))
            x = nn.max_pool(skips[-1], (2, 2), strides=(2, 2))
        x = DoubleConv(22)(x, train)
        for width, skip in ((16, skips[1]), (10, skips[0])):
            x = nn.ConvTranspose(width, (2, 2), strides=(2, 2))(x)
            x = DoubleConv(width)(jnp.concatenate([skip, x], axis=-1), train)
        return nn.Conv(5, (1, 1))(x)


class EncoderBlock(nn.Module):
    heads: int
    mlp: int

    @nn.compact
    def __call__(self, x, train: bool = False):
        y = nn.LayerNorm()(x)
        y = nn.MultiHeadDotProductAttention(self.heads, dropout_rate=0.1, deterministic=not train)(y, y)
        x = x + nn.Dropout(0.1, deterministic=not train)(y)
        y = nn.LayerNorm()(x)
        y = nn.gelu(nn.Dense(self.mlp)(y))
        y = nn.Dense(x.shape[-1])(nn.Dropout(0.1, deterministic=not train)(y))
        return x + y


class ViT(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.Conv(24, (4, 4), strides=(4, 4), padding="VALID", name="embedding")(x)
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height * width, channels)
        cls = self.param("cls", nn.initializers.zeros, (1, 1, channels))
        x = jnp.concatenate([jnp.tile(cls, [batch, 1, 1]), x], axis=1)
        x = x + self.param("pos_embedding", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        for _ in range(2):
            x = EncoderBlock(heads=3, mlp=32)(x, train)
        return nn.Dense(5, name="head")(nn.LayerNorm()(x)[:, 0])


class Mlp(nn.Module):
    hidden: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(x.shape[-1])(nn.gelu(nn.Dense(self.hidden)(x)))


class MlpMixer(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(20, (4, 4), strides=(4, 4), name="stem")(x)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        for _ in range(2):
            y = jnp.swapaxes(nn.LayerNorm()(x), 1, 2)
            x = x + jnp.swapaxes(Mlp(12)(y), 1, 2)
            x = x + Mlp(32)(nn.LayerNorm()(x))
        x = nn.LayerNorm(name="pre_head_layer_norm")(x)
        return nn.Dense(5, name="head")(jnp.mean(x, axis=1))


class ResNeXtBlock(nn.Module):
    inner: int
    width: int
    stride: int = 1

    @nn.compact
    def __call__(self, x):
        conv = functools.partial(nn.Conv, use_bias=False)
        y = nn.relu(nn.GroupNorm(num_groups=4)(conv(self.inner, (1, 1))(x)))
        y = conv(self.inner, (3, 3), strides=self.stride, feature_group_count=4)(y)
        y = nn.relu(nn.GroupNorm(num_groups=4)(y))
        y = nn.GroupNorm(num_groups=4)(conv(self.width, (1, 1))(y))
        if x.shape != y.shape:
            x = nn.GroupNorm(num_groups=4)(conv(self.width, (1, 1), strides=self.stride)(x))
        return nn.relu(x + y)


class ResNeXt(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.GroupNorm(num_groups=4)(nn.Conv(12, (3, 3))(x)))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding="SAME")
        for inner, width, stride in ((16, 24, 1), (16, 24, 1), (20, 32, 2)):
            x = ResNeXtBlock(inner, width, stride)(x)
        return nn.Dense(5)(x.mean(axis=(1, 2)))


class NnxVGG(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        layers = []
        for inputs, outputs in itertools.pairwise((3, 8, 14, 22)):
            layers += [nnx.Conv(inputs, outputs, (3, 3), rngs=rngs), nnx.BatchNorm(outputs, rngs=rngs), nnx.relu]
            layers += [functools.partial(nnx.max_pool, window_shape=(2, 2), strides=(2, 2))]
        self.features = nnx.Sequential(*layers)
        self.hidden = nnx.Linear(2 * 2 * 22, 30, rngs=rngs)
        self.head = nnx.Linear(30, 5, rngs=rngs)

    def __call__(self, x):
        x = self.features(x)
        return self.head(nnx.relu(self.hidden(x.reshape(x.shape[0], -1))))


class NnxBasicBlock(nnx.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, *, rngs: nnx.Rngs):
        conv = functools.partial(nnx.Conv, use_bias=False, rngs=rngs)
        self.conv1 = conv(inputs, outputs, (3, 3), strides=stride)
        self.norm1 = nnx.BatchNorm(outputs, rngs=rngs)
        self.conv2 = conv(outputs, outputs, (3, 3))
        self.norm2 = nnx.BatchNorm(outputs, rngs=rngs)
        self.projects = stride > 1 or inputs != outputs
        if self.projects:
            self.projection = conv(inputs, outputs, (1, 1), strides=stride)
            self.projection_norm = nnx.BatchNorm(outputs, rngs=rngs)

    def __call__(self, x):
        y = nnx.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return nnx.relu(y + (self.projection_norm(self.projection(x)) if self.projects else x))


class NnxResNet(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.conv = nnx.Conv(3, 10, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(10, rngs=rngs)
        blocks = ((10, 10, 1), (10, 18, 2), (18, 18, 1))
        self.blocks = nnx.List([NnxBasicBlock(*block, rngs=rngs) for block in blocks])
        self.head = nnx.Linear(18, 5, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(jnp.mean(x, axis=(1, 2)))


class NnxEncoderBlock(nnx.Module):
    def __init__(self, width: int, mlp: int, *, rngs: nnx.Rngs):
        self.norm1 = nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(num_heads=2, in_features=width, decode=False, rngs=rngs)
        self.norm2 = nnx.LayerNorm(width, rngs=rngs)
        self.mlp = nnx.Sequential(nnx.Linear(width, mlp, rngs=rngs), nnx.gelu, nnx.Linear(mlp, width, rngs=rngs))

    def __call__(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class NnxViT(nnx.Module):
    def __init__(self, *, width: int = 20, rngs: nnx.Rngs):
        self.embedding = nnx.Conv(3, width, (4, 4), strides=(4, 4), padding="VALID", rngs=rngs)
        self.cls = nnx.Param(jnp.zeros((1, 1, width)))
        self.positions = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, 17, width)))
        self.blocks = nnx.List([NnxEncoderBlock(width, 28, rngs=rngs) for _ in range(2)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, 5, rngs=rngs)

    def __call__(self, x):
        x = self.embedding(x)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        cls = jnp.broadcast_to(self.cls[...], (x.shape[0], 1, x.shape[-1]))
        x = jnp.concatenate([cls, x], axis=1) + self.positions[...]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


@dataclasses.dataclass(frozen=True)
class Specimen:
    """A network with weights and a batch of images.

    Attributes:
      apply: (variables, images, **options) -> outputs, [B, 5], of the U-Net [B, H, W, 5].
      variables: {"params": ..., "batch_stats": ...}, every leaf drawn at random.
      images: [B, H, W, 3] float32.
      has_batch_norm: apply takes train=True, mutable=["batch_stats"].
    """

    apply: Callable[..., Any]
    variables: Any
    images: jax.Array
    has_batch_norm: bool


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
    return Specimen(module.apply, variables, images, "batch_stats" in variables)


def of_nnx(kind, size=16):
    """Batch norm in its evaluation mode."""
    model = nnx.eval_shape(lambda: kind(rngs=nnx.Rngs(0)))
    model.eval()
    graph, *states = nnx.split(model, nnx.Param, nnx.BatchStat)
    variables = dict(zip(("params", "batch_stats"), map(nnx.to_pure_dict, states), strict=True))

    def apply(variables, images):
        return nnx.merge(graph, variables["params"], variables["batch_stats"])(images)

    return Specimen(apply, drawn(variables), images_of(size), False)


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
        "VGG in NNX": lambda: of_nnx(NnxVGG),
        "ResNet in NNX": lambda: of_nnx(NnxResNet),
        "ViT in NNX": lambda: of_nnx(NnxViT),
    }.items()
}
"""Functions that make a specimen, by its name; each makes one only."""
