"""Whole runs on all devices of one process."""

import jax
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.training import checkpoint, loop
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
