"""Means and variances over batches, beside numpy's of all data at once."""

import jax.numpy as jnp
import numpy as np
import pytest

from nncompress_jax.tracing.moments import Met, Moments
from tests.normalized import draw


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_batches_of_different_sizes(offset):
    data = np.asarray(draw(11, 3, 4), np.float64) * [1, 10, 0.1, 0] + offset
    moments = Moments({0: np.arange(4)[None, None]}, (4,))
    for part in np.split(data, [5, 6]):
        moments.add(jnp.asarray(part, jnp.float32))
    seen = np.asarray(data, np.float32).astype(np.float64)
    np.testing.assert_allclose(moments.mean, seen.mean((0, 1)), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(moments.variance, seen.var((0, 1)), rtol=1e-3, atol=1e-6)
    assert moments.count == 33


def test_entries_that_stand_at_several_places():
    """Two heads of three channels, merged; and a row of a leaf that holds those of two layers."""
    data = draw(7, 6)
    moments = Moments({0: np.array([[1]]), 1: np.tile(np.arange(3), 2)[None]}, (2, 3))
    moments.add(data)
    heads = np.asarray(data, np.float64).reshape(7, 2, 3)
    assert moments.entries.tolist() == [3, 4, 5]
    np.testing.assert_allclose(moments.mean, heads.mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(moments.variance, heads.var((0, 1)), rtol=1e-5)
    new = moments.into(np.zeros((2, 3)), moments.mean)
    np.testing.assert_allclose(new, [[0, 0, 0], heads.mean((0, 1))], rtol=1e-5)


def test_one_number_for_all():
    moments = Moments({}, (1,))
    moments.add(draw(4, 5))
    np.testing.assert_allclose(moments.mean, [np.asarray(draw(4, 5), np.float64).mean()], rtol=1e-5)
    np.testing.assert_allclose(moments.variance, [np.asarray(draw(4, 5), np.float64).var()], rtol=1e-5)


def test_statistics_of_one_batch():
    data = draw(7, 6)
    met = Met.of({0: np.array([[1]]), 1: np.tile(np.arange(3), 2)[None]}, (2, 3), 2)
    mean, variance = met.statistics(data)
    heads = np.asarray(data, np.float64).reshape(7, 2, 3)
    assert (met.entries.tolist(), met.times) == ([3, 4, 5], 2)
    np.testing.assert_allclose(mean, heads.mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(variance, heads.var((0, 1)), rtol=1e-5)
