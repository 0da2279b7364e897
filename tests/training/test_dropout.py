"""Dropout in training: a step draws anew, and draws the same when it is taken again."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nncompress_jax as nnc
from nncompress_jax.models.vgg import VGG, configuration
from nncompress_jax.training import schedules
from nncompress_jax.training.mesh import data_mesh
from nncompress_jax.training.state import create
from nncompress_jax.training.step import compile_train_step

NETWORK = VGG(configuration("8/2 M M M M"), head=(64, 32), initialization="seed")
PIXELS = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8)
LABELS = np.arange(16, dtype=np.int32) % 10


def losses(network, variables, steps):
    """Of the steps of these numbers, all on the same weights; the images are not changed at random."""
    optimizer, mesh = schedules.optimizer(schedules.preset("fast"), optax.constant_schedule(0.01)), data_mesh()
    run = compile_train_step(network.apply, optimizer, lambda key, images: images.astype(jnp.float32) / 255, mesh)

    def loss(step):
        state = create(variables, optimizer, jax.random.key(0), mesh).replace(step=jnp.int32(step))
        return float(run(state, PIXELS, LABELS, None)[1].loss)

    return [loss(step) for step in steps]


@pytest.mark.parametrize("compressed", [False, True])
def test_a_step_draws_its_own(compressed):
    variables = jax.jit(NETWORK.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    if compressed:
        variables = nnc.compress(variables, nnc.fake_quantize(bits=8))
    first, again, second = losses(NETWORK, variables, [0, 0, 1])
    assert first == again != second
    without = losses(NETWORK.copy(dropout=0.0), variables, [0, 1])
    assert without[0] == without[1] != first
