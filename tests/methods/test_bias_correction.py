"""Bias correction: outputs of each layer have the mean that they have in the float network."""

import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.methods.selection import LeftAlone
from tests.normalized import NETWORKS, draw, linen


class Network(nn.Module):
    """Returns what each layer gives, too."""

    @nn.compact
    def __call__(self, x):
        first = nn.Conv(8, (3, 3))(x)
        second = nn.Conv(8, (3, 3), feature_group_count=8, strides=2)(nn.gelu(first))
        third = nn.DenseGeneral((2, 3))(nn.relu(second).mean((1, 2)))
        return first, second, third


X = draw(12, 6, 6, 3)
BATCHES = [X[:5], X[5:6], X[6:]]
COARSE = {
    "2 bits": nnc.quantize(bits=2, inputs=False),
    "int8": nnc.quantize(axes=()),
    "sparse": nnc.prune(sparsity=0.6),
}


@pytest.mark.parametrize("name", COARSE)
def test_means_of_all_layers(name):
    apply, variables, _ = linen(Network(), X)
    method = nnc.chain(COARSE[name], nnc.correct_biases(variables))
    small = nnc.compress(variables, method, apply=apply, batches=BATCHES)
    plain = nnc.compress(variables, COARSE[name], apply=apply, batches=BATCHES)
    assert jax.tree.structure(small) == jax.tree.structure(plain)
    axes = ((0, 1, 2), (0, 1, 2), 0)
    truth, now, without = (nnc.inject(apply)(tree, X) for tree in (variables, small, plain))
    for one, other, worse, over in zip(truth, now, without, axes, strict=True):
        size = float(abs(one).max())
        np.testing.assert_allclose(other.mean(over), one.mean(over), rtol=0, atol=2e-5 * size)
        assert float(abs(worse.mean(over) - one.mean(over)).max()) > 1e-4 * size


def test_biases_that_are_subtracted_or_shared_by_channels():
    leaves = {"w": draw(4, 6), "b": draw(6), "v": draw(6, 3), "one": draw(1)}
    apply = lambda t, x: jax.nn.relu(x @ t["w"] - t["b"]) @ t["v"] + t["one"]  # noqa: E731
    x = draw(7, 4)
    small = nnc.compress(leaves, nnc.quantize(bits=2, inputs=False, where="w"))
    small = nnc.compress(small, nnc.correct_biases(leaves), apply=apply, batches=[x])
    dense = nnc.decompress(small)
    np.testing.assert_allclose(
        (x @ dense["w"] - dense["b"]).mean(0), (x @ leaves["w"] - leaves["b"]).mean(0), atol=1e-5
    )
    np.testing.assert_allclose(apply(dense, x).mean(), apply(leaves, x).mean(), atol=1e-5)
    assert all(small[name] is leaves[name] for name in "v")


def test_what_is_left_alone_is_said():
    leaves = {"w": draw(4, 4), "v": draw(4, 4), "u": draw(4, 4), "b": draw(4), "c": draw(4)}
    apply = lambda t, x: (x @ t["w"] + t["b"]) @ t["v"] + t["b"] + jnp.abs(x @ t["u"]) + x @ t["w"].T + t["c"]  # noqa: E731
    small = nnc.compress(leaves, nnc.quantize(where=lambda path: path in "wvu"))
    refused = pytest.raises(nnc.InputError, match="no layer has a bias that could be corrected")
    with warnings.catch_warnings(record=True) as said, refused:
        warnings.simplefilter("always")
        nnc.compress(small, nnc.correct_biases(leaves), apply=apply, batches=[draw(3, 4)])
    words = sorted(str(each.message) for each in said if each.category is LeftAlone)
    nothing = "left as it is: nothing is added to what it multiplies; nnc.reestimate is for batch normalization"
    assert words == ["b: left as it is: b is added at several places"] * 2 + [f"u: {nothing}"]


def test_behind_folding():
    """A folded network has biases again where its layers have any."""
    apply, variables, x = NETWORKS["NNX"]()
    folded = nnc.compress(variables, nnc.batch_norm.fold(), apply=apply, batches=[x])
    small = nnc.compress(folded, nnc.quantize(bits=2, inputs=False))
    new = nnc.compress(small, nnc.correct_biases(folded), apply=apply, batches=[x])
    errors = [float(jnp.square(nnc.inject(apply)(tree, x) - apply(variables, x)).mean()) for tree in (small, new)]
    assert errors[1] < errors[0]


def test_refusals():
    apply, variables, _ = linen(Network(), X)
    with pytest.raises(nnc.InputError, match="correct_biases needs apply= and batches="):
        nnc.compress(variables, nnc.correct_biases(variables))
    other = {"params": {**variables["params"], "Conv_0": {"kernel": variables["params"]["Conv_0"]["kernel"]}}}
    with pytest.raises(nnc.InputError, match="Conv_0/bias: in one of the variables and the reference, expected in"):
        nnc.compress(variables, nnc.correct_biases(other), apply=apply, batches=[X])
    with pytest.raises(nnc.InputError, match="params/Conv_0/kernel: its outputs hold NaN or infinite values"):
        nnc.compress(variables, nnc.correct_biases(variables), apply=apply, batches=[X * jnp.inf])
