"""Cutting whole channels: which go, how many, and what is said where it cannot be."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nncompress_jax as nnc
from nncompress_jax import criteria, models
from nncompress_jax.axes.places import along
from nncompress_jax.methods.selection import LeftAlone
from nncompress_jax.models.vgg import configuration
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Context
from nncompress_jax.weights.base import dense, is_compressed
from nncompress_jax.weights.channel_pruned import ChannelPruned, cuts_of
from nncompress_jax.weights.channels import Channels
from tests.methods.drawn import draw
from tests.zoo import ZOO


def two_layers(weights, x):
    return jax.nn.relu(x @ weights["a"]["kernel"] + weights["a"]["bias"]) @ weights["b"]["kernel"]


@pytest.fixture
def weights():
    return {"a": {"kernel": draw(6, 8), "bias": draw(8, seed=1)}, "b": {"kernel": draw(8, 5, seed=2)}}


X = draw(32, 6, seed=3)


def cut(weights, apply=two_layers, batches=(X,), **options):
    return nnc.compress(weights, nnc.prune_channels(**options), apply=apply, batches=batches)


def channel_pruned(weights):
    return weights["a"]["kernel"].channels[1].indices.tolist()


def score(criterion, weights):
    coupled = nnc.coupling(two_layers, weights, X)
    by_path = lambda own, x: two_layers(  # noqa: E731
        {"a": {"kernel": own["a/kernel"], "bias": own["a/bias"]}, "b": {"kernel": own["b/kernel"]}}, x
    )
    (scores,) = criterion(coupled.groups, dict(named_leaves(weights)), Context(by_path, (X,)))
    return scores


def test_norms_are_those_of_the_filters(weights):
    kernel = np.asarray(weights["a"]["kernel"])
    np.testing.assert_allclose(score(criteria.l1, weights), np.abs(kernel).sum(0), rtol=1e-6)
    np.testing.assert_allclose(score(criteria.l2, weights), np.linalg.norm(kernel, axis=0), rtol=1e-6)
    small = cut(weights, keep=0.5)
    assert channel_pruned(small) == sorted(np.argsort(np.abs(kernel).sum(0))[4:].tolist())
    np.testing.assert_array_equal(small["a"]["kernel"].values, kernel[:, channel_pruned(small)])
    np.testing.assert_array_equal(small["a"]["bias"].values, weights["a"]["bias"][np.array(channel_pruned(small))])
    np.testing.assert_array_equal(small["b"]["kernel"].values, weights["b"]["kernel"][np.array(channel_pruned(small))])


def test_the_geometric_median_is_farthest_from_no_other(weights):
    kernel = np.asarray(weights["a"]["kernel"])
    distances = np.linalg.norm(kernel[:, :, None] - kernel[:, None, :], axis=0).sum(0)
    np.testing.assert_allclose(score(criteria.geometric_median, weights), distances, rtol=1e-4)


def test_taylor_is_the_derivative_by_a_gate_of_each_example(weights):
    labels = jnp.arange(32) % 5
    loss = lambda y, labels: optax.softmax_cross_entropy_with_integer_labels(y, labels).mean()  # noqa: E731

    def gated(gate, x, labels):
        hidden = jax.nn.relu(x @ weights["a"]["kernel"] + weights["a"]["bias"]) * gate
        return loss(hidden @ weights["b"]["kernel"], labels)

    by_example = jax.vmap(jax.grad(gated), (None, 0, 0))(jnp.ones(8), X[:, None], labels[:, None])
    batches = [(X[:24], labels[:24]), (X[24:], labels[24:])]
    scores = score(criteria.taylor(loss, batches), weights)
    np.testing.assert_allclose(scores, jnp.abs(by_example).mean(0), rtol=1e-4, atol=1e-6)


def test_reconstruction_takes_what_is_missed_least(weights):
    # Two channels are nothing, and two cancel each other: together they are not missed either.
    hidden = weights["a"]["kernel"].at[:, 0].set(0).at[:, 4].set(weights["a"]["kernel"][:, 3])
    weights["a"] |= {"kernel": hidden, "bias": weights["a"]["bias"].at[0].set(-1).at[4].set(weights["a"]["bias"][3])}
    outputs = weights["b"]["kernel"].at[2].set(0).at[4].set(-weights["b"]["kernel"][3])
    weights["b"] |= {"kernel": outputs}
    turns = score(criteria.reconstruction([X]), weights)
    assert set(np.argsort(turns)[:2].tolist()) == {0, 2}
    small = cut(weights, keep=0.5, criterion=criteria.reconstruction([X]))
    assert channel_pruned(small) == [1, 5, 6, 7]
    exact = two_layers(weights, X)
    np.testing.assert_allclose(nnc.inject(two_layers)(small, X), exact, atol=1e-5 * float(jnp.abs(exact).max()))


def test_least_squares_lets_a_channel_stand_for_its_twin(weights):
    kernel, bias, outputs = weights["a"]["kernel"][:, :4], weights["a"]["bias"][:4], weights["b"]["kernel"][:4]
    twins = {"kernel": jnp.concatenate([kernel, kernel], 1), "bias": jnp.concatenate([bias, bias])}
    weights = {"a": twins, "b": {"kernel": jnp.concatenate([outputs, 2 * outputs])}}
    exact, first = two_layers(weights, X), lambda groups, weights, context: [-np.arange(8.0)]
    small = [cut(weights, keep=0.5, criterion=first, reconstruct=on) for on in (False, True)]
    errors = [float(jnp.abs(nnc.inject(two_layers)(each, X) - exact).max()) for each in small]
    assert errors[1] < 0.01 * errors[0]
    hidden = np.asarray(jax.nn.relu(X @ twins["kernel"] + twins["bias"]), np.float64)
    left, before = hidden[:, :4], np.asarray(weights["b"]["kernel"], np.float64)
    ridge = 0.01 * np.square(left).sum() / 8  # towards the weights as they were
    wanted = np.linalg.solve(left.T @ left + ridge * np.eye(4), left.T @ hidden @ before + ridge * before[:4])
    np.testing.assert_allclose(small[1]["b"]["kernel"].values, wanted, rtol=1e-3, atol=1e-4)


@functools.cache
def resnet():
    return ZOO["ResNet"]()


BUDGETS = [(criteria.l1, budget, scope) for budget in ("macs", "parameters", "keep") for scope in ("layer", "global")]
BUDGETS += [(criteria.batch_norm_scale, "macs", "global"), (criteria.random(jax.random.key(0)), "macs", "layer")]


@pytest.mark.parametrize(("criterion", "budget", "scope"), BUDGETS)
def test_budgets(criterion, budget, scope):
    specimen = resnet()
    options = {budget: 0.5, "scope": scope, "criterion": criterion}
    small = cut(specimen.variables, specimen.apply, [specimen.images], **options)
    whole, left = (nnc.cost(specimen.apply, v, specimen.images) for v in (specimen.variables, small))
    if budget == "keep":
        coupled = nnc.coupling(specimen.apply, specimen.variables, specimen.images)
        channels = sum(group.size for group in coupled.groups)
        there = sum(len(dict(named_leaves(small, is_compressed))[group.name].channels[-1]) for group in coupled.groups)
        assert abs(there - channels / 2) <= 0.02 * channels
    else:
        assert getattr(left, budget) == pytest.approx(0.5 * getattr(whole, budget), rel=0.02)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_network_that_lost_channels_can_lose_more(scope):
    specimen = resnet()
    apply, images = specimen.apply, specimen.images
    whole = nnc.cost(apply, specimen.variables, images)
    half = cut(specimen.variables, apply, [images], macs=0.5, scope=scope)
    trained = jax.tree.map(lambda x: 1.5 * x, half)
    less = cut(trained, apply, [images], macs=0.3, scope=scope)
    assert nnc.cost(apply, less, images).macs == pytest.approx(0.3 * whole.macs, rel=0.02)
    before, after = (dict(named_leaves(each, is_compressed)) for each in (trained, less))
    for path, leaf in after.items():
        for axis, own in enumerate(cuts_of(before[path])):
            assert own is None or not (cuts_of(leaf)[axis].mask & ~own.mask).any(), path
        np.testing.assert_array_equal(dense(leaf), at_channels_of(leaf, dense(before[path])), err_msg=path)
    outputs, expected = jax.jit(nnc.inject(apply))(less, images), jax.jit(apply)(nnc.decompress(less), images)
    np.testing.assert_allclose(outputs, expected, atol=1e-5 * float(jnp.abs(expected).max()))
    with pytest.warns(LeftAlone, match=r"macs=0\.9: the nearest that can be reached is 0\.[23]"):
        again = cut(less, apply, [images], macs=0.9)
    assert jax.tree.structure(again) == jax.tree.structure(less)


def at_channels_of(leaf, array):
    """Zero where a leaf lacks channels."""
    for axis, own in enumerate(cuts_of(leaf)):
        array = array if own is None else array * along(axis, array.ndim, own.mask)
    return array


def test_what_is_gone_counts_for_nothing(weights):
    small = cut(weights, keep=0.75)
    there = channel_pruned(small)
    for criterion in (criteria.geometric_median, criteria.l2):
        whole = {"a": {name: leaf[..., np.array(there)] for name, leaf in weights["a"].items()}}
        whole["b"] = {"kernel": weights["b"]["kernel"][np.array(there)]}
        expected = [there[i] for i in channel_pruned(cut(whole, keep=2 / 3, criterion=criterion))]
        assert channel_pruned(cut(small, keep=0.5, criterion=criterion)) == expected


def test_other_groups_stay_cut():
    weights = {"a": draw(6, 8), "b": draw(8, 4, seed=1), "c": draw(4, 3, seed=2)}
    apply = lambda w, x: jax.nn.relu(jax.nn.relu(x @ w["a"]) @ w["b"]) @ w["c"]  # noqa: E731
    small = cut(weights, apply, keep=0.5, where="a")
    both = cut(small, apply, keep=0.5, where="b")
    assert both["a"] is not small["a"]
    assert both["a"].channels == small["a"].channels
    assert [None if each is None else len(each) for each in both["b"].cuts] == [4, 2]
    chained = nnc.chain(nnc.prune_channels(keep=0.5, where="a"), nnc.prune_channels(keep=0.5, where="b"))
    again = nnc.compress(weights, chained, apply=apply, batches=[X])
    assert all((x == y).all() for x, y in zip(jax.tree.leaves(again), jax.tree.leaves(both), strict=True))


def test_numbers_of_channels_are_round(weights):
    with pytest.warns(LeftAlone, match=r"keep=0\.4: the nearest that can be reached is 0\.3750"):
        assert len(channel_pruned(cut(weights, keep=0.4, round_to=3))) == 3
    with pytest.warns(LeftAlone, match=r"macs=0\.55: the nearest that can be reached is 0\.5000"):
        assert len(channel_pruned(cut(weights, macs=0.55, round_to=4))) == 4
    assert len(channel_pruned(cut(weights, keep=0.25, at_least=2))) == 2


REFUSED = {
    "no budget": ({}, "one of macs=, parameters= and keep="),
    "two": ({"macs": 0.5, "keep": 0.5}, "one of macs=, parameters= and keep="),
    "nothing": ({"macs": 0.0}, "macs=0.0: expected more than 0 and at most 1"),
    "too little": ({"macs": 0.01}, "macs=0.01: 0.1250 is the least that can be reached with at_least=1"),
    "fewer than allowed": ({"keep": 0.2, "at_least": 2}, "keep=0.2: 0.2500 is the least"),
    "no channel": ({"keep": 0.5, "at_least": 0}, "at_least=0: expected 1 or more"),
    "no such group": ({"keep": 0.5, "where": "*c*/kernel"}, "where='*c*/kernel' matches none of 1 leaves (a/kernel)"),
    "nothing to cut": ({"keep": 0.5, "apply": lambda w, x: w["a"]["kernel"]}, "no group of channels can be cut"),
    "no network": ({"keep": 0.5, "apply": None}, "needs apply= and batches="),
    "another shape": ({"keep": 0.5, "batches": [draw(2, 7)]}, "cannot be traced with inputs of shape ((2, 7),)"),
    "no batch": (
        {"keep": 0.5, "batches": [jnp.float32(1)]},
        "cannot be traced with inputs of shape ((),)",
    ),
    "not traceable": ({"keep": 0.5, "apply": lambda w, x: float(x.sum())}, "cannot be traced"),
    "no scale": ({"keep": 0.5, "criterion": criteria.batch_norm_scale}, "a/kernel: no normalization scales"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(weights, case):
    options, words = REFUSED[case]
    with pytest.raises(nnc.InputError) as error:
        cut(weights, **options)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_group_cut_to_zero_is_refused(weights):
    coupled = nnc.coupling(two_layers, weights, X)
    with pytest.raises(nnc.InputError, match="a/kernel: none of its 8 channels would stay; keep one at least"):
        coupled.cut(weights, {"a/kernel": np.zeros(8, bool)})
    with pytest.raises(nnc.InputError, match=r"keep has shape \(7,\), expected \(8,\)"):
        coupled.cut(weights, {"a/kernel": np.ones(7, bool)})
    with pytest.raises(nnc.InputError, match="c: no group that can be cut; there are a/kernel"):
        coupled.cut(weights, {"c": np.ones(7, bool)})


def test_compressed_weights_are_cut_before(weights):
    with pytest.raises(nnc.InputError, match="a/kernel.*compressed already; cut channels first"):
        cut(nnc.compress(weights), keep=0.5)


def test_a_shrunken_network_is_the_same_to_the_last_bit():
    blocks = configuration("16 24 M 32/2 M", separable=True)
    network, images = models.create("vgg16ds").copy(blocks=blocks), draw(4, 32, 32, 3)
    variables = jax.tree.map(lambda x: x + 0.1, jax.jit(network.init)(jax.random.key(0), images))
    cut_down = cut(variables, network.apply, [images], keep=0.5)
    small = nnc.shrink(cut_down)
    narrow = models.fitting(network, small)
    assert not any(map(is_compressed, jax.tree.leaves(small, is_leaf=is_compressed)))
    assert [leaf.shape for leaf in jax.tree.leaves(narrow.init(jax.random.key(0), images))] == [
        leaf.shape for leaf in jax.tree.leaves(small)
    ]
    outputs = jax.jit(nnc.inject(network.apply, fast=True))(cut_down, images)
    np.testing.assert_array_equal(jax.jit(nnc.inject(narrow.apply, fast=True))(small, images), outputs)

    integer = nnc.compress(cut_down)
    report = nnc.int8_report(network.apply, integer, images)
    assert report.rows
    assert {row.types.split()[0] for row in report.rows} == {"int8"}
    outputs = jax.jit(nnc.inject(network.apply))(integer, images)
    shrunken = jax.jit(nnc.inject(narrow.apply))(nnc.shrink(integer), images)
    np.testing.assert_allclose(shrunken, outputs, rtol=1e-6)  # scales of inputs, summed in another order


def test_channels_divided_by_their_norms(weights):
    """The cut network takes zero by zero for zero; the dense one cannot, and that is said where it is known."""

    def apply(weights, x, least=0.0):
        norms = jnp.linalg.norm(weights["a"]["kernel"], axis=0) + least
        return jax.nn.relu(x @ (weights["a"]["kernel"] / norms)) @ weights["b"]["kernel"]

    with pytest.warns(RuntimeWarning, match=r"^div: channels that are cut are zero divided by zero there"):
        small = cut(weights, apply, keep=0.5)
    there = np.array(channel_pruned(small))
    narrow = {"a": {"kernel": weights["a"]["kernel"][:, there]}, "b": {"kernel": weights["b"]["kernel"][there]}}
    np.testing.assert_allclose(nnc.inject(apply)(small, X), apply(narrow, X), rtol=1e-5)
    assert jnp.isnan(apply(nnc.decompress(small), X)).all()
    np.testing.assert_allclose(apply(nnc.shrink(small), X), apply(narrow, X), rtol=1e-6)
    bounded = functools.partial(apply, least=1e-6)
    small = cut(weights, bounded, keep=0.5)  # without a warning
    np.testing.assert_allclose(bounded(nnc.decompress(small), X), apply(narrow, X), rtol=1e-4)


def test_what_cannot_shrink():
    filled = {"a": ChannelPruned(draw(2), jnp.float32(1.0), (Channels.of(4, [0, 1]),))}
    with pytest.raises(nnc.InputError, match="a: missing channels are not zero"):
        nnc.shrink(filled)
    with pytest.raises(nnc.InputError, match="BatchNorm_0: in one of the network and the variables"):
        models.fitting(models.create("vgg16"), {"params": {}})
