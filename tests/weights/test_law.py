"""The law of compressed weights, for every type and many operations: a rule gives what the dense array gives.

A type joins by an entry in `cases.WEIGHTS`.
"""

import dataclasses
import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nncompress_jax.tracing.injection import inject
from nncompress_jax.tree import stored_bytes
from nncompress_jax.weights import parts
from nncompress_jax.weights.base import dense, is_compressed
from nncompress_jax.weights.binary import FakeBinary
from nncompress_jax.weights.channel_pruned import ChannelPruned
from nncompress_jax.weights.clustered import Clustered
from nncompress_jax.weights.fake_quantized import FakeQuantized
from nncompress_jax.weights.hashed import Hashed
from nncompress_jax.weights.low_rank import LowRank
from nncompress_jax.weights.quantized import Quantized
from nncompress_jax.weights.sparse import Sparse, SparseGroups
from nncompress_jax.weights.ternary import FakeTernary
from tests.quick import QUICK
from tests.weights.cases import INSIDE, OTHERS, PRODUCTS, WEIGHTS, draw


def magnitudes(weight):
    """An upper bound of the dense array's, such that errors inside a chain stay below it, too."""
    if isinstance(weight, ChannelPruned):
        return dense(dataclasses.replace(weight, values=magnitudes(weight.values)))
    if isinstance(weight, LowRank):
        return dense(LowRank(tuple(jnp.abs(dense(factor)) for factor in weight.factors)))
    return jnp.abs(dense(weight))


def spread(weight):
    """How much further a scale that moves into the inputs stretches their error."""
    weight = weight.values if isinstance(weight, ChannelPruned) else weight
    if isinstance(weight, LowRank):
        return math.prod(spread(factor) for factor in weight.factors)
    weight = weight.lowered() if is_compressed(weight) else weight
    return weight.scale.max() / weight.scale.min() if isinstance(weight, Quantized) else 1.0


NO_RULES = (Clustered, Hashed, Sparse, SparseGroups, FakeQuantized, FakeBinary, FakeTernary)
"""Types whose products are those of the dense array, or of another type that is tried with all products; so are
those of types inside one another."""

FEW = (
    *("convolution", "strided", "depthwise", "tiny image", "transposed"),
    *("dense", "tied embedding", "heads", "under vmap"),
)


def check(name, got, expected, bound):
    got = dense(got)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype), name
    difference = np.abs(np.asarray(got, np.float64) - np.asarray(expected, np.float64))
    assert (difference <= bound).all(), (name, difference.max())


@pytest.mark.parametrize("compression", WEIGHTS)
def test_products(compression):
    made = WEIGHTS[compression]
    few = isinstance(made.make(draw(PRODUCTS["dense"][0], 0)), NO_RULES) or " of " in compression
    tried = {name: PRODUCTS[name] for name in (FEW if few else PRODUCTS)}
    weights = {name: made.make(draw(shape, 0)) for name, (shape, _, _) in tried.items()}
    inputs = {name: draw(shape, 1) for name, (_, shape, _) in tried.items()}
    functions = {name: function for name, (_, _, function) in tried.items() if is_compressed(weights[name])}
    assert len(functions) > 5
    if "LowRank" in compression and "integers" in functions:
        del functions["integers"]  # what follows the first factor is no integer, and has no bound by the inputs here

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(weights, inputs):
        results, plain, worst = {}, {}, {}
        for name, function in functions.items():
            weight, x = weights[name], inputs[name]
            results[name], plain[name] = inject(function)(weight, x), dense(weight)
            error = made.input_error(jnp.abs(x).max()) * spread(weight)
            worst[name] = magnitudes(weight), jnp.full(x.shape, error, jnp.float32)
        return results, plain, worst

    results, plain, worst = run(weights, inputs)
    for name in functions:
        bound = 0.0 if name == "integers" else of_arrays(name)(*worst[name])  # integers are not quantized
        check(name, results[name], of_arrays(name)(plain[name], inputs[name]), bound + 2e-5)


@functools.cache
def of_arrays(name):
    """A product of plain arrays, compiled once for all types."""
    return jax.jit(PRODUCTS[name][2], compiler_options=QUICK)


@pytest.mark.parametrize("compression", WEIGHTS)
def test_other_operations(compression):
    weight = WEIGHTS[compression].make(draw((4, 6), 2))

    def run(weight):
        results = {name: inject(function)(weight) for name, function in OTHERS.items()}
        return jax.tree.map(dense, results, is_leaf=is_compressed)

    plain = jax.jit(dense, compiler_options=QUICK)(weight)
    expected = {name: function(plain) for name, function in OTHERS.items()}
    quick = jax.jit(run, compiler_options=QUICK)(weight)
    for results in (quick, run(weight)) if compression == "Quantized" else (quick,):
        for name in OTHERS:
            for got, wanted in zip(jax.tree.leaves(results[name]), jax.tree.leaves(expected[name]), strict=True):
                check(name, got, wanted, 2e-6 + 2e-6 * np.abs(wanted))


