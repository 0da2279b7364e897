"""Folding: the same outputs of the unedited network, and a normalization that does nothing."""

import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.methods.selection import LeftAlone
from nncompress_jax.tree import named_leaves
from nncompress_jax.weights.base import is_compressed
from tests.normalized import NETWORKS, draw, linen


def folded(name, **options):
    apply, variables, x = NETWORKS[name]()
    return apply, variables, x, nnc.compress(variables, nnc.batch_norm.fold(**options), apply=apply, batches=[x])


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_outputs(name, weights):
    apply, variables, x, small = folded(name, weights=weights)
    before, after = apply(variables, x), apply(small, x)
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * float(abs(before).max()))
    assert jax.tree.structure(small) == jax.tree.structure(variables)
    for (_, old), (_, new) in zip(named_leaves(variables), named_leaves(small), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)


VECTORS = {
    "convolutional": ("BatchNorm_0", "params/Conv_0/kernel"),
    "Haiku": ("batch_norm", "0/net/~/conv/w"),
    "NNX": ("norm", "conv/kernel"),
    "torch's order": ("bn", "conv.weight"),
}


@pytest.mark.parametrize("name", VECTORS)
def test_nothing_is_left_of_the_normalization(name):
    _, variables, _, small = folded(name)
    norm, weight = VECTORS[name]
    after = {path: np.asarray(leaf) for path, leaf in named_leaves(small) if norm in path}
    for path, leaf in after.items():
        if "mean" in path:
            assert not leaf.any()
        elif "var" in path and "counter" not in path:
            assert abs(leaf - 1).max() < 1e-2
        elif path.endswith(("scale", "bn.weight")):
            assert (leaf == 1).all()
    assert (dict(named_leaves(small))[weight] != dict(named_leaves(variables))[weight]).all()


def test_by_hand():
    """Of a layer [1, 2]: 3 x + 5 and 4 x + 6, less 1 and 2, by 2 and 3, times 10 and 9, plus 7 and 8."""
    leaves = {"w": [[3.0, 4.0]], "b": [5.0, 6.0], "m": [1.0, 2.0], "v": [3.0, 8.0], "s": [10.0, 9.0], "o": [7.0, 8.0]}
    leaves = {name: jnp.array(numbers) for name, numbers in leaves.items()}

    def apply(t, x):
        return (x @ t["w"] + t["b"] - t["m"]) * jax.lax.rsqrt(t["v"] + 1.0) * t["s"] + t["o"]

    small = nnc.compress(leaves, nnc.batch_norm.fold(), apply=apply, batches=[jnp.ones((1, 1))])
    assert {name: small[name].tolist() for name in small} == {
        "w": [[15.0, 12.0]],
        "b": [25.0, 18.0],
        "m": [0.0, 0.0],
        "v": [0.0, 0.0],
        "s": [1.0, 1.0],
        "o": [2.0, 2.0],
    }


def test_by_hand_without_the_weights():
    """Of 3 x + 5 and 4 x + 6, less 1 and 2, by 2 and 3, times 10 and 9, plus 7 and 8: gains 5, 3 and sums 4, 4."""
    leaves = {"w": [[3.0, 4.0]], "b": [5.0, 6.0], "m": [1.0, 2.0], "v": [3.0, 8.0], "s": [10.0, 9.0], "o": [7.0, 8.0]}
    leaves = {name: jnp.array(numbers) for name, numbers in leaves.items()}

    def apply(t, x):
        y = (x @ t["w"] + t["b"] - t["m"]) * jax.lax.rsqrt(t["v"] + 1.0)
        return (y * t["s"] if "s" in t else y) + t.get("o", 0)

    def small(*names):
        some = {name: leaves[name] for name in names}
        method = nnc.batch_norm.fold(weights=False)
        small = nnc.compress(some, method, apply=apply, batches=[jnp.ones((1, 1))])
        assert small.pop("w") is leaves["w"]
        return {name: small[name].tolist() for name in small}

    gone = {"b": [0.0, 0.0], "v": [0.0, 0.0], "m": [0.0, 0.0]}
    assert small(*"wbmvso") == gone | {"s": [5.0, 3.0], "o": [27.0, 20.0]}
    assert small(*"wbmvs") == gone | {"s": [5.0, 3.0], "m": [-4.0, -4.0]}
    assert small(*"wbmv") == gone | {"v": [3.0, 8.0], "m": [-4.0, -4.0]}


