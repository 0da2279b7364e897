"""Coupled channels on networks as people have them: what is cut, and that nothing else changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.tree import named_leaves
from nncompress_jax.weights.base import dense, is_compressed
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


@pytest.mark.parametrize("name", [name for name in ZOO if name in ("ResNet", "DenseNet", "MobileNetV3", "ShuffleNet")])
def test_training_mode_and_gradients_hold_the_structure(name):
    specimen, coupling = coupled(name)
    keep = half(coupling)
    cut = coupling.cut(specimen.variables, keep)

    def loss(params, run, variables):
        outputs, updates = run(variables | {"params": params}, specimen.images, train=True, mutable=["batch_stats"])
        return (outputs * jnp.cos(jnp.arange(outputs.size).reshape(outputs.shape))).sum(), updates

    apply = nnc.inject(specimen.apply)
    (value, updates), gradients = jax.jit(lambda v: nnc.value_and_grad(loss, has_aux=True)(v["params"], apply, v))(cut)
    assert jax.tree.structure(updates["batch_stats"]) == jax.tree.structure(cut["batch_stats"])
    assert jax.tree.structure(gradients) == jax.tree.structure(cut["params"])

    hand = coupling_of_dense(specimen, coupling, keep)
    (expected, statistics), wanted = jax.jit(
        lambda v: jax.value_and_grad(loss, has_aux=True)(v["params"], specimen.apply, v)
    )(hand)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    for (path, mine), (_, theirs) in zip(
        [*named_leaves(gradients, is_compressed), *named_leaves(updates, is_compressed)],
        [*named_leaves(wanted), *named_leaves(statistics)],
        strict=True,
    ):
        there = mine.cuts if is_compressed(mine) else [None] * mine.ndim
        for axis, each in enumerate(there):
            theirs = theirs if each is None else jnp.take(theirs, each.indices, axis)
        mine = mine.values if is_compressed(mine) else mine
        np.testing.assert_allclose(mine, theirs, atol=1e-4 * float(jnp.abs(theirs).max()) + 1e-5, err_msg=path)


def coupling_of_dense(specimen, coupling, keep):
    return jax.tree.map(dense, coupling.cut(specimen.variables, keep), is_leaf=is_compressed)
