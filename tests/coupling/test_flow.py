"""What operations between two layers do to channels: cut through them, or freeze them, and why."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from tests.coupling.programs import BETWEEN, draw
from tests.coupling.test_groups import half, without_by_hand


def around(function):
    """A function between two layers of 8 channels."""
    return lambda weights, x: function(x @ weights["a"], weights) @ weights["b"]


@pytest.mark.parametrize("case", BETWEEN)
def test_between_two_layers(case):
    function, more, sizes, words = BETWEEN[case]
    apply, x = around(function), draw(5, 3)
    weights = {"a": draw(3, 8), "b": draw(8, 4), **more}
    found = nnc.coupling(apply, weights, x)
    if sizes:
        assert sorted(group.size for group in found.groups)[::-1] == sizes
        keep = half(found, seed=1)
        cut = found.cut(weights, keep)
        outputs = jax.jit(nnc.inject(apply))(cut, x)
        expected = apply(without_by_hand(weights, found, keep), x)
        np.testing.assert_allclose(outputs, expected, atol=1e-5 * float(jnp.abs(expected).max()))
        assert found.macs({}) == nnc.cost(apply, weights, x).macs
        assert found.macs(keep) == nnc.cost(apply, cut, x).macs < nnc.cost(apply, weights, x).macs
    else:
        assert not found.groups
        assert {group.frozen for group in found.frozen if group.name == "a"} == {words}
