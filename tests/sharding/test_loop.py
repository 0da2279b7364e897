"""Whole runs on all devices of one process."""

import dataclasses

import jax
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.training import checkpoint, loop, mesh, setup
from nncompress_jax.training.chunks import Resident, Streamed
from tests.training.runs import lines


def test_a_run_shares_each_batch(finished):
    assert jax.device_count() == 4
    assert finished.progress.steps == finished.progress.total_steps == 12
    assert [line["step"] for line in lines(finished.workdir)] == [4, 8, 12]


def test_restore_puts_the_variables_on_one_device(finished):
    variables = checkpoint.restore(finished.workdir)
    assert {len(leaf.devices()) for leaf in jax.tree.leaves(variables)} == {1}
    network = checkpoint.network(finished.workdir)
    assert network.num_classes == 4
    assert network.apply(variables, np.zeros((1, 32, 32, 3), np.float32)).shape == (1, 4)


def test_a_batch_that_cannot_be_shared(configured):
    with pytest.raises(nnc.InputError, match="batch_size=10: expected a positive multiple of the 4 devices"):
        loop.train(configured("refused", batch_size=10))


def test_an_epoch_is_the_same_on_any_number_of_devices(configured, monkeypatch):
    """63 images in batches of 40 and 23, which four devices cannot divide: the last one stands whole on each."""
    results = []
    for devices, kind in ((1, Resident), (4, Resident), (4, Streamed)):
        monkeypatch.setattr(setup, "data_mesh", lambda devices=devices: mesh.data_mesh(jax.devices()[:devices]))
        run = setup.prepare(configured("seed", preset="seed", batch_size=40, learning_rate=0.001))
        train = run.dataset.train
        dataset = dataclasses.replace(
            run.dataset, train=dataclasses.replace(train, images=train.images[:63], labels=train.labels[:63])
        )
        run = dataclasses.replace(run, dataset=dataset, batches=dataclasses.replace(run.batches, count=63))
        state, sizes, losses = run.initial_state(0), [], []
        for chunk in kind(run, state).after(0):
            state, measured = chunk.run(state)
            sizes.append(chunk.batch_size)
            losses += measured.loss.tolist()
        results.append((sizes, losses))
    assert [sizes for sizes, _ in results] == [[40, 23]] * 3
    for _, losses in results[1:]:
        np.testing.assert_allclose(losses, results[0][1], rtol=1e-4)