def test_heads_that_share_a_channel():
    """Normalized along the last axis alone, the gain of a channel goes to its place in every head."""
    _apply, variables, _x, small = folded("heads")
    kernel, other = (tree["params"]["DenseGeneral_1"]["kernel"] for tree in (variables, small))
    stats, scale = variables["batch_stats"]["BatchNorm_1"], variables["params"]["BatchNorm_1"]["scale"]
    gain = np.asarray(scale) / np.sqrt(np.asarray(stats["var"]) + 1e-5)
    assert gain.shape == (3,)
    np.testing.assert_allclose(other, np.asarray(kernel) * gain, rtol=1e-5)


def test_where():
    _apply, variables, _x, small = folded("convolutional", where="*Dense*")
    changed = {p for (p, a), (_, b) in zip(named_leaves(variables), named_leaves(small), strict=True) if (a != b).any()}
    assert changed == {
        "params/Dense_0/kernel",
        "params/Dense_0/bias",
        "batch_stats/BatchNorm_3/mean",
        "batch_stats/BatchNorm_3/var",
    }


def test_low_precision():
    apply, variables, x = NETWORKS["convolutional"]()
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables)
    small = nnc.compress(half, nnc.batch_norm.fold(), apply=apply, batches=[x])
    assert {leaf.dtype.name for leaf in jax.tree.leaves(small)} == {"bfloat16"}
    before, after = apply(half, x).astype(jnp.float32), apply(small, x).astype(jnp.float32)
    np.testing.assert_allclose(after, before, rtol=0, atol=0.05 * float(abs(before).max()))


def test_then_quantized():
    apply, variables, x = NETWORKS["convolutional"]()
    method = nnc.chain(nnc.batch_norm.fold(), nnc.quantize())
    small = nnc.compress(variables, method, apply=apply, batches=[x])
    before, after = apply(variables, x), nnc.inject(apply)(small, x)
    np.testing.assert_allclose(after, before, rtol=0, atol=0.1 * float(abs(before).max()))


def test_what_is_left_alone_is_said():
    leaves = {"w": draw(4, 4), "m": draw(4), "v": draw(4) ** 2}
    apply = lambda t, x: (x @ t["w"] - t["m"]) / jnp.sqrt(t["v"] + 1e-5) + x @ t["w"]  # noqa: E731
    with pytest.warns(LeftAlone, match="w: left as it is: w is used at several places"):
        small = nnc.compress(leaves, nnc.batch_norm.fold(), apply=apply, batches=[draw(2, 4)])
    assert all(small[name] is leaves[name] for name in leaves)


def test_compressed_before():
    apply, variables, x = NETWORKS["torch's order"]()
    method = nnc.chain(nnc.quantize(where="conv.weight"), nnc.batch_norm.fold())
    with pytest.warns(LeftAlone, match="conv.weight: compressed already; fold before what compresses"):
        nnc.compress(variables, method, apply=apply, batches=[x])


