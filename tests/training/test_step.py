"""One step: the same on one device and on eight, the caller's arrays intact, the recipes' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nncompress_jax as nnc
from nncompress_jax.data.augment import normalize, random_crop
from nncompress_jax.training import mesh, schedules
from nncompress_jax.training.state import create
from nncompress_jax.training.step import compile_train_steps


def augment(key, images):
    return normalize(random_crop(key, images), (0.5,) * 3, (0.25,) * 3)


def steps(model, devices, *, batch_size, dtype=jnp.float32):
    """Five steps at learning rate 0.01 on noise: variables before and after, and the losses."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (5 * batch_size, 32, 32, 3), np.uint8)
    labels = random.integers(0, 10, 5 * batch_size, np.int32)
    network = nnc.models.create(model, dtype=dtype)
    variables = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    variables = jax.tree.map(lambda leaf: leaf.astype(dtype), variables)
    optimizer = schedules.optimizer(schedules.preset("fast"), optax.constant_schedule(0.01))
    place = mesh.data_mesh(jax.devices()[:devices])
    state = create(variables, optimizer, jax.random.key(1), place)
    run = compile_train_steps(network.apply, optimizer, augment, place)
    losses = []
    for rows in np.arange(5 * batch_size).reshape(5, 1, batch_size):
        state, metrics = run(state, images, labels, rows)
        losses.append(float(metrics.loss[0]))
    assert int(state.step) == 5
    return variables, jax.device_get(state.variables), losses


def distance(a, b):
    """Norm of the difference over the whole parameter tree."""
    return float(optax.tree.norm(jax.tree.map(jnp.subtract, a["params"], b["params"])))


def check_devices_agree(model, tolerance, **options):
    before, one, losses_one = steps(model, 1, **options)
    _, eight, losses_eight = steps(model, 8, **options)
    np.testing.assert_allclose(losses_one, losses_eight, rtol=tolerance)
    np.testing.assert_allclose(distance(one, before), distance(eight, before), rtol=tolerance)
    assert 0 < distance(one, eight) < tolerance * optax.tree.norm(one["params"])
    return before, one


def test_one_and_eight_devices_agree():
    assert jax.device_count() == 8
    before, after = check_devices_agree("narrow", 1e-4, batch_size=64)
    # The caller's variables stay usable, though steps donate their state.
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    assert jax.tree.structure(before) == jax.tree.structure(after)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), before, after)
    assert changed["batch_stats"]["BatchNorm_3"] == {"mean": True, "var": True}
    assert changed["params"]["Conv_3"]["kernel"]


def test_one_and_eight_devices_agree_in_double_precision():
    """In float32 a rounding that tips a ReLU grows a hundredfold a step here; in float64 none can hide a defect."""
    with jax.enable_x64(True):
        check_devices_agree("narrow_stride", 1e-9, batch_size=16, dtype=jnp.float64)


def test_seed_optimizer_is_the_originals():
    """SGD as torch defines it: g + 5e-4 w, then v = 0.9 v + g, then w - rate v; on every parameter."""
    rate = 0.1
    optimizer = schedules.optimizer(schedules.preset("seed"), optax.constant_schedule(rate))
    params = {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([3.0])}
    gradients = {"kernel": jnp.array([0.5, 0.25]), "bias": jnp.array([-1.0])}
    state = optimizer.init(params)
    weights = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    velocity = {name: np.zeros_like(leaf) for name, leaf in weights.items()}
    for _ in range(3):
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        for name in weights:
            velocity[name] = 0.9 * velocity[name] + np.asarray(gradients[name]) + 5e-4 * weights[name]
            weights[name] = weights[name] - rate * velocity[name]
    for name in weights:
        np.testing.assert_allclose(params[name], weights[name], rtol=1e-6)


def test_fast_decays_kernels_alone():
    decays = schedules.preset("fast").decays
    assert decays(jnp.ones((3, 3)))
    assert not decays(jnp.ones(3))


def test_schedules():
    seed = schedules.divided_after_100_epochs(0.1, 391, 200)
    assert [round(float(seed(epoch * 391)), 6) for epoch in (0, 99, 100, 199)] == [0.1, 0.1, 0.01, 0.01]
    cycle = schedules.one_cycle(0.1, 10, 8)
    rates = [float(cycle(step)) for step in range(81)]
    assert np.argmax(rates) == 20
    assert rates[0] < 0.01
    assert rates[80] < 1e-4


def test_unknown_preset():
    with pytest.raises(nnc.InputError, match="unknown preset 'slow'; choose one of seed, fast"):
        schedules.preset("slow")
