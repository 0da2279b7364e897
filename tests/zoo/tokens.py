"""Networks on patches as people write them in linen."""

import jax.numpy as jnp
from flax import linen as nn


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
