"""Re-estimated statistics, beside those of linen's own training mode, and of numpy."""

import functools
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.methods.reestimate import StatisticsMoved
from nncompress_jax.methods.selection import LeftAlone
from tests.normalized import NETWORKS, draw, linen


class Trained(nn.Module):
    """In training mode, without momentum, statistics become those of the one batch that it sees."""

    @nn.compact
    def __call__(self, x, train=False):
        norm = functools.partial(nn.BatchNorm, use_running_average=not train, momentum=0.0)
        x = nn.relu(norm()(nn.Conv(8, (3, 3))(x)))
        x = nn.relu(norm()(x + norm()(nn.Conv(8, (3, 3), use_bias=False)(x))))
        x = nn.remat(nn.Dense)(16)(x.mean((1, 2)))
        return nn.Dense(3)(norm()(x))


pytestmark = pytest.mark.filterwarnings("ignore:the variances of")  # those that are drawn are far from true ones
X = draw(12, 6, 6, 3)
BATCHES = [X[:5], X[5:6], X[6:]]


def network():
    return linen(Trained(), X)[:2]


@pytest.mark.parametrize(
    "method",
    [
        nnc.quantize(bits=4, inputs=False),
        nnc.prune(sparsity=0.5),
        nnc.factorize(rank=2),
    ],
    ids=["4 bits", "sparse", "low rank"],
)
def test_statistics_are_those_of_training_on_all_data_at_once(method):
    apply, variables = network()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = nnc.compress(variables, method, apply=apply, batches=[X])
        new = nnc.batch_norm.reestimate(small, apply, BATCHES)
    _, updated = apply(nnc.decompress(small), X, train=True, mutable="batch_stats")
    for one, other in zip(*map(jax.tree.leaves, (new["batch_stats"], updated["batch_stats"])), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-5)
    assert jax.tree.structure(new) == jax.tree.structure(small)
    assert all(one is other for one, other in zip(*map(jax.tree.leaves, (new["params"], small["params"])), strict=True))


def test_what_enters_integer_products_is_quantized():
    """Of an int8 network the statistics are those of its int8 activations: by hand, for one layer."""
    x = draw(6, 4)
    apply, variables = linen(nn.Sequential([nn.Dense(32), nn.BatchNorm(use_running_average=True)]), x)[:2]
    small = nnc.compress(variables, nnc.quantize())
    new = nnc.batch_norm.reestimate(small, apply, [x])
    dense = nnc.inject(nn.Dense(32).apply)({"params": small["params"]["layers_0"]}, x)
    mean = new["batch_stats"]["layers_1"]["mean"]
    np.testing.assert_allclose(mean, np.asarray(dense, np.float64).mean(0), rtol=1e-5, atol=1e-6)
    assert abs(mean - nn.Dense(32).apply({"params": variables["params"]["layers_0"]}, x).mean(0)).max() > 1e-4


def test_channels_that_are_gone():
    apply, variables = network()
    small = nnc.compress(variables, nnc.prune_channels(keep=0.5), apply=apply, batches=[X])
    new = nnc.batch_norm.reestimate(small, apply, BATCHES)
    _, updated = apply(nnc.decompress(small), X, train=True, mutable="batch_stats")
    assert jax.tree.structure(new) == jax.tree.structure(small)
    dense = nnc.decompress(new)["batch_stats"]
    for name, each in updated["batch_stats"].items():
        there = np.asarray(dense[name]["var"]) != 0
        assert there.sum() == len(there) // 2
        for leaf in ("mean", "var"):
            np.testing.assert_allclose(dense[name][leaf][there], each[leaf][there], rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["heads", "NNX", "Haiku", "torch's order"])
