"""Networks that nobody wrote."""

import jax
import numpy as np
import pytest

import nncompress_jax as nnc
from tests.coupling.test_random_programs import SIDE, B, Network
from tests.export.runtime import exported, same


@pytest.mark.parametrize("seed", range(12))
def test_random_programs(seed, tmp_path):
    network = Network(seed)
    images = np.random.default_rng(seed).standard_normal((B, SIDE, SIDE, 3)).astype(np.float32)
    same(tmp_path, network, network.weights, images, any_batch=False)
    small = nnc.compress(network.weights, nnc.quantize(), apply=network, batches=[images])
    run, report = exported(tmp_path, network, small, images, batches=[images], any_batch=False)
    rows = nnc.int8_report(network, small, images).rows
    assert report.integer == sum(not row.why_float for row in rows)
    expected = np.asarray(jax.jit(nnc.inject(network))(small, images))
    floats = np.asarray(network(network.weights, images))
    wrong = max(np.abs(expected - floats).max(), 0.02 * np.abs(floats).max())
    assert np.abs(run(images)[0] - floats).max() < 5 * wrong
