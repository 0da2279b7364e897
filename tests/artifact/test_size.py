"""What weights take in a file, each by itself, is about what the file has of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.tree import named_leaves
from nncompress_jax.weights.base import is_compressed
from tests.weights.cases import WEIGHTS, draw

ONCE = 400
"""Bytes that a file has besides its weights at most: both ends, and each word of the header where it comes first."""


def sizes(folder, variables, **named):
    """Bytes of the file, and the sum of what its leaves take."""
    nnc.save(folder / "a.nnc", variables, **named)
    leaves = [leaf for _, leaf in named_leaves(variables, is_compressed)]
    return (folder / "a.nnc").stat().st_size, sum(nnc.stored_size(leaf, **named) for leaf in leaves)


@pytest.mark.parametrize("name", WEIGHTS)
def test_every_type(name, tmp_path):
    make = WEIGHTS[name].make
    variables = {"a": {"kernel": make(draw((3, 3, 8, 16), 0))}, "b": make(draw((20, 12), 1))}
    file, total = sizes(tmp_path, variables)
    assert total <= file <= total + ONCE


@pytest.mark.parametrize(("model", "floats"), [("vgg16ds", None), ("narrow", "bfloat16")])
def test_a_whole_network(model, floats, tmp_path):
    network, random = nnc.models.create(model), np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.ones((1, 32, 32, 3)))
    variables = jax.tree.map(lambda leaf: jnp.asarray(random.laplace(size=leaf.shape), jnp.float32), shapes)
    file, total = sizes(tmp_path, nnc.compress(variables, nnc.quantize(step=2.0)), floats=floats)
    assert abs(file - total) <= 0.01 * file + 200


def test_random_bits_take_a_bit_each():
    """Random bits cannot take less than they are, nor does coding add much."""
    bits = np.random.default_rng(0).integers(0, 2, (1000, 64)).astype(np.int8)
    assert 8000 <= nnc.stored_size(bits) <= 8100
    assert nnc.stored_size(np.zeros((1000, 64), np.int8)) < 60


def test_an_array_that_a_weight_has_twice_is_counted_once():
    factor = draw((40, 40), 0)
    once, twice = nnc.stored_size([factor]), nnc.stored_size([factor, factor])
    assert 0 < twice - once < 20
    assert nnc.stored_size([factor, draw((40, 40), 1)]) > 1.9 * once


def test_numbers_and_keys_have_sizes():
    assert 4 <= nnc.stored_size(1.5) < 60
    assert 8 <= nnc.stored_size(jax.random.key(0)) < 80


def test_what_no_file_can_hold_is_refused():
    with pytest.raises(nnc.InputError, match="weight"):
        nnc.stored_size("text")
    with pytest.raises(nnc.InputError, match="is more than float16 can hold"):
        nnc.stored_size(jnp.array([1e6]), floats="float16")
