"""Unedited networks on compressed weights, on several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


METHODS = {
    "8 bits": nnc.quantize(),
    "4 bits, groups": nnc.quantize(bits=4, group=4),
    "sparse": nnc.prune(sparsity=0.5),
    "clusters": nnc.cluster(),
    "signs": nnc.binarize(),
    "low rank": nnc.factorize(rank=4),
    "trained": nnc.fake_quantize(),
}


@pytest.mark.parametrize("name", METHODS)
def test_results_lie_where_they_were_asked_for(name):
    """On an explicit mesh: rows that are spread, and a sum over inputs that are."""
    mesh = jax.make_mesh((4,), ("data",), (jax.sharding.AxisType.Explicit,))
    weights = {"kernel": jnp.asarray(np.random.default_rng(0).standard_normal((16, 8)), jnp.float32)}
    rows = jnp.asarray(np.random.default_rng(1).standard_normal((8, 16)), jnp.float32)
    small = nnc.compress(weights, METHODS[name])
    expected = nnc.inject(lambda w, x: x @ w["kernel"])(small, rows)
    with jax.set_mesh(mesh):
        for inputs, outputs in ((jax.P("data", None), jax.P("data", None)), (jax.P(None, "data"), jax.P(None, None))):

            def apply(weights, x, sharding=outputs):
                return jnp.matmul(x, weights["kernel"], out_sharding=sharding)

            def placed(part, by=inputs[1]):
                return jax.device_put(part, jax.P(by if part.ndim == 2 and len(part) == 16 else None))

            spread = jax.jit(nnc.inject(apply))(jax.tree.map(placed, small), jax.device_put(rows, inputs))
            assert spread.sharding.spec == outputs
            np.testing.assert_allclose(spread, expected, rtol=1e-5, atol=1e-5)


def convolved(weights, x):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, weights["kernel"], (1, 1), "SAME", dimension_numbers=numbers)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_images_that_are_spread(name, fast):
    """On an explicit mesh and inside `jax.shard_map`: the values and gradients of one device, on integers as there."""
    kernel = jnp.asarray(np.random.default_rng(0).standard_normal((3, 3, 4, 8)), jnp.float32)
    images = jnp.asarray(np.random.default_rng(1).standard_normal((8, 5, 5, 4)), jnp.float32)
    small, apply = nnc.compress({"kernel": kernel}, METHODS[name]), nnc.inject(convolved, fast=fast)

    def loss(apply):
        return jax.jit(jax.value_and_grad(lambda x: jnp.sum(apply(small, x) ** 2)))

    expected = loss(apply)(images)
    explicit = jax.make_mesh((4,), ("data",), (jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(explicit):
        found = loss(apply)(jax.device_put(images, jax.P("data")))
    mesh = jax.make_mesh((4,), ("data",), (jax.sharding.AxisType.Auto,))
    spread = jax.P("data")
    mapped = jax.shard_map(apply, mesh=mesh, in_specs=(jax.P(), spread), out_specs=spread)
    for got in (found, loss(mapped)(images)):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-3), got, expected)


@pytest.mark.parametrize("method", [None, nnc.fake_quantize()])
def test_gradients_of_kernels_that_all_devices_have(method):
    """Inside `jax.shard_map` each device sees its own images; their gradients are added up."""
    kernel = jnp.asarray(np.random.default_rng(0).standard_normal((3, 3, 4, 8)), jnp.float32)
    images = jnp.asarray(np.random.default_rng(1).standard_normal((8, 5, 5, 4)), jnp.float32)
    weights = {"kernel": kernel} if method is None else nnc.compress({"kernel": kernel}, method)
    mesh = jax.make_mesh((4,), ("data",), (jax.sharding.AxisType.Auto,))
    apply, spread = nnc.inject(convolved, fast=True), jax.P("data")
    mapped = jax.shard_map(apply, mesh=mesh, in_specs=(jax.P(), spread), out_specs=spread)
    found, expected = (
        jax.jit(nnc.value_and_grad(lambda weights, run=run: jnp.sum(run(weights, images) ** 2)))(weights)
        for run in (mapped, apply)
    )
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-3), found, expected)
