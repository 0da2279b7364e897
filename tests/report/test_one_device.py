"""Every type of weight, on the one device that users have: rows and counts are those of the dense network."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import nncompress_jax as nnc
from nncompress_jax.weights.base import is_compressed
from tests.weights.cases import PRODUCTS, WEIGHTS, Compression, by, draw

ALL = WEIGHTS | {"Binary, signs of the inputs": Compression(by(nnc.binarize(inputs="sign")))}
X = draw((2, 8), 6)


def product(w, x):
    return x @ w


WAYS = {
    "dot": product,
    "bfloat16": lambda w, x: x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16),
    "jit": jax.jit(product),
    "remat": jax.checkpoint(product),
    "behind a barrier": lambda w, x: product(*lax.optimization_barrier((w, x))),
    "without gradient": lambda w, x: product(lax.stop_gradient(w), x),
    "mapped": lambda w, x: jax.vmap(lambda row: row @ w)(x),
    "in a branch": lambda w, x: lax.cond(x.sum() > 0, lambda x: x @ w, lambda x: x, x),
    "in a loop": lambda w, x: lax.while_loop(lambda x: x.sum() < 0, lambda x: x @ w, x),
    "standardised": lambda w, x: x @ ((w - w.mean(0)) / (1 + w.std(0))),
    "joined with another": lambda w, x: x @ jnp.where(jnp.eye(8) > 0, w, 1.0),
}
"""The weight meets 8 x 8 entries of data for each example."""


def extra(weight):
    """Multiply-accumulates of an example that the dense network has not: magnitudes under the kernel of signs."""
    return 8 if getattr(weight, "inputs", None) == "sign" else 0


@pytest.mark.parametrize("name", ALL)
def test_rows_and_counts(name):
    assert jax.device_count() == 1
    weights = {"first": {"kernel": ALL[name].make(draw((8, 8), 4))}, "second": {"kernel": jnp.ones((8, 4))}}
    weight = weights["first"]["kernel"]
    assert is_compressed(weight)
    for way, function in WAYS.items():

        def apply(weights, x, function=function):
            return function(weights["first"]["kernel"], x).astype(jnp.float32) @ weights["second"]["kernel"]

        report = nnc.int8_report(apply, weights, X)
        macs = {layer.path: layer.macs for layer in nnc.cost(apply, weights, X).layers}
        assert {row.path for row in report.rows} == {"first/kernel", "second/kernel"}, way
        explained = nnc.explain(apply, weights, X)
        assert explained.places == report.rows
        first, second = explained.weights
        assert (first.path, first.type, second.type) == ("first/kernel", weight.nesting, "dense")
        assert first.runs == "compressed" or first.materialised, way
        assert macs.keys() == {"first", "second"}, way
        if "LowRank" not in name and "ChannelPruned" not in name:  # those compute other products
            assert macs["second"] == 8 * 4, way
            gone = way in ("standardised", "joined with another")  # dense before it meets the inputs
            assert macs["first"] == 8 * 8 + (0 if gone else extra(weight)), way


@pytest.mark.parametrize("name", ALL)
def test_convolutions(name):
    """Padded, in blocks, grouped, channels first: each product is in a row of its weight."""
    for way in ("convolution", "strided", "grouped", "depthwise", "tiny image", "transposed", "channels first"):
        shape, inputs, function = PRODUCTS[way]
        weights = {"conv": {"kernel": ALL[name].make(draw(shape, 0))}}
        if not is_compressed(weights["conv"]["kernel"]):
            continue
        x = draw((64, *inputs[1:]), 1)
        apply = lambda weights, x, function=function: function(weights["conv"]["kernel"], x)  # noqa: E731
        layers = nnc.cost(apply, weights, x).layers
        assert [layer.path for layer in layers] == ["conv"], way
        assert {row.path for row in nnc.int8_report(apply, weights, x).rows} == {"conv/kernel"}, way
        if not any(kind in name for kind in ("LowRank", "ChannelPruned", "signs")):
            assert layers[0].macs == nnc.cost(apply, nnc.decompress(weights), x).macs > 0, way
