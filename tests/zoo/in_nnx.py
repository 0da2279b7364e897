"""Networks as people write them in NNX."""

import functools
import itertools

import jax
import jax.numpy as jnp
from flax import nnx


class VGG(nnx.Module):
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


class BasicBlock(nnx.Module):
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


class ResNet(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.conv = nnx.Conv(3, 10, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(10, rngs=rngs)
        blocks = ((10, 10, 1), (10, 18, 2), (18, 18, 1))
        self.blocks = nnx.List([BasicBlock(*block, rngs=rngs) for block in blocks])
        self.head = nnx.Linear(18, 5, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(jnp.mean(x, axis=(1, 2)))


class EncoderBlock(nnx.Module):
    def __init__(self, width: int, mlp: int, *, rngs: nnx.Rngs):
        self.norm1 = nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(num_heads=2, in_features=width, decode=False, rngs=rngs)
        self.norm2 = nnx.LayerNorm(width, rngs=rngs)
        self.mlp = nnx.Sequential(nnx.Linear(width, mlp, rngs=rngs), nnx.gelu, nnx.Linear(mlp, width, rngs=rngs))

    def __call__(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nnx.Module):
    def __init__(self, *, width: int = 20, rngs: nnx.Rngs):
        self.embedding = nnx.Conv(3, width, (4, 4), strides=(4, 4), padding="VALID", rngs=rngs)
        self.cls = nnx.Param(jnp.zeros((1, 1, width)))
        self.positions = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, 17, width)))
        self.blocks = nnx.List([EncoderBlock(width, 28, rngs=rngs) for _ in range(2)])
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
