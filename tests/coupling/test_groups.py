"""Coupled channels on networks as people have them: what is cut, and that nothing else changes."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.tree import named_leaves
from nncompress_jax.weights.base import is_compressed
from nncompress_jax.weights.channel_pruned import at, cuts_of
from tests.zoo import ZOO

GROUPS = {
    "VGG": (6, 2),
    "ResNet": (7, 2),
    "pre-activation ResNet": (7, 2),
    "DenseNet": (12, 2),
    "MobileNetV2": (8, 2),
    "MobileNetV3": (12, 2),
    "ShuffleNet": (4, 3),
    "ConvNeXt": (3, 4),
    "U-Net": (12, 2),
    "ViT": (8, 4),
    "MLP-Mixer": (4, 5),
    "ResNeXt": (5, 4),
    "VGG in NNX": (4, 2),
    "ResNet in NNX": (5, 2),
    "ViT in NNX": (8, 4),
}
"""How many groups can be cut, and how many cannot: the input, the output, and what normalization needs whole."""


@functools.cache
def coupled(name):
    specimen = ZOO[name]()
    return specimen, nnc.coupling(specimen.apply, specimen.variables, specimen.images)


def half(coupling, seed=0):
    random = np.random.default_rng(seed)
    return {
        group.name: np.isin(np.arange(group.size), random.permutation(group.size)[: max(1, group.size // 2)])
        for group in coupling.groups
    }


def without_by_hand(variables, coupling, keep):
    """The dense network, in which what the other channels hand on is zero where it is summed over.

    Channels that meet channels of data there, as queries and keys do, are zero where they are computed.
    """
    leaves = dict(named_leaves(variables))
    for group in coupling.groups:
        inputs = [member for member in group.members if member.role == "input"]
        for member in inputs or group.members:
            there = np.append(keep[group.name], True)[member.channels]
            shape = [-1 if axis == member.axis else 1 for axis in range(leaves[member.path].ndim)]
            leaves[member.path] = leaves[member.path] * jnp.asarray(there.reshape(shape), jnp.float32)
    return jax.tree.unflatten(jax.tree.structure(variables), [*leaves.values()])


@pytest.mark.parametrize("name", ZOO)
def test_half_of_the_channels(name):
    specimen, coupling = coupled(name)
    assert (len(coupling.groups), len(coupling.frozen)) == GROUPS[name]
    keep = half(coupling)
    cut = coupling.cut(specimen.variables, keep)
    images, apply = specimen.images, specimen.apply

    outputs = jax.jit(nnc.inject(apply))(cut, images)
    expected = jax.jit(apply)(without_by_hand(specimen.variables, coupling, keep), images)
    np.testing.assert_allclose(outputs, expected, atol=1e-5 * float(jnp.abs(expected).max()))

    whole, left = nnc.cost(apply, specimen.variables, images), nnc.cost(apply, cut, images)
    assert coupling.macs({}) == whole.macs
    assert coupling.macs(keep) == left.macs < 0.75 * whole.macs
    assert coupling.parameters({}) == whole.parameters
    assert coupling.parameters(keep) == left.parameters
    assert not any(weight.materialised for weight in nnc.explain(apply, cut, images).weights)


def step(run, images, variables):
    """Batch statistics and gradients of one step of training."""

    def loss(params):
        outputs, statistics = run(variables | {"params": params}, images)
        return (outputs * jnp.cos(jnp.arange(outputs.size).reshape(outputs.shape))).sum(), statistics

    (value, statistics), gradients = nnc.value_and_grad(loss, has_aux=True)(variables["params"])
    return value, statistics, gradients


def described(tree):
    return jax.tree.structure(tree), [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("name", ZOO)
def test_training_mode_and_gradients_hold_the_structure(name):
    specimen, coupling = coupled(name)
    cut = coupling.cut(specimen.variables, half(coupling))
    run = functools.partial(step, nnc.inject(specimen.train), specimen.images)
    _, statistics, gradients = jax.eval_shape(run, cut)
    assert described(statistics) == described(cut.get("batch_stats", {}))
    assert described(gradients) == described(cut["params"])


@pytest.mark.parametrize("name", ["ResNet", "DenseNet", "ShuffleNet"])
def test_training_mode_and_gradients_are_those_of_the_dense_network(name):
    specimen, coupling = coupled(name)
    cut = coupling.cut(specimen.variables, half(coupling))
    value, *mine = jax.jit(functools.partial(step, nnc.inject(specimen.train), specimen.images))(cut)
    by_hand = without_by_hand(specimen.variables, coupling, half(coupling))
    expected, *theirs = jax.jit(functools.partial(step, specimen.train, specimen.images))(by_hand)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    for (path, own), (_, other) in zip(named_leaves(mine, is_compressed), named_leaves(theirs), strict=True):
        scale = float(jnp.abs(at(other, cuts_of(own))).max())
        own, other = own.values if is_compressed(own) else own, at(other, cuts_of(own))
        np.testing.assert_allclose(own, other, atol=1e-4 * scale + 1e-5, err_msg=path)


def test_weights_side_by_side_are_read_as_one():
    weights = {"a": jnp.ones((3, 8)), "b": jnp.ones((8, 4)), "c": jnp.ones((8, 4)), "d": jnp.ones((4, 2))}

    def apply(weights, x):
        both = (x @ weights["a"]) @ jnp.concatenate([weights["b"], weights["c"]], 1)
        return jnp.multiply(*jnp.split(both, 2, 1)) @ weights["d"]

    found = nnc.coupling(apply, weights, jnp.ones((5, 3)))
    roles = [{(member.path, member.axis): member.role for member in group.members} for group in found.groups]
    assert roles == [
        {("a", 1): "output", ("b", 0): "input", ("c", 0): "input"},
        {("b", 1): "output", ("c", 1): "output", ("d", 0): "input"},
    ]


def test_integers_are_no_channels():
    weights = {"a": jnp.ones((3, 8)), "b": jnp.ones((8, 4)), "rows": jnp.ones((9, 8)), "which": jnp.arange(5)}
    apply = lambda w, x: jnp.tanh(x @ w["a"] + w["rows"][w["which"]]) @ w["b"]  # noqa: E731
    found = nnc.coupling(apply, weights, jnp.ones((5, 3)))
    assert [group.size for group in found.groups] == [8]
    assert "which" not in {member.path for group in found.frozen for member in group.members}


def test_the_table_names_modules():
    _, coupling = coupled("ConvNeXt")
    (stream, *_) = (group.frozen for group in coupling.frozen)
    assert stream == "reduce_sum in ConvNeXt/LayerNorm_0: it needs all channels, as normalization does"


def test_the_table_says_why(capsys):
    weights = {"a": jnp.ones((3, 8)), "b": jnp.ones((8, 4))}
    apply = lambda weights, x: jnp.sort(x @ weights["a"]) @ weights["b"]  # noqa: E731
    found = nnc.coupling(apply, weights, jnp.ones((5, 3)))
    found.print()
    out = capsys.readouterr().out
    assert "0 groups of channels can be cut, 4 cannot" in out
    assert repr(found) in out
    assert re.search(r"a +8 +1 +1 +0 +sort: it needs all channels, as normalization does", out)
