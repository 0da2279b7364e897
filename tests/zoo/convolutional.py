"""Convolutional networks as people write them in linen."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn


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
