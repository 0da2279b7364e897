"""Packing: what goes in comes out, in as few bytes as it takes."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncompress_jax.ops.packing import pack, unpack


def stream(codes, bits):
    """The bytes of one row, bit by bit."""
    ones = [code >> place & 1 for code in codes.tolist() for place in range(bits)]
    ones += [0] * (-len(ones) % 8)
    return [sum(one << place for place, one in enumerate(ones[start : start + 8])) for start in range(0, len(ones), 8)]


@pytest.mark.parametrize("bits", range(1, 9))
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_there_and_back(bits, data):
    shape = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 19)))
    codes = np.random.default_rng(data.draw(st.integers(0, 9))).integers(0, 2**bits, shape, np.uint8)
    packed = pack(codes, bits)
    assert packed.tolist() == [stream(row, bits) for row in codes]
    np.testing.assert_array_equal(unpack(packed, bits, shape[1]), codes)


@pytest.mark.parametrize("bits", range(1, 9))
def test_of_jax_as_of_numpy(bits):
    codes = np.random.default_rng(0).integers(0, 2**bits, (2, 27), np.uint8)
    packed = jax.jit(pack, static_argnums=1)(codes, bits)
    assert (packed.dtype, packed.tolist()) == (np.uint8, pack(codes, bits).tolist())
    np.testing.assert_array_equal(jax.jit(unpack, static_argnums=(1, 2))(packed, bits, 27), codes)


def test_many_axes():
    codes = np.random.default_rng(0).integers(0, 8, (2, 3, 5, 11), np.uint8)
    packed = jax.jit(pack, static_argnums=1)(codes, 3)
    assert packed.shape == (2, 3, 5, 5)  # 33 bits a row
    np.testing.assert_array_equal(jax.jit(unpack, static_argnums=(1, 2))(packed, 3, 11), codes)
    for row, byte_row in zip(codes.reshape(-1, 11), np.asarray(packed).reshape(-1, 5), strict=True):
        assert byte_row.tolist() == stream(row, 3)
