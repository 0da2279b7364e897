"""Channels that are multiplied by zero everywhere become zero where they are computed, and outputs stay as they are."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax import models
from nncompress_jax.methods.channels.unused import without_unused
from nncompress_jax.methods.selection import LeftAlone
from nncompress_jax.types import Context
from nncompress_jax.weights.base import dense, is_compressed
from nncompress_jax.weights.quantized import Quantized
from tests.zoo import ZOO

X = np.random.default_rng(0).standard_normal((16, 5)).astype(np.float32)


def chain(weights, x):
    hidden = jax.nn.relu(x @ weights["a"] + weights["bias"])
    return jax.nn.relu(hidden @ weights["b"]) @ weights["c"]


def weights():
    random = np.random.default_rng(1)
    shapes = {"a": (5, 8), "bias": (8,), "b": (8, 6), "c": (6, 3)}
    return {name: jnp.asarray(random.standard_normal(shape), jnp.float32) for name, shape in shapes.items()}


def test_what_computes_them_and_what_computes_that():
    before = weights()
    c = before["c"].at[np.array([1, 4])].set(0)
    b = before["b"].at[2, np.array([0, 2, 3, 5])].set(0)  # channel 2 goes to channels 1 and 4 alone
    given = before | {"b": b, "c": c}
    found = without_unused(given, Context(chain, [X]))
    assert (chain(found, X) == chain(given, X)).all()
    gone = {name: np.zeros(leaf.shape, bool) for name, leaf in before.items()}
    gone["b"][:, [1, 4]] = gone["a"][:, 2] = gone["bias"][2] = True
    for name, where in gone.items():
        assert (np.asarray(found[name]) == np.where(where, 0, given[name])).all(), name


@pytest.mark.parametrize("cut", [False, True])
def test_codes(cut):
    before = weights()
    given = before | {"c": before["c"].at[np.array([1, 4])].set(0)}
    context = Context(chain, [X])
    if cut:
        given = nnc.prune_channels(keep=11 / 14)(given, context)
    given = nnc.quantize(inputs=False, where=lambda _: True)(given, context)
    found = without_unused(given, context)
    run = nnc.inject(chain)
    np.testing.assert_array_equal(run(found, X), run(given, X))
    assert jax.tree.structure(found) == jax.tree.structure(given)
    b = np.asarray(dense(found["b"]))
    assert not b[:, [1, 4]].any()
    others = [0, 2, 3, 5]
    assert (b[:, others] == np.asarray(dense(given["b"]))[:, others]).all()


def test_channels_that_are_used_otherwise_stay():
    """Two computed matrices are multiplied by each other: a weight does not multiply these channels at all, or also."""

    def apply(weights, x):
        hidden = x @ weights["a"]
        return hidden @ weights["c"], hidden @ hidden.T

    given = {"a": weights()["a"], "c": jnp.zeros((8, 3)).at[0, 0].set(1.0)}
    found = without_unused(given, Context(apply, [X]))
    assert (found["a"] == given["a"]).all()


def test_a_network_of_convolutions_and_its_statistics():
    network = models.create("vgg16ds_stride")
    x = jax.random.normal(jax.random.key(0), (4, 32, 32, 3))
    variables = network.init(jax.random.key(1), x)
    kernel = variables["params"]["Conv_24"]["kernel"]
    keep = np.arange(kernel.shape[2]) % 2 == 0
    variables["params"]["Conv_24"]["kernel"] = jnp.where(keep[:, None], kernel, 0)
    context = Context(network.apply, [x])
    found = without_unused(variables, context)
    np.testing.assert_allclose(network.apply(found, x), network.apply(variables, x), rtol=1e-5, atol=1e-6)
    assert not np.asarray(found["params"]["Conv_22"]["kernel"])[..., ~keep].any()
    assert np.asarray(found["params"]["Conv_22"]["kernel"])[..., keep].any()
    assert not any(is_compressed(leaf) for leaf in jax.tree.leaves(found, is_leaf=is_compressed))


@pytest.mark.parametrize("bits", [8, 3])
@pytest.mark.parametrize("round_to", [1, 4])
def test_left_out(bits, round_to):
    """Codes stay codes; the operations are those of a network without the channels."""
    before = weights()
    c = before["c"].at[np.array([1, 4])].set(0)
    b = before["b"].at[2, np.array([0, 2, 3, 5])].set(0)
    context = Context(chain, [X])
    given = nnc.quantize(bits=bits, inputs=False, where="[abc]")(before | {"b": b, "c": c}, context)
    small = nnc.remove_unused_channels(round_to=round_to)(given, context)
    run = nnc.inject(chain)
    np.testing.assert_allclose(run(small, X), run(given, X), rtol=1e-5, atol=1e-5)
    hidden, last = {1: (7, 4), 4: (8, 4)}[round_to]
    assert small["b"].stored_shape == (hidden, last)
    assert small["c"].stored_shape == (last, 3)
    assert all(isinstance(getattr(small[name], "values", small[name]), Quantized) for name in "abc")
    assert nnc.cost(chain, small, X).macs == 5 * hidden + hidden * last + last * 3
    report = nnc.int8_report(chain, small, X)
    assert len(report.rows) == 3
    again = nnc.remove_unused_channels(round_to=round_to)(small, context)
    assert jax.tree.structure(again) == jax.tree.structure(small)


def test_left_out_of_what_was_cut_before():
    context = Context(chain, [X])
    given = nnc.prune_channels(keep=11 / 14)(weights(), context)
    used = np.flatnonzero(np.asarray(dense(given["c"])).any(1))
    c = jnp.asarray(np.where(np.arange(6)[:, None] == used[0], 0, dense(given["c"])))
    given = nnc.quantize(inputs=False, where="[abc]*")(given | {"c": c}, context)
    small = nnc.remove_unused_channels()(given, context)
    np.testing.assert_allclose(nnc.inject(chain)(small, X), nnc.inject(chain)(given, X), rtol=1e-5, atol=1e-5)
    assert small["c"].stored_shape[0] == small["b"].stored_shape[1] == len(used) - 1


def test_what_is_used_otherwise_is_not_left_out():
    def apply(weights, x):
        hidden = x @ weights["a"]
        return hidden @ weights["c"], hidden @ hidden.T

    given = {"a": weights()["a"], "c": jnp.zeros((8, 3)).at[0, 0].set(1.0)}
    small = nnc.remove_unused_channels()(given, Context(apply, [X]))
    assert (dense(small["a"]) == given["a"]).all()


def test_errors():
    with pytest.raises(nnc.InputError, match="round_to=0: expected 1 or more"):
        nnc.remove_unused_channels(round_to=0)
    with pytest.raises(nnc.InputError, match="remove_unused_channels needs"):
        nnc.compress(weights(), nnc.remove_unused_channels())
    with pytest.raises(nnc.InputError, match="no group of channels can be cut"):
        nnc.compress(
            {"a": weights()["a"]}, nnc.remove_unused_channels(), apply=lambda tree, x: x @ tree["a"], batches=[X]
        )


@pytest.mark.parametrize("name", ZOO)
def test_networks_as_people_write_them(name):
    """What cutting leaves zero in a dense network is left out again, but for queries and keys."""
    specimen = ZOO[name]()
    options = {"apply": specimen.apply, "batches": [specimen.images]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LeftAlone)  # of ShuffleNet a little more than half
        cut = nnc.compress(specimen.variables, nnc.prune_channels(keep=0.5), **options)
    zeros = nnc.decompress(cut)
    again = nnc.compress(zeros, nnc.remove_unused_channels(), **options)
    run, whole = nnc.inject(specimen.apply), specimen.apply(zeros, specimen.images)
    np.testing.assert_allclose(run(again, specimen.images), whole, rtol=0, atol=1e-5 * float(abs(whole).max()))
    macs = [nnc.cost(specimen.apply, tree, specimen.images).macs for tree in (again, cut, zeros)]
    assert macs[0] < macs[2]
    assert macs[0] <= macs[1] or "ViT" in name
