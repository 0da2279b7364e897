"""What presets say: optimizers, schedules; steps on several devices: `tests/sharding/test_step.py`."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nncompress_jax as nnc
from nncompress_jax.training import schedules


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