NO_SMALLER = ("Fake", "Sparse")
"""Types that hold float values, and positions: no smaller than what they stand for when they train or half is zero."""


@pytest.mark.parametrize("compression", WEIGHTS)
def test_stored_parts(compression):
    kernel = draw((3, 3, 32, 16), 3)
    weight = WEIGHTS[compression].make(kernel)
    assert (weight.shape, weight.dtype, weight.ndim, weight.size) == (kernel.shape, kernel.dtype, 4, kernel.size)
    assert weight.nbytes == stored_bytes(weight)
    if not any(kind in compression for kind in NO_SMALLER):
        assert weight.nbytes < 0.6 * kernel.nbytes
    again = jax.tree.unflatten(jax.tree.structure(weight), jax.tree.leaves(weight))
    materialised = jax.jit(dense, compiler_options=QUICK)
    np.testing.assert_array_equal(materialised(again), materialised(weight))
    assert materialised(weight).shape == kernel.shape


@jax.custom_jvp
def with_own_derivative(w, x):
    return x @ w


@with_own_derivative.defjvp
def _(primals, tangents):
    (w, x), (dw, dx) = primals, tangents
    return x @ w, x @ dw + dx @ w


NETWORKS = {
    "bfloat16": lambda w, x: (x.astype(jnp.bfloat16) @ w["a"].astype(jnp.bfloat16)).astype(jnp.float32),
    "remat": lambda w, x: jax.checkpoint(lambda w, x: 5 * jnp.tanh(x @ w["a"] / 10) @ w["a"])(w, x),
    "scan": lambda w, x: jax.lax.scan(lambda x, _: (x @ w["a"] / 3, None), x, None, length=2)[0],
    "scan over weights": lambda w, x: jax.lax.scan(lambda x, w: (x @ w / 3, None), x, w["stacked"])[0],
    "vmap over inputs": lambda w, x: jax.vmap(lambda row: row @ w["a"])(x),
    "custom derivative": lambda w, x: with_own_derivative(w["a"], x),
}

VARIANTS = (
    *("Quantized, one scale", "Quantized, scale by both", "Quantized, 4 bits", "Quantized, 3 bits"),
    "Binary, 8-bit inputs",
    *("FakeBinary, unscaled", "Clustered by channel", "LowRank, spatial", "LowRank, canonical polyadic"),
    *(f"ChannelPruned of {name}" for name in INSIDE if name not in ("FakeQuantized", "LowRank")),
)
"""Whose gradients pass the same rules as another's."""


def materialised(function):
    return lambda weights, x: function(jax.tree.map(dense, weights, is_leaf=is_compressed), x)


DERIVED = [name for name in WEIGHTS if name not in VARIANTS]


@pytest.mark.parametrize("compression", DERIVED)
def test_programs_inside_and_gradients(compression):
    """On one device; on several: `tests/sharding/test_law.py`."""
    assert jax.device_count() == 1
    check_programs_inside_and_gradients(compression, lambda floats, inputs: (floats, inputs))


def check_programs_inside_and_gradients(compression, placed):
    """Each network's outputs and gradients, of every float part, where `placed` puts them."""
    made = WEIGHTS[compression]
    weights, inputs = {"a": made.make(draw((8, 8), 4)), "stacked": made.make(draw((3, 8, 8), 5))}, draw((8, 8), 6)
    floats, rest = eqx.partition(weights, eqx.is_inexact_array)
    assert jax.tree.structure(parts.combine(*parts.partition(weights))) == jax.tree.structure(weights)

    def losses(floats, x, run):
        outputs = {name: dense(run(function)(eqx.combine(floats, rest), x)) for name, function in NETWORKS.items()}
        return {name: jnp.sum(y * jnp.cos(jnp.arange(8.0))) for name, y in outputs.items()}, outputs

    def derivatives(run):
        taken = jax.jacrev(functools.partial(losses, run=run), (0, 1), has_aux=True)
        return jax.jit(taken, compiler_options=QUICK)

    wanted, expected = derivatives(materialised)(floats, inputs)
    gradients, outputs = derivatives(inject)(*placed(floats, inputs))
    assert jax.tree.structure(gradients) == jax.tree.structure(wanted)
    for name in NETWORKS:
        tolerance = tolerance_of(made, weights["a"], name)
        got, exact = ((y[name], *jax.tree.leaves(g[name])) for y, g in ((outputs, gradients), (expected, wanted)))
        for ours, theirs in zip(got, exact, strict=True):
            size = float(np.abs(theirs).max())
            np.testing.assert_allclose(ours, theirs, atol=tolerance * size + 1e-6, err_msg=name)


def tolerance_of(made, weight, name):
    """Of the largest entry: float sums in another order; bfloat16, and inputs in 8 bits, rounded at each factor."""
    weight = weight.values if isinstance(weight, ChannelPruned) else weight
    factors = len(weight.factors) if isinstance(weight, LowRank) else 1
    if made.input_error(1.0):
        return 0.05 * factors
    return 0.015 * factors if name == "bfloat16" else 1e-5
