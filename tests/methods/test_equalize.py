"""Equalization: the same outputs, equal ranges, and nothing where a function is not positive-homogeneous."""

import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import nncompress_jax as nnc
from nncompress_jax.methods.selection import LeftAlone
from nncompress_jax.tree import named_leaves
from tests.normalized import NETWORKS, draw, linen

SIZES = {"a": (4, 6), "b": (6, 6), "c": (6, 3), "d": (12, 3), "v": (6,), "u": (6,), "one": (1,), "e": (6, 6)}
LEAVES = {name: draw(*shape, seed=n) for n, (name, shape) in enumerate(SIZES.items())}
X = draw(5, 4)
relu = jax.nn.relu

FREE = {
    "layers": lambda t, x: relu(relu(x @ t["a"] + t["v"]) @ t["b"]) @ t["c"],
    "no function between": lambda t, x: x @ t["a"] @ t["b"] @ t["c"],
    "leaky": lambda t, x: jax.nn.leaky_relu(x @ t["a"] - t["v"], 0.3) @ t["c"],
    "PReLU": lambda t, x: jnp.where((y := x @ t["a"]) >= 0, y, t["v"] * y) @ t["c"],
    "scale and shift": lambda t, x: relu((x @ t["a"]) * t["v"] / 3 + t["u"]) @ t["c"],
    "normalization": lambda t, x: relu((x @ t["a"] - t["v"]) / jnp.sqrt(t["u"] ** 2 + 1e-5)) @ t["c"],
    "residual": lambda t, x: (h := relu(x @ t["a"])) @ t["c"] + relu(h + relu(h @ t["b"]) @ t["e"]) @ t["c"],
    "concatenated": lambda t, x: jnp.concatenate([x @ t["a"], abs(x @ t["a"]) * 2], 1) @ t["d"],
    "apart and together": lambda t, x: sum(part @ t["c"][:3] for part in jnp.split(relu(x @ t["a"]), 2, 1)),
    "padded": lambda t, x: jnp.pad(relu(x @ t["a"])[:, 1:5], ((0, 0), (2, 6))) @ t["d"],
    "stacked": lambda t, x: jnp.stack([relu(x @ t["a"]), 2 * (x @ t["a"])], 1).sum(1) @ t["c"],
    "read in another order": lambda t, x: relu(x @ t["a"])[jnp.argsort(x[:, 0])] @ t["c"],
    "one for all": lambda t, x: relu(x @ t["a"] + t["one"]) @ t["c"],
    "summed and cut": lambda t, x: relu((x @ t["a"]).reshape(5, 6)[:, ::-1].T.max(1)) @ t["c"],
    "in jit, remat and einsum": jax.checkpoint(
        jax.jit(lambda t, x: jnp.einsum("bhd,hdo->bo", relu(x @ t["a"]).reshape(5, 2, 3), t["c"].reshape(2, 3, 3)))
    ),
}

TIED = lambda t, x: (h := relu(x @ t["a"])) @ t["c"] + relu(h + relu(h @ t["b"]) @ t["b"].T) @ t["c"]  # noqa: E731

HELD = {
    "gelu": lambda t, x: jax.nn.gelu(x @ t["a"]) @ t["c"],
    "sigmoid": lambda t, x: jax.nn.sigmoid(x @ t["a"]) @ t["c"],
    "softmax": lambda t, x: jax.nn.softmax(x @ t["a"]) @ t["c"],
    "relu6": lambda t, x: jax.nn.relu6(x @ t["a"]) @ t["c"],
    "standardized": lambda t, x: jax.nn.standardize(x @ t["a"]) @ t["c"],
    "gated": lambda t, x: ((y := x @ t["a"]) * y) @ t["c"],
    "the input is added": lambda t, x: (x @ t["a"] + jnp.pad(x, ((0, 0), (0, 2)))) @ t["c"],
    "an output": lambda t, x: ((y := relu(x @ t["a"])) @ t["c"], y),
    "a number is added": lambda t, x: (x @ t["a"] + 1) @ t["c"],
    "a weight used otherwise": lambda t, x: relu(x @ t["a"] + t["v"]) @ t["c"] + jnp.sin(t["v"]).sum() + x.sum(),
    "a loop": lambda t, x: lax.fori_loop(0, 2, lambda _, y: relu(y), x @ t["a"]) @ t["c"],
}


def close(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * float(abs(b).max()))


@pytest.mark.parametrize("name", FREE)
def test_the_same_outputs_of_other_weights(name):
    small = nnc.compress(LEAVES, nnc.equalize(), apply=FREE[name], batches=[X])
    close(FREE[name](small, X), FREE[name](LEAVES, X))
    assert any((small[name] != LEAVES[name]).any() for name in "ab")


@pytest.mark.parametrize("name", HELD)
def test_other_functions(name):
    refused = pytest.raises(nnc.InputError, match="no channels between two layers can be equalized; leave equalize out")
    with warnings.catch_warnings(record=True) as said, refused:
        warnings.simplefilter("always")
        nnc.compress(LEAVES, nnc.equalize(), apply=HELD[name], batches=[X])
    assert any(str(each.message).startswith("a: left as it is: ") for each in said)


