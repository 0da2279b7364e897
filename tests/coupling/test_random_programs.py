"""Networks that nobody wrote: layers in random order, half the channels of every group cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import nncompress_jax as nnc
from tests.coupling.test_groups import half, without_by_hand

B, SIDE = 2, 4
LAYOUT = ("NHWC", "HWIO", "NHWC")


class Network:
    """Layers over images [B, SIDE, SIDE, C]; each may take an earlier result of as many channels beside the last.

    Attributes:
      weights: by name.
      drawn: names of the layers.
    """

    def __init__(self, seed, layers=9):
        self.random = np.random.default_rng(seed)
        self.weights, self.drawn, self._steps = {}, [], []
        results = [3]
        self._append("convolution", results, len(results) - 1)
        while len(self.drawn) < layers:
            self._append(str(self.random.choice([*LAYERS])), results, int(self.random.integers(1, len(results))))
        self.head = self.weight(results[-1], 3)

    def weight(self, *shape):
        name = f"w{len(self.weights):02}"
        self.weights[name] = jnp.asarray(self.random.standard_normal(shape) / np.sqrt(shape[-2:][0]), jnp.float32)
        return name

    def _append(self, name, results, other):
        channels = results[-1]
        if layer := LAYERS[name](self, channels):
            function, after = layer
            others = [place for place, size in enumerate(results) if size == channels]
            beside = others[other % len(others)]
            self._steps.append((function, beside))
            self.drawn.append(name)
            results.append(after)

    def __call__(self, weights, images):
        results = [images]
        for function, beside in self._steps:
            results.append(function(weights, results[-1], results[beside]))
        return results[-1].mean((1, 2)) @ weights[self.head]


def convolved(data, kernel, groups=1, stride=1):
    return lax.conv_general_dilated(
        data, kernel, (stride, stride), "SAME", dimension_numbers=LAYOUT, feature_group_count=groups
    )


def convolution(net, channels):
    kernel, after = net.weight(3, 3, channels, 8), 8
    return lambda w, y, _: convolved(y, w[kernel]), after


def strided(net, channels):
    kernel = net.weight(3, 3, channels, 6)
    return lambda w, y, _: jax.image.resize(convolved(y, w[kernel], stride=2), (B, SIDE, SIDE, 6), "nearest"), 6


def depthwise(net, channels):
    kernel = net.weight(3, 3, 1, 2 * channels)
    return (lambda w, y, _: convolved(y, w[kernel], channels), 2 * channels) if channels < 9 else None


def grouped(net, channels):
    kernel = net.weight(3, 3, channels // 2, 6)
    return (lambda w, y, _: convolved(y, w[kernel], 2), 6) if channels % 2 == 0 else None


def affine(net, channels):
    scale, bias = net.weight(channels), net.weight(channels)
    return lambda w, y, _: jax.nn.relu(y * w[scale] + w[bias]), channels


def excited(net, channels):
    squeeze, excite = net.weight(channels, 4), net.weight(4, channels)
    return (
        lambda w, y, _: y * jax.nn.sigmoid(jax.nn.relu(y.mean((1, 2), keepdims=True) @ w[squeeze]) @ w[excite]),
        channels,
    )


def attention(net, channels):
    inputs, outputs = net.weight(channels, 12), net.weight(4, channels)

    def function(w, y, _):
        tokens = y.reshape(B, SIDE**2, channels)
        queries, keys, values = (tokens @ w[inputs]).reshape(B, SIDE**2, 3, 2, 2).transpose(2, 0, 3, 1, 4)
        shares = jax.nn.softmax(jnp.einsum("bhtd,bhsd->bhts", queries, keys), -1)
        mixed = jnp.einsum("bhts,bhsd->bthd", shares, values).reshape(B, SIDE**2, 4)
        return (tokens + mixed @ w[outputs]).reshape(y.shape)

    return function, channels


def flattened(net, channels):
    kernel = net.weight(SIDE**2 * channels, 8)
    return lambda w, y, _: jnp.tanh(y.reshape(B, -1) @ w[kernel])[:, None, None] * jnp.ones((SIDE, SIDE, 1)), 8


def scanned(net, channels):
    into, out = net.weight(2, channels, 5), net.weight(2, 5, channels)

    def function(w, y, _):
        return lax.scan(lambda y, each: (y + jnp.tanh(y @ each[0]) @ each[1], None), y, (w[into], w[out]))[0]

    return function, channels


def same(function):
    """A layer without weights that keeps the number of channels."""
    return lambda net, channels: (function, channels)


def halves(function):
    """A layer without weights of two halves of the channels."""
    return lambda net, channels: (
        (lambda w, y, _: function(y, channels // 2), channels // 2) if channels % 2 == 0 else None
    )


LAYERS = {
    "convolution": convolution,
    "strided, resized": strided,
    "depthwise": depthwise,
    "grouped": grouped,
    "affine": affine,
    "squeeze and excite": excited,
    "attention": attention,
    "flattened": flattened,
    "scanned": scanned,
    "residual": same(lambda w, y, other: y + other),
    "gated": same(lambda w, y, other: y * jax.nn.sigmoid(other)),
    "chosen": same(lambda w, y, other: jnp.where(y > 0, other, 0.1 * y)),
    "stacked": same(lambda w, y, other: jnp.stack([y, other]).max(0)),
    "layer norm": same(lambda w, y, _: jax.nn.standardize(y, axis=-1)),
    "instance norm": same(lambda w, y, _: (y - y.mean((1, 2), keepdims=True)) / (1 + y.std((1, 2), keepdims=True))),
    "masked by one": same(lambda w, y, _: y * jax.nn.sigmoid(y[..., :1])),
    "turned around": same(lambda w, y, _: jnp.roll(y[..., ::-1], 1, -1)),
    "pooled": same(lambda w, y, _: lax.reduce_window(y, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "SAME")),
    "transposed": same(lambda w, y, _: jnp.tanh(y.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)),
    "shuffled": lambda net, channels: (
        (lambda w, y, _: y.reshape(*y.shape[:3], 2, -1).swapaxes(3, 4).reshape(y.shape), channels)
        if channels % 2 == 0
        else None
    ),
    "concatenated": lambda net, channels: (
        (lambda w, y, other: jnp.concatenate([y, other], -1), 2 * channels) if channels < 9 else None
    ),
    "halves multiplied": halves(lambda y, half: y[..., :half] * jax.nn.sigmoid(y[..., half:])),
    "halves unstacked": halves(lambda y, half: jnp.add(*jnp.unstack(y.reshape(*y.shape[:3], 2, half), axis=3))),
    "every other": halves(lambda y, half: y[..., 1::2]),
}


@pytest.mark.parametrize("seed", range(12))
def test_half_of_the_channels(seed):
    network = Network(seed)
    images = jnp.asarray(np.random.default_rng(seed).standard_normal((B, SIDE, SIDE, 3)), jnp.float32)
    found = nnc.coupling(network, network.weights, images)
    keep = half(found, seed)
    cut = found.cut(network.weights, keep)
    outputs = jax.jit(nnc.inject(network))(cut, images)
    expected = network(without_by_hand(network.weights, found, keep), images)
    tolerance = 1e-4 * float(jnp.abs(expected).max()) + 1e-6
    np.testing.assert_allclose(outputs, expected, atol=tolerance, err_msg=f"{network.drawn}")
    assert abs(found.macs(keep) - nnc.cost(network, cut, images).macs) <= 1, network.drawn
