"""Networks are called with anything: the same counts, channels and ranges as with one array of images."""

import functools
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc

WEIGHTS = {"a": {"kernel": jnp.arange(32.0).reshape(4, 8) - 7}, "b": {"kernel": jnp.ones((8, 3))}}
X = jnp.arange(8.0).reshape(2, 4)
MACS = 4 * 8 + 8 * 3


def network(weights, x):
    return jax.nn.relu(x @ weights["a"]["kernel"]) @ weights["b"]["kernel"]


class Pair(NamedTuple):
    text: str
    tokens: jax.Array


# apply, its arguments behind the variables, its keyword arguments
CALLS = {
    "an array": (network, (X,), {}),
    "of numpy": (network, (np.asarray(X),), {}),
    "a dict": (lambda w, batch: network(w, batch["tokens"]), ({"name": "text", "tokens": X},), {}),
    "a tuple": (lambda w, pair: network(w, pair[1]), ((None, X),), {}),
    "a list": (lambda w, pair: network(w, pair[0]), ([X, 3],), {}),
    "a named tuple": (lambda w, pair: network(w, pair.tokens), (Pair("text", X),), {}),
    "None first": (lambda w, memory, x: network(w, x), (None, X), {}),
    "a number first": (lambda w, times, x: network(w, times * x), (2, X), {}),
    "a scalar array first": (lambda w, times, x: network(w, times * x), (jnp.float32(2), X), {}),
    "a word first": (lambda w, mode, x: network(w, {"relu": x}[mode]), ("relu", X), {}),
    "a key first": (lambda w, key, x: network(w, x + jax.random.normal(key, ())), (jax.random.key(0), X), {}),
    "keys first": (lambda w, keys, x: network(w, x), (jax.random.split(jax.random.key(0), 3), X), {}),
    "an old key first": (lambda w, key, x: network(w, x), (jax.random.PRNGKey(0), X[:1]), {}),
    "keywords": (lambda w, *, x, train: network(w, x if not train else None), (), {"train": False, "x": X}),
    "a keyword behind": (lambda w, x, train: network(w, x) if not train else x, (X,), {"train": False}),
}


@pytest.mark.parametrize("call", CALLS)
def test_counts_and_groups(call):
    apply, inputs, keywords = CALLS[call]
    cost = nnc.cost(apply, WEIGHTS, *inputs, **keywords)
    assert [(layer.path, layer.macs) for layer in cost.layers] == [("a", 32), ("b", 24)]
    small = nnc.compress(WEIGHTS)
    explained = nnc.explain(apply, small, *inputs, **keywords)
    assert [(place.path, place.macs) for place in explained.places] == [("a/kernel", 32), ("b/kernel", 24)]
    assert nnc.int8_report(apply, small, *inputs, **keywords).rows == explained.places
    (group,) = (coupled := nnc.coupling(apply, WEIGHTS, *inputs, **keywords)).groups
    assert (group.name, group.size, coupled.macs({})) == ("a/kernel", 8, MACS)


@pytest.mark.parametrize("call", [call for call in CALLS if call != "keywords"])
def test_calibration_and_channels(call):
    """A tuple in `batches` is all arguments, anything else the only one."""
    apply, inputs, keywords = CALLS[call]
    alone = len(inputs) == 1 and type(inputs[0]) is not tuple
    batch, apply = inputs[0] if alone else inputs, functools.partial(apply, **keywords)
    static = nnc.quantize(ranges=nnc.calibration.abs_max)
    found = nnc.compress(WEIGHTS, static, apply=apply, batches=iter([batch]))["a"]["kernel"].input_scale * 127.5
    largest = {"a number first": 14, "a scalar array first": 14, "an old key first": 3}.get(call, 7)
    assert float(found) == pytest.approx(largest) or call == "a key first"
    small = nnc.compress(WEIGHTS, nnc.prune_channels(keep=0.5), apply=apply, batches=[batch])
    assert small["b"]["kernel"].stored_shape == (4, 3)


def test_the_number_of_examples_may_be_said():
    def apply(weights, x):  # [time, batch, features]
        return network(weights, x)

    x = jnp.ones((5, 2, 4))
    assert nnc.cost(apply, WEIGHTS, x, batch_size=2).macs == 5 * MACS
    assert nnc.explain(apply, WEIGHTS, x, batch_size=2).places[0].macs == 5 * 32
    assert nnc.coupling(apply, WEIGHTS, x, batch_size=2).macs({}) == 5 * MACS
    assert nnc.cost(apply, WEIGHTS, X[0], batch_size=1).macs == MACS
    assert nnc.cost(lambda w, key: network(w, jax.random.normal(key, (4,))), WEIGHTS, jax.random.key(0)).macs == MACS
    assert nnc.cost(lambda w, words: network(w, words[:, None] * jnp.ones(4)), WEIGHTS, jnp.uint32([3, 4])).macs == MACS


def test_variables_may_hold_what_is_no_array():
    weights = WEIGHTS | {"activation": jax.nn.relu, "rate": 0.1, "nothing": None, "name": "mlp"}

    def apply(weights, x):
        return weights["rate"] * weights["activation"](network(weights, x))

    assert nnc.cost(apply, weights, X).macs == MACS
    assert [row["path"] for row in nnc.explain(apply, weights, X).rows()] == ["a/kernel", "b/kernel"]
    assert [group.name for group in nnc.coupling(apply, weights, X).groups] == ["a/kernel"]


LABELS = jnp.array([0, 1])
MISTAKES = {
    "labels": ({"batches": [(X, LABELS)]}, r"inputs of shape ((2, 4), (2,)) (a tuple in batches= holds"),
    "rows": ({"batches": X}, r"batches= is one array of shape [2, 4]; expected a list: batches=[array]"),
    "one dict": ({"batches": {"x": X}}, r"batches= is one dict; expected a list of batches: batches=[dict]"),
    "nothing": ({"batches": None}, r"batches= is one NoneType; expected"),
}


@pytest.mark.parametrize("method", [nnc.quantize(ranges=nnc.calibration.abs_max), nnc.prune_channels(keep=0.5)])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_batches_that_are_none(mistake, method):
    options, message = MISTAKES[mistake]
    with pytest.raises(nnc.InputError, match=re.escape(message)) as error:
        nnc.compress(WEIGHTS, method, apply=network, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("inputs", "batch_size", "message"),
    [
        ((X,), 0, "a batch of 0 examples"),
        ((X[:0],), None, "a batch of 0 examples"),
        ((X,), 1.5, "batch_size=1.5: expected a whole number"),
        ((), None, "apply cannot be traced with inputs of shape (): TypeError: network() missing 1 required"),
        (({"x": X},), None, "inputs of shape ({'x': (2, 4)},): TypeError"),
    ],
)
def test_calls_that_are_none(inputs, batch_size, message):
    for function in (nnc.cost, nnc.explain, nnc.int8_report, nnc.coupling):
        with pytest.raises(nnc.InputError, match=re.escape(message)) as error:
            function(network, WEIGHTS, *inputs, batch_size=batch_size)
        assert "\n" not in str(error.value)