def test_biases_that_share_a_mean_stay():
    """Two heads, each with its own biases, and one mean for both."""
    leaves = {"w": draw(4, 2, 3), "b": draw(2, 3), "m": draw(3), "v": draw(3) ** 2, "s": draw(3, seed=2)}

    def apply(t, x):
        return (jnp.einsum("bi,ihd->bhd", x, t["w"]) + t["b"] - t["m"]) / jnp.sqrt(t["v"] + 1e-3) * t["s"]

    x = draw(5, 4)
    small = nnc.compress(leaves, nnc.batch_norm.fold(weights=False), apply=apply, batches=[x])
    np.testing.assert_allclose(apply(small, x), apply(leaves, x), rtol=1e-5, atol=1e-5)
    assert (small["b"] == leaves["b"]).all()
    assert np.ptp(small["v"]) == 0 < np.ptp(leaves["v"])


@pytest.mark.parametrize("name", ["convolutional", "torch's order", "NNX"])
def test_without_the_weights_after_what_compresses(name):
    """Of the statistics nothing is left; the codes are the same arrays."""
    apply, variables, x = NETWORKS[name]()
    small = nnc.compress(variables, nnc.quantize(where=lambda path: "conv" in path.lower() and "bias" not in path))
    gathered = nnc.compress(small, nnc.batch_norm.fold(weights=False), apply=apply, batches=[x])
    before, after = nnc.inject(apply)(small, x), nnc.inject(apply)(gathered, x)
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * float(abs(before).max()))
    same, other = (dict(named_leaves(tree, is_compressed)) for tree in (small, gathered))
    assert all(other[path] is leaf for path, leaf in same.items() if is_compressed(leaf))
    first = {path: np.asarray(leaf) for path, leaf in other.items() if VECTORS[name][0] in path}
    assert [np.ptp(leaf) == 0 for path, leaf in first.items() if path.endswith(("mean", "var"))] == [True, True]


def variances(tree):
    """By path, what is left of them."""
    leaves = [(path, getattr(leaf, "values", leaf)) for path, leaf in named_leaves(tree, is_compressed)]
    return [(path, leaf) for path, leaf in leaves if path.endswith("var")]


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize(("name", "keep"), [("convolutional", 4 / 7), ("NNX", 0.5)])
def test_what_channels_are_left(name, keep, weights):
    """Cut before: the same outputs, the same channels."""
    apply, variables, x = NETWORKS[name]()
    cut = nnc.compress(variables, nnc.prune_channels(keep=keep), apply=apply, batches=[x])
    assert any(is_compressed(leaf) for path, leaf in named_leaves(cut, is_compressed) if path.endswith("var"))
    folded = nnc.compress(cut, nnc.batch_norm.fold(weights=weights), apply=apply, batches=[x])
    before, after = nnc.inject(apply)(cut, x), nnc.inject(apply)(folded, x)
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * float(abs(before).max()))
    assert jax.tree.structure(folded) == jax.tree.structure(cut)
    uncut = nnc.compress(variables, nnc.batch_norm.fold(weights=weights), apply=apply, batches=[x])
    ones = [{path: np.ptp(leaf) == 0 for path, leaf in variances(tree)} for tree in (uncut, folded)]
    assert ones[0] == ones[1]
    assert any(ones[0].values())


def test_negative_variances():
    apply, variables, x = NETWORKS["torch's order"]()
    variables["bn.running_var"] = -variables["bn.running_var"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with pytest.warns(LeftAlone, match="bn.running_var: not all above -0.001"):
            nnc.compress(variables, nnc.batch_norm.fold(), apply=apply, batches=[x])


def test_refusals():
    apply, variables, x = NETWORKS["NNX"]()
    with pytest.raises(nnc.InputError, match="batch_norm.fold needs apply= and batches=: compress"):
        nnc.compress(variables, nnc.batch_norm.fold())
    with pytest.raises(nnc.InputError, match="where='nothing' matches none"):
        nnc.compress(variables, nnc.batch_norm.fold(where="nothing"), apply=apply, batches=[x])
    plain = linen(nn.Dense(3), x)
    with pytest.raises(nnc.InputError, match="the program holds no batch normalization that could be folded"):
        nnc.compress(plain[1], nnc.batch_norm.fold(), apply=plain[0], batches=[x])
