"""Bits by noise to signal: the best of all choices, and what the paper says of sizes."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.weights.packed import Packed


def drawn(sizes, seed=0):
    random = np.random.default_rng(seed)
    return {
        f"layer{number}": {"kernel": jnp.asarray(random.standard_normal(size) ** (1 + number % 3), jnp.float32)}
        for number, size in enumerate(sizes)
    }


def bits_of(weight):
    return weight.codes.bits if isinstance(weight.codes, Packed) else 8


def ratio(before, after):
    before, after = np.asarray(before, np.float64), np.asarray(after.materialise(), np.float64)
    return np.square(after - before).sum() / np.square(before).sum()


@pytest.mark.parametrize("mean", [2, 2.7, 3.5, 5])
def test_no_other_choice_is_better(mean):
    """All 4^4 choices, by hand."""
    variables = drawn([(32, 40), (64, 64), (40, 32), (128, 20)])
    small = nnc.compress(variables, nnc.mixed_bits(bits=mean))
    by_bits = {bits: nnc.compress(variables, nnc.quantize(bits=bits)) for bits in (2, 3, 4, 8)}
    sizes = [layer["kernel"].size for layer in variables.values()]
    found = [bits_of(small[name]["kernel"]) for name in variables]
    assert np.dot(found, sizes) <= mean * sum(sizes)

    def noise(choice):
        pairs = zip(variables, choice, strict=True)
        return sum(ratio(variables[name]["kernel"], by_bits[bits][name]["kernel"]) for name, bits in pairs)

    allowed = [choice for choice in itertools.product(by_bits, repeat=4) if np.dot(choice, sizes) <= mean * sum(sizes)]
    assert noise(found) == pytest.approx(min(map(noise, allowed)), rel=1e-3)
    for name, bits in zip(variables, found, strict=True):
        np.testing.assert_array_equal(small[name]["kernel"].materialise(), by_bits[bits][name]["kernel"].materialise())


def test_large_layers_get_fewer_bits():
    """Lin et al. 2016, equation 12: of weights of one distribution, the bits fall with the logarithm of the size."""
    random = np.random.default_rng(0)
    variables = {
        name: {"kernel": jnp.asarray(random.standard_normal((64, width)), jnp.float32)}
        for name, width in (("small", 32), ("large", 2048))
    }
    small = nnc.compress(variables, nnc.mixed_bits(bits=3.1))
    assert bits_of(small["small"]["kernel"]) > bits_of(small["large"]["kernel"])


def test_factors_have_the_bits_of_their_weight():
    variables = nnc.compress(drawn([(64, 64), (96, 96)]), nnc.factorize(rank=8))
    small = nnc.compress(variables, nnc.mixed_bits(bits=3))
    for layer in small.values():
        assert len({bits_of(factor) for factor in layer["kernel"].factors}) == 1


@pytest.mark.parametrize("bits", [1, 9])
def test_refusals(bits):
    with pytest.raises(nnc.InputError, match=f"bits={bits}: expected from 2 to 8"):
        nnc.mixed_bits(bits=bits)
