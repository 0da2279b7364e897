"""Channels as data, and what `ChannelPruned` says of itself; the law is in test_law.py."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.weights.base import dense
from nncompress_jax.weights.channel_pruned import ChannelPruned
from nncompress_jax.weights.channels import Channels, intersection, union


def test_equal_channels_are_one_object():
    some = Channels.of(9, [1, 4, 8])
    assert some is Channels.at(np.isin(np.arange(9), [1, 4, 8]))
    assert some is not Channels.of(10, [1, 4, 8])
    for again in (copy.deepcopy(some), pickle.loads(pickle.dumps(some)), Channels.from_dict(some.to_dict())):
        assert again is some
    assert some.to_dict() == {"size": 9, "mask": "4880"}
    assert some.places_at(np.array([0, 4, 8])).tolist() == [-1, 1, 2]
    assert repr(some) == "3 of 9"


@pytest.mark.parametrize(
    "described", [{}, {"size": 9}, {"size": -1, "mask": ""}, {"size": 9, "mask": "48"}, [1], "4 of 5"]
)
def test_what_is_no_channels(described):
    with pytest.raises(nnc.InputError, match="expected a size and its mask in hexadecimal"):
        Channels.from_dict(described)


def test_sets_of_channels():
    one, other = Channels.of(4, [0, 1]), Channels.of(4, [1, 2])
    assert union([one, other]) is Channels.of(4, [0, 1, 2])
    assert intersection([one, other]) is Channels.of(4, [1])
    assert union([one, None]) is None
    assert intersection([one, None]) is one
    assert intersection([None, None]) is None


def test_what_it_is():
    weight = ChannelPruned(jnp.ones((3, 2)), None, (None, Channels.of(5, [1, 3])))
    assert (weight.shape, weight.nbytes, weight.parameters) == ((3, 5), 24, 6)
    assert weight.materialise()[0].tolist() == [0, 1, 0, 1, 0]
    assert [leaf.shape for leaf in jax.tree.leaves(weight)] == [(3, 2)]
    (row,) = nnc.explain(lambda w, x: x @ w["kernel"], nnc.compress({"kernel": weight}), jnp.ones((2, 3))).rows()
    assert (row["type"], row["shape"], row["density"], row["runs"]) == (
        "ChannelPruned of Quantized",
        "3 x 2",
        0.4,
        "compressed",
    )
    assert row["types"] == "int8 x int8 -> int32"


def test_an_operation_without_a_rule_is_named():
    weight = {"k": ChannelPruned(jnp.ones((3, 2)), None, (None, Channels.of(5, [1, 3])))}
    (row,) = nnc.explain(lambda w, x: x @ jax.lax.linalg.qr(w["k"])[0], weight, jnp.ones((2, 3))).rows()
    assert row["runs"] == "materialised: no rule for qr"


def test_what_is_padded_with_zeros_lacks_more_of_them():
    weights = {"kernel": ChannelPruned(jnp.ones((3, 2)), None, (None, Channels.of(8, [0, 3])))}

    def apply(weights, x):
        y = jnp.pad(x @ weights["kernel"], ((0, 0), (0, 0), (1, 1)))
        return jnp.einsum("bnc,bmc->bnm", y, y)

    assert nnc.cost(apply, weights, jnp.ones((1, 5, 3))).macs == 5 * 3 * 2 + 5 * 5 * 2


def test_outputs_lack_only_channels_of_variables():
    """What a program knows to be zero, as rows that it pads, is part of what it returns."""
    weights = {"kernel": ChannelPruned(jnp.ones((3, 2)), None, (None, Channels.of(8, [0, 3])))}

    def apply(weights, x):
        y = x @ weights["kernel"]
        return jnp.concatenate([jnp.zeros((2, 8)), y]), y, jnp.zeros((2, 3)), jnp.pad(y, ((0, 0), (1, 1)))

    padded, y, nothing, wider = nnc.inject(apply)(weights, jnp.ones((4, 3)))
    assert [None if cut is None else len(cut) for cut in padded.cuts] == [None, 2]
    assert y.cuts == padded.cuts
    assert isinstance(nothing, jax.Array)
    assert wider.shape == (4, 10)
    np.testing.assert_array_equal(wider[0], [0, 3, 0, 0, 3, 0, 0, 0, 0, 0])


def test_numbers_that_a_program_spreads():
    """Of an array of one value, one entry is the value; where it is read from and written to is known."""
    weights = {"kernel": ChannelPruned(jnp.ones((3, 2)), None, (None, Channels.of(8, [0, 3]))), "at": jnp.array(2)}

    def apply(weights, x):
        y = (x @ weights["kernel"]) * jnp.arange(1.0, 5)[:, None]
        written = jax.lax.dynamic_update_slice(y, jnp.zeros((1, 8)), (weights["at"], 0))
        return jnp.roll(y, jnp.full((2,), weights["at"])[1], 0), written, y.at[jnp.full((1,), 3)].set(y[:1])

    rows = [np.asarray(each[:, 3] / 3).tolist() for each in map(dense, nnc.inject(apply)(weights, jnp.ones((4, 3))))]
    assert rows == [[3, 4, 1, 2], [1, 2, 0, 4], [1, 2, 3, 1]]
