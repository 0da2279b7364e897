"""One step: the same on one device and on four, the caller's arrays intact."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

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
        state, metrics = run(state, images, labels, rows, None)
        losses.append(float(metrics.loss[0]))
    assert int(state.step) == 5
    return variables, jax.device_get(state.variables), losses


def distance(a, b):
    """Norm of the difference over the whole parameter tree."""
    return float(optax.tree.norm(jax.tree.map(jnp.subtract, a["params"], b["params"])))


def check_devices_agree(model, tolerance, **options):
    before, one, losses_one = steps(model, 1, **options)
    _, four, losses_four = steps(model, 4, **options)
    np.testing.assert_allclose(losses_one, losses_four, rtol=tolerance)
    np.testing.assert_allclose(distance(one, before), distance(four, before), rtol=tolerance)
    assert 0 < distance(one, four) < tolerance * optax.tree.norm(one["params"])
    return before, one


def test_one_and_four_devices_agree():
    assert jax.device_count() == 4
    before, after = check_devices_agree("narrow", 1e-4, batch_size=64)
    # The caller's variables stay usable, though steps donate their state.
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    assert jax.tree.structure(before) == jax.tree.structure(after)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), before, after)
    assert changed["batch_stats"]["BatchNorm_3"] == {"mean": True, "var": True}
    assert changed["params"]["Conv_3"]["kernel"]


def test_one_and_four_devices_agree_in_double_precision():
    """In float32 a rounding that tips a ReLU grows a hundredfold a step here; in float64 none can hide a defect."""
    with jax.enable_x64(True):
        check_devices_agree("narrow_stride", 1e-9, batch_size=16, dtype=jnp.float64)
