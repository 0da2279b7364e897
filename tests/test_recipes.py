"""compress, decompress and chain, as programs call them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc

VARIABLES = {"params": {"a": {"kernel": jax.random.normal(jax.random.key(0), (16, 8))}, "b": {"kernel": jnp.eye(8)}}}


def test_there_and_back():
    small = nnc.compress(VARIABLES)
    dense = nnc.decompress(small)
    assert jax.tree.structure(dense) == jax.tree.structure(VARIABLES)
    np.testing.assert_allclose(dense["params"]["a"]["kernel"], VARIABLES["params"]["a"]["kernel"], atol=0.02)
    assert nnc.decompress(VARIABLES)["params"]["a"]["kernel"] is VARIABLES["params"]["a"]["kernel"]
    again = nnc.compress(dense)
    np.testing.assert_array_equal(again["params"]["a"]["kernel"].codes, small["params"]["a"]["kernel"].codes)


def test_chain():
    method = nnc.chain(nnc.quantize(where="*a/*"), nnc.quantize(where="*b/*", inputs=False))
    small = nnc.compress(VARIABLES, method)
    assert small["params"]["a"]["kernel"].integer
    assert not small["params"]["b"]["kernel"].integer
    assert nnc.compress(VARIABLES, nnc.chain()) is VARIABLES


def test_a_chain_that_takes_a_leaf_twice_is_refused():
    with pytest.raises(nnc.InputError, match=r"params/a/kernel: compressed already"):
        nnc.compress(VARIABLES, nnc.chain(nnc.quantize(where="*a/*"), nnc.quantize()))


def test_cost_counts_what_stands_there():
    def apply(variables, x):
        return x @ variables["params"]["a"]["kernel"] @ variables["params"]["b"]["kernel"]

    x = jnp.ones((2, 16))
    small = nnc.compress(VARIABLES)
    before, after = nnc.cost(apply, VARIABLES, x), nnc.cost(nnc.inject(apply), small, x)
    assert (after.parameters, after.macs) == (before.parameters, before.macs) == (192, 192)
    assert (before.resident_bytes, after.resident_bytes) == (4 * 192, 192 + 4 * (8 + 8))
    assert nnc.cost(apply, small, x) == after  # injected where it was not
