"""Packing: what goes in comes out, in as few bytes as it takes."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncompress_jax.ops.packing import pack, unpack


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_there_and_back(bits, data):
    shape = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 19)))
    codes = np.random.default_rng(data.draw(st.integers(0, 9))).integers(0, 2**bits, shape, np.uint8)
    packed = pack(jnp.asarray(codes), bits)
    assert packed.shape == (shape[0], -(-shape[1] * bits // 8))
    np.testing.assert_array_equal(unpack(packed, bits, shape[1]), codes)
