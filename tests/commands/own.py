"""Networks as people have them, in linen and in NNX, that know nothing of this package."""

import flax.linen as nn
from flax import nnx


class Linen(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, images, training=False):
        x = nn.relu(nn.BatchNorm(use_running_average=not training)(nn.Conv(8, (3, 3), 4)(images)))
        x = nn.Dropout(0.2, deterministic=not training)(nn.relu(nn.Conv(16, (3, 3), 2)(x)))
        return nn.Dense(self.classes)(x.reshape(len(x), -1))


class Nnx(nnx.Module):
    def __init__(self, classes, rngs):
        self.layers = nnx.List([nnx.Conv(3, 8, (3, 3), 4, rngs=rngs), nnx.BatchNorm(8, rngs=rngs)])
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.last = nnx.Linear(512, classes, rngs=rngs)

    def __call__(self, images):
        x = images
        for layer in self.layers:
            x = layer(x)
        return self.last(self.dropout(nnx.relu(x)).reshape(len(x), -1))


def linen(num_classes):
    return Linen(num_classes)


def in_nnx(num_classes, rngs):
    return Nnx(num_classes, rngs)


def no_network():
    return {"layers": 3}


NUMBER = 3
