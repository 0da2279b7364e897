"""What operations between two layers do to channels: cut through them, or freeze them, and why."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from tests.coupling.carried import CARRIED
from tests.coupling.programs import BETWEEN, draw
from tests.coupling.test_groups import half, without_by_hand


def around(function):
    """A function between two layers of 8 channels."""
    return lambda weights, x: function(x @ weights["a"], weights) @ weights["b"]


def check_half(apply, weights, x, found):
    """Half of the channels are gone: the outputs are those of zeros in their places, the cost is the one announced."""
    keep = half(found, seed=1)
    cut = found.cut(weights, keep)
    outputs = jax.jit(nnc.inject(apply))(cut, x)
    expected = apply(without_by_hand(weights, found, keep), x)
    np.testing.assert_allclose(outputs, expected, atol=1e-5 * float(jnp.abs(expected).max()))
    assert found.macs({}) == nnc.cost(apply, weights, x).macs
    assert found.macs(keep) == nnc.cost(apply, cut, x).macs < nnc.cost(apply, weights, x).macs


@pytest.mark.parametrize("case", CARRIED)
def test_channels_that_are_only_carried(case):
    function, more, sizes = CARRIED[case]
    apply, x = around(function), draw(5, 3)
    weights = {"a": draw(3, 8), "b": draw(8, 4), **more}
    found = nnc.coupling(apply, weights, x)
    assert sorted(group.size for group in found.groups)[::-1] == sizes
    check_half(apply, weights, x, found)


@pytest.mark.parametrize("case", BETWEEN)
def test_between_two_layers(case):
    function, more, sizes, words = BETWEEN[case]
    apply, x = around(function), draw(5, 3)
    weights = {"a": draw(3, 8), "b": draw(8, 4), **more}
    found = nnc.coupling(apply, weights, x)
    if sizes:
        assert sorted(group.size for group in found.groups)[::-1] == sizes
        check_half(apply, weights, x, found)
    else:
        assert not found.groups
        assert {group.frozen for group in found.frozen if group.name == "a"} == {words}


def test_an_output_with_the_name_of_a_parameter_stays():
    weights = {"params": {"a": draw(3, 8)}, "batch_stats": {"mean": draw(4)}}
    for apply in (
        lambda w, x: {"params": {"a": x @ w["params"]["a"]}},
        lambda w, x: {"batch_stats": {"mean": x @ w["params"]["a"]}},
    ):
        found = nnc.coupling(apply, weights, draw(3, 3))
        assert not found.groups
        assert {group.frozen.partition(",")[0] for group in found.frozen if group.name == "params/a"} == {
            "an output of the network"
        }


def test_outputs_are_named_and_new_statistics_are_cut():
    """What a network returns is named; what it returns of a variable is cut with the variable."""
    weights = {"params": {"a": draw(3, 8), "b": draw(8, 4), "spare": draw(8, 4)}, "batch_stats": {"mean": draw(8)}}

    def apply(weights, x):
        y = x @ weights["params"]["a"]
        mean = 0.9 * weights["batch_stats"]["mean"] + 0.1 * y.mean(0)
        return {"logits": (y - mean) @ weights["params"]["b"]}, {"batch_stats": {"mean": mean}}

    x = draw(5, 3)
    found = nnc.coupling(apply, weights, x)
    (group,) = found.groups
    assert [member.path for member in group.members] == ["batch_stats/mean", "params/a", "params/b"]
    reasons = {group.name: group.frozen for group in found.frozen}
    assert reasons["params/b"] == "an output of the network, 0/logits"
    assert reasons["params/spare"] == "no product uses them"
    keep = {group.name: np.arange(8) % 2 == 0}
    outputs, changed = nnc.inject(apply)(found.cut(weights, keep), x)
    zeroed = {**weights, "params": {**weights["params"], "a": weights["params"]["a"] * keep[group.name]}}
    zeroed["batch_stats"] = {"mean": weights["batch_stats"]["mean"] * keep[group.name]}
    wanted, new = apply(zeroed, x)
    np.testing.assert_allclose(outputs["logits"], wanted["logits"], atol=1e-5)
    np.testing.assert_allclose(changed["batch_stats"]["mean"].values, new["batch_stats"]["mean"][::2], atol=1e-6)
