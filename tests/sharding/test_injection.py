"""Unedited networks on compressed weights, on several devices."""

import jax
import jax.numpy as jnp
import numpy as np

import nncompress_jax as nnc
from tests.tracing.test_injection import IMAGES, Block, initialized


def test_several_devices():
    """A batch that is spread over four devices, wfours on each."""
    mesh = jax.make_mesh((4,), ("data",), (jax.sharding.AxisType.Auto,))
    share, whole = (jax.sharding.NamedSharding(mesh, jax.P(*axes)) for axes in (("data",), ()))
    images = jnp.concatenate([IMAGES, -IMAGES])
    small = nnc.compress(initialized(Block()))
    apply = jax.jit(nnc.inject(Block().apply))
    spread = apply(jax.device_put(small, whole), jax.device_put(images, share))
    assert len(spread.sharding.device_set) == 4
    np.testing.assert_allclose(spread, apply(small, images), rtol=1e-5, atol=1e-5)