def test_weights_used_twice():
    uneven = LEAVES | {"a": 100 * LEAVES["a"]}
    small = nnc.compress(uneven, nnc.equalize(), apply=TIED, batches=[X])
    close(TIED(small, X), TIED(uneven, X))
    assert (small["a"] != uneven["a"]).any()


def test_ranges_meet():
    """Of two layers: what computes a channel, and what it enters, have the root of the product of both ranges."""
    small = nnc.compress(LEAVES, nnc.equalize(), apply=FREE["leaky"], batches=[X])
    computed, entered = (np.abs(np.asarray(tree)) for tree in (LEAVES["a"], LEAVES["c"]))
    expected = np.sqrt(computed.max(0) * entered.max(1))
    np.testing.assert_allclose(abs(small["a"]).max(0), expected, rtol=1e-5)
    np.testing.assert_allclose(abs(small["c"]).max(1), expected, rtol=1e-5)
    np.testing.assert_allclose(small["v"] / LEAVES["v"], small["a"][0] / LEAVES["a"][0], rtol=1e-5)


class Separable(nn.Module):
    """Residuals, depthwise and grouped convolutions, pooling and a flattened end."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(8, (3, 3))(x)))
        y = nn.relu(nn.Conv(8, (3, 3), feature_group_count=8)(x))
        y = nn.Conv(8, (3, 3), feature_group_count=2)(nn.relu(nn.Conv(8, (1, 1), use_bias=False)(y)))
        x = nn.avg_pool(nn.max_pool(nn.relu(x + y), (2, 2), (2, 2)), (2, 2), (1, 1))
        return nn.Dense(5)(x.reshape(x.shape[0], -1))


def test_convolutions():
    apply, variables, x = linen(Separable(), draw(2, 8, 8, 3))
    for method in (nnc.equalize(), nnc.chain(nnc.batch_norm.fold(), nnc.equalize())):
        small = nnc.compress(variables, method, apply=apply, batches=[x])
        close(apply(small, x), apply(variables, x))
        changed = [p for (p, a), (_, b) in zip(*map(named_leaves, (variables, small)), strict=True) if (a != b).any()]
        assert {path for path in changed if "kernel" in path} == {
            *(f"params/Conv_{n}/kernel" for n in range(4)),
            "params/Dense_0/kernel",
        }


@pytest.mark.parametrize("name", ["convolutional", "NNX"])
def test_networks_with_normalization(name):
    apply, variables, x = NETWORKS[name]()
    small = nnc.compress(variables, nnc.equalize(), apply=apply, batches=[x])
    close(apply(small, x), apply(variables, x))


def test_one_scale_serves_better():
    """Channels of very different ranges, on few bits with one scale for each tensor."""
    unequal = LEAVES | {"a": LEAVES["a"] * jnp.array([100.0, 10.0, 1.0, 1.0, 0.1, 0.01])}
    apply = FREE["leaky"]
    few = nnc.quantize(bits=4, axes=(), inputs=False, where=lambda path: path in "ac")
    plain, equal = (
        nnc.compress(unequal, method, apply=apply, batches=[X]) for method in (few, nnc.chain(nnc.equalize(), few))
    )
    errors = [float(jnp.square(nnc.inject(apply)(tree, X) - apply(unequal, X)).mean()) for tree in (plain, equal)]
    assert errors[1] < errors[0] / 2


def test_channels_that_are_zero_stay():
    dead = LEAVES | {"a": LEAVES["a"].at[:, 2].set(0), "c": LEAVES["c"].at[3].set(0)}
    small = nnc.compress(dead, nnc.equalize(), apply=FREE["leaky"], batches=[X])
    assert (small["a"][:, 3] == dead["a"][:, 3]).all()
    assert (small["c"][2] == dead["c"][2]).all()
    close(FREE["leaky"](small, X), FREE["leaky"](dead, X))


def test_compressed_before():
    method = nnc.chain(nnc.quantize(where="c"), nnc.equalize())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LeftAlone)
        small = nnc.compress(LEAVES, method, apply=FREE["layers"], batches=[X])
    assert (small["a"] != LEAVES["a"]).any()
    assert (
        nnc.decompress(small)["c"].tolist()
        == nnc.decompress(nnc.compress(LEAVES, nnc.quantize(where="c")))["c"].tolist()
    )


def test_refusals():
    with pytest.raises(nnc.InputError, match="equalize needs apply= and batches="):
        nnc.compress(LEAVES, nnc.equalize())
    broken = LEAVES | {"a": LEAVES["a"].at[0, 0].set(jnp.inf)}
    with pytest.raises(nnc.InputError, match="a: NaN or infinite values; restore an earlier checkpoint"):
        nnc.compress(broken, nnc.equalize(), apply=FREE["leaky"], batches=[X])
