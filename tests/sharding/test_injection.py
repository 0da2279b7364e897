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


def test_results_lie_where_they_were_asked_for():
    """On an explicit mesh: rows that are spread, and a sum over inputs that are."""
    mesh = jax.make_mesh((4,), ("data",), (jax.sharding.AxisType.Explicit,))
    weights = {"kernel": jnp.asarray(np.random.default_rng(0).standard_normal((8, 6)), jnp.float32)}
    rows = jnp.asarray(np.random.default_rng(1).standard_normal((8, 8)), jnp.float32)
    small = nnc.compress(weights)
    expected = nnc.inject(lambda w, x: x @ w["kernel"])(small, rows)
    with jax.set_mesh(mesh):
        for inputs, outputs in ((jax.P("data", None), jax.P("data", None)), (jax.P(None, "data"), jax.P(None, None))):

            def apply(weights, x, sharding=outputs):
                return jnp.matmul(x, weights["kernel"], out_sharding=sharding)

            placed = jax.tree.map(lambda x, by=inputs[1]: jax.device_put(x, jax.P(by if len(x) == 8 else None)), small)
            spread = jax.jit(nnc.inject(apply))(placed, jax.device_put(rows, inputs))
            assert spread.sharding.spec == outputs
            np.testing.assert_allclose(spread, expected, rtol=1e-5, atol=1e-5)