def test_other_networks(name):
    """After it, what a normalization gives has the mean of its bias and the deviation of its scale: no other can be."""
    apply, variables, x = NETWORKS[name]()
    new = nnc.compress(variables, nnc.reestimate, apply=apply, batches=[x, 2 * x])
    again = nnc.compress(new, nnc.reestimate, apply=apply, batches=[x, 2 * x])
    for one, other in zip(*map(jax.tree.leaves, (new, again)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    changed = [one is not other for one, other in zip(*map(jax.tree.leaves, (new, variables)), strict=True)]
    assert sum(changed) == 4 if name == "heads" else 2


def test_heads_by_hand():
    apply, variables, x = NETWORKS["heads"]()
    new = nnc.compress(variables, nnc.reestimate, apply=apply, batches=[x[:1], x[1:]])["batch_stats"]["BatchNorm_1"]
    heads = np.einsum(
        "bti,ihd->bthd",
        *(np.asarray(each, np.float64) for each in (x, variables["params"]["DenseGeneral_1"]["kernel"])),
    )
    np.testing.assert_allclose(new["mean"], heads.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(new["var"], heads.var((0, 1, 2)), rtol=1e-5)


def test_layers_in_a_scan():
    """Statistics of all layers stand in one leaf; each has its own."""
    leaves = {"w": draw(3, 4, 4), "mean": draw(3, 4), "var": draw(3, 4) ** 2}

    def apply(leaves, x):
        def layer(x, t):
            return jax.nn.relu((x @ t["w"] - t["mean"]) / jnp.sqrt(t["var"] + 1e-5)), None

        return jax.lax.scan(layer, x, leaves)[0]

    x = draw(8, 4)
    new = nnc.compress(leaves, nnc.reestimate, apply=apply, batches=[x])
    y = np.asarray(x, np.float64)
    for n in range(3):
        y = y @ np.asarray(leaves["w"][n], np.float64)
        np.testing.assert_allclose(new["mean"][n], y.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(new["var"][n], y.var(0), rtol=1e-4, atol=1e-5)
        y = np.maximum((y - y.mean(0)) / np.sqrt(y.var(0) + 1e-5), 0)


@pytest.mark.parametrize("layers", [("Conv_0",), ("Conv_0", "Dense_0")])
def test_far_statistics_of_many_layers_are_said(layers):
    """What computes one or two of four normalized values is a hundredth of what it was."""
    apply, variables = network()
    near = nnc.batch_norm.reestimate(variables, apply, BATCHES)
    params = dict(near["params"])
    for layer in layers:
        name = next(name for name in params if layer in name)
        params[name] = jax.tree.map(lambda leaf: leaf * 0.01, params[name])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        nnc.batch_norm.reestimate({**near, "params": params}, apply, BATCHES)
    words = [str(each.message) for each in said if each.category is StatisticsMoved]
    message = "the variances of 2 of 4 batch normalizations (batch_stats/BatchNorm_0/mean, ...) are far from what they"
    assert [each[: len(message)] for each in words] == [message] * (len(layers) == 2)


def test_shared_statistics_stay():
    leaves = {"w": draw(4, 4), "v": draw(4, 4), "mean": draw(4), "var": draw(4) ** 2}
    norm = lambda t, x: (x - t["mean"]) / jnp.sqrt(t["var"] + 1e-5)  # noqa: E731
    apply = lambda t, x: norm(t, norm(t, x @ t["w"]) @ t["v"])  # noqa: E731
    with pytest.warns(LeftAlone, match="mean: left as it is: it is the mean at several places"):
        new = nnc.batch_norm.reestimate(leaves, apply, [draw(5, 4)])
    assert all(new[name] is leaves[name] for name in leaves)


def test_refusals():
    apply, variables = network()
    with pytest.raises(nnc.InputError, match="batch_norm.reestimate needs batches="):
        nnc.batch_norm.reestimate(variables, apply, [])
    with pytest.raises(nnc.InputError, match="reestimate needs apply= and batches="):
        nnc.compress(variables, nnc.reestimate)
    with pytest.raises(nnc.InputError, match="the program holds no batch normalization; there is nothing to re-estim"):
        nnc.batch_norm.reestimate({"w": draw(4, 4)}, lambda t, x: x @ t["w"], [draw(5, 4)])
    with pytest.raises(nnc.InputError, match="BatchNorm_0/mean: the data that it is the mean of hold NaN or infinite"):
        nnc.batch_norm.reestimate(variables, apply, [X * jnp.inf])
