"""The law of compressed weights, for every type and many operations: a rule gives what the dense array gives.

A type joins by an entry in `WEIGHTS`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nncompress_jax.injection import inject
from nncompress_jax.methods.quantize import quantize
from nncompress_jax.tree import stored_bytes
from nncompress_jax.types import Context
from nncompress_jax.weights.base import CompressedWeight, dense, is_compressed


@dataclasses.dataclass(frozen=True)
class Compression:
    """How a type is made, and how far a product of it may be from that of the dense array.

    Attributes:
      make: from a float array.
      input_error: of each entry of the inputs of a product, given their largest magnitude.
    """

    make: Callable[[Any], CompressedWeight]
    input_error: Callable[[Any], Any] = lambda largest: 0.0


def quantized(**options):
    return lambda kernel: quantize(where="kernel", **options)({"kernel": kernel}, Context())["kernel"]


def with_static_step(kernel):
    return dataclasses.replace(quantized()(kernel), input_step=jnp.float32(5 / 127.5))


WEIGHTS = {
    "Quantized": Compression(quantized(), lambda largest: largest / 255),
    "Quantized, one scale": Compression(quantized(axes=()), lambda largest: largest / 255),
    "Quantized, scale by input channel": Compression(quantized(axes=(-2,)), lambda largest: largest / 255),
    "Quantized, scale by both": Compression(quantized(axes=(-1, -2)), lambda largest: largest / 255),
    "Quantized, static range": Compression(with_static_step, lambda largest: 5 / 255),
    "Quantized, weight only": Compression(quantized(inputs=False)),
}


def convolution(**options):
    def run(w, x):
        return lax.conv_general_dilated(
            x,
            w,
            **({"window_strides": (1, 1), "padding": "SAME"} | options),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    return run


# (kernel's shape, inputs' shape, function), linear in the inputs.
PRODUCTS = {
    "convolution": ((3, 3, 4, 6), (2, 8, 8, 4), convolution()),
    "strided": ((3, 3, 4, 6), (2, 8, 8, 4), convolution(window_strides=(2, 2))),
    "dilated": ((3, 3, 4, 6), (2, 8, 8, 4), convolution(rhs_dilation=(2, 2))),
    "grouped": ((3, 3, 2, 6), (2, 8, 8, 4), convolution(feature_group_count=2)),
    "depthwise": ((3, 3, 1, 4), (2, 8, 8, 4), convolution(feature_group_count=4)),
    "tiny image": ((3, 3, 4, 6), (2, 2, 2, 4), convolution()),
    "pointwise": ((1, 1, 4, 6), (2, 8, 8, 4), convolution()),
    "batch groups": ((3, 3, 4, 6), (2, 8, 8, 4), convolution(batch_group_count=2)),
    "transposed": ((3, 3, 4, 6), (2, 8, 8, 4), lambda w, x: lax.conv_transpose(x, w, (2, 2), "SAME")),
    "transposed, flipped": (
        (3, 3, 6, 4),
        (2, 8, 8, 4),
        lambda w, x: lax.conv_transpose(x, w, (2, 2), "SAME", transpose_kernel=True),
    ),
    "one axis": (
        (3, 4, 6),
        (2, 8, 4),
        lambda w, x: lax.conv_general_dilated(x, w, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")),
    ),
    "channels first": (
        (3, 3, 4, 6),
        (2, 4, 8, 8),
        lambda w, x: lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NCHW", "HWIO", "NCHW")),
    ),
    "dense": ((4, 6), (2, 4), lambda w, x: x @ w),
    "dense, kernel first": ((4, 6), (4, 2), lambda w, x: w.T @ x),
    "tied embedding": ((6, 4), (2, 5, 4), lambda w, x: x @ w.T),
    "heads": ((4, 3, 6), (2, 5, 4), lambda w, x: jnp.einsum("bti,ihd->bthd", x, w)),
    "back from heads": ((3, 6, 4), (2, 5, 3, 6), lambda w, x: jnp.einsum("bthd,hdo->bto", x, w)),
    "expert for each": ((3, 4, 6), (3, 5, 4), lambda w, x: jnp.einsum("eti,eio->eto", x, w)),
    "merged axes": ((4, 3, 6), (2, 4), lambda w, x: x @ w.reshape(4, 18)),
    "split axis": ((4, 18), (2, 4), lambda w, x: jnp.einsum("bi,ihd->bhd", x, w.reshape(4, 3, 6))),
    "scaled": ((4, 6), (2, 4), lambda w, x: x @ (2 * w / 3)),
    "one image of a convolution as dense": ((1, 1, 4, 6), (2, 4), lambda w, x: x @ w[0, 0]),
    "under jit": ((4, 6), (2, 4), lambda w, x: jax.jit(lambda a, b: b @ a)(w, x)),
    "under vmap": ((3, 4, 6), (3, 5, 4), lambda w, x: jax.vmap(lambda w, x: x @ w)(w, x)),
    "integers": ((4, 6), (2, 4), lambda w, x: jnp.round(x).astype(jnp.int32) @ w),
}

OTHERS = {
    "plus one": lambda w: w + 1,
    "sigmoid": jax.nn.sigmoid,
    "exp, summed": lambda w: jnp.exp(w).sum(-1),
    "where": lambda w: jnp.where(w > 0.1, w, 5.0),
    "square": lambda w: w**2,
    "negative": lambda w: -w,
    "product with itself": lambda w: w.T @ w,
    "times an array": lambda w: w * jnp.arange(w.shape[-1]),
    "halved": lambda w: w / 2,
    "norm": lambda w: jnp.linalg.norm(w, axis=0),
    "sorted": lambda w: jnp.sort(w, axis=0),
    "cumulative": lambda w: jnp.cumsum(w, axis=1),
    "largest": lambda w: (w.max(), w.argmax(0)),
    "transposed": lambda w: w.T,
    "flipped": lambda w: jnp.flip(w),
    "reshaped": lambda w: w.reshape(2, -1, 3),
    "flat": lambda w: w.ravel(),
    "broadcast": lambda w: jnp.broadcast_to(w[:, None], (4, 5, 6)),
    "row": lambda w: w[1],
    "rows": lambda w: jnp.take(w, jnp.array([2, 0, 2]), axis=0),
    "sliced": lambda w: w[1:3, ::2],
    "joined": lambda w: jnp.concatenate([w, w], axis=1),
    "cast to integers": lambda w: (8 * w).astype(jnp.int32),
    "as it is": lambda w: w,
    "shape and type": lambda w: jnp.zeros(w.shape, w.dtype),
}


def draw(shape, seed):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def check(name, got, expected, bound):
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype), name
    difference = np.abs(np.asarray(got, np.float64) - np.asarray(expected, np.float64))
    assert (difference <= bound).all(), (name, difference.max())


@pytest.mark.parametrize("compression", WEIGHTS)
def test_products(compression):
    compression = WEIGHTS[compression]
    weights = {name: compression.make(draw(shape, 0)) for name, (shape, _, _) in PRODUCTS.items()}
    inputs = {name: draw(shape, 1) for name, (_, shape, _) in PRODUCTS.items()}
    functions = {name: function for name, (_, _, function) in PRODUCTS.items()}

    @jax.jit
    def run(weights, inputs):
        results = {name: inject(function)(weights[name], inputs[name]) for name, function in functions.items()}
        expected = {name: function(dense(weights[name]), inputs[name]) for name, function in functions.items()}
        return results, expected

    @jax.jit
    def worst(weights, inputs):
        errors = {}
        for name, function in functions.items():
            weight, x = weights[name], inputs[name]
            # A scale that moves into the inputs stretches their error with it.
            spread = weight.scale.max() / weight.scale.min()
            error = compression.input_error(jnp.abs(x).max()) * spread
            errors[name] = function(jnp.abs(dense(weight)), jnp.full(x.shape, error))
        return errors

    results, expected = run(weights, inputs)
    bounds = worst(weights, inputs) | {"integers": 0.0}  # inputs that are integers are not quantized
    for name in functions:
        check(name, results[name], expected[name], bounds[name] + 1e-5)


@pytest.mark.parametrize("compression", WEIGHTS)
def test_other_operations(compression):
    weight = WEIGHTS[compression].make(draw((4, 6), 2))

    def run(weight):
        results = {name: inject(function)(weight) for name, function in OTHERS.items()}
        return jax.tree.map(dense, results, is_leaf=is_compressed)

    expected = {name: function(dense(weight)) for name, function in OTHERS.items()}
    for results in (jax.jit(run)(weight), run(weight)) if compression == "Quantized" else (jax.jit(run)(weight),):
        for name in OTHERS:
            for got, wanted in zip(jax.tree.leaves(results[name]), jax.tree.leaves(expected[name]), strict=True):
                check(name, got, wanted, 1e-6 + 2e-6 * np.abs(wanted))


@pytest.mark.parametrize("compression", WEIGHTS)
def test_stored_parts(compression):
    kernel = draw((3, 3, 32, 16), 3)
    weight = WEIGHTS[compression].make(kernel)
    assert (weight.shape, weight.dtype, weight.ndim, weight.size) == (kernel.shape, kernel.dtype, 4, kernel.size)
    assert weight.nbytes == stored_bytes(weight) < 0.4 * kernel.nbytes
    check("materialised", dense(weight), kernel, 1.001 * np.asarray(weight.scale) / 2)
    again = jax.tree.unflatten(jax.tree.structure(weight), jax.tree.leaves(weight))
    np.testing.assert_array_equal(dense(again), dense(weight))


@pytest.mark.parametrize("compression", WEIGHTS)
def test_gradients_are_those_of_the_dense_weight(compression):
    """Pulled back through what it is made of; the loss is linear, so that only the inputs' own error remains."""
    weight, inputs = WEIGHTS[compression].make(draw((4, 6), 4)), draw((2, 4), 5)

    def loss(weight, inputs):
        return jnp.sum((inputs @ weight) * jnp.arange(6.0))

    floats, rest = eqx.partition(weight, eqx.is_inexact_array)
    straight = jax.jit(jax.grad(lambda floats, x: inject(loss)(eqx.combine(floats, rest), x), (0, 1)))(floats, inputs)
    exact = jax.grad(lambda floats, x: loss(dense(eqx.combine(floats, rest)), x), (0, 1))(floats, inputs)
    assert jax.tree.structure(straight) == jax.tree.structure(exact)
    size = float(jnp.abs(exact[0].scale).max())
    for got, wanted in zip(jax.tree.leaves(straight), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(got, wanted, atol=0.02 * size)
