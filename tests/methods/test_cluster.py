"""Codebooks: k-means against its definition, zeros, channels."""

import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.methods.cluster import k_means
from nncompress_jax.weights import parts
from nncompress_jax.weights.base import dense
from tests.methods.drawn import compressed, draw


@pytest.mark.parametrize("start", ["linear", "density", "k-means++"])
def test_k_means_finds_what_is_there_and_rests(start):
    random = np.random.default_rng(0)
    truth = np.array([-3.0, -1.0, 0.5, 4.0])
    values = (random.choice(truth, 5000) + 0.05 * random.standard_normal(5000)).astype(np.float32)
    centers, codes = k_means(values, 4, start)
    np.testing.assert_allclose(centers, truth, atol=0.02)
    nearest = np.abs(values[:, None] - centers).argmin(1)
    np.testing.assert_array_equal(codes, nearest)
    means = [values[codes == k].mean() for k in range(4)]
    np.testing.assert_allclose(centers, means, rtol=1e-5)


def test_zeros_stay_zero():
    kernel = draw(32, 16) * (draw(32, 16, seed=1) > 0)
    weight = compressed(kernel, nnc.cluster(bits=3, keeps_zero=True))
    np.testing.assert_array_equal(weight.materialise() == 0, kernel == 0)
    assert weight.codebook.shape == (8,)
    assert weight.codes.nbytes == 32 * 6  # 16 codes of 3 bits


def test_a_codebook_by_channel_is_nearer():
    kernel = draw(64, 8) * jnp.arange(1.0, 9.0)
    errors = [
        float(jnp.square(compressed(kernel, nnc.cluster(bits=2, by_channel=by)).materialise() - kernel).mean())
        for by in (False, True)
    ]
    assert errors[1] < 0.7 * errors[0]


def test_a_value_trains_like_its_entries_on_average():
    weights = nnc.compress({"kernel": draw(64, 8)}, nnc.recipe("prune:0.5+cluster:2"))
    target = draw(64, 8, seed=1)
    _, gradients = nnc.value_and_grad(lambda w: (nnc.inject(lambda w: w["kernel"] * target)(w)).sum())(weights)
    mean = parts.preconditioned(weights, gradients)["kernel"].values.codebook
    codes = np.asarray(dense(weights["kernel"].values.codes))
    entries = np.asarray(target).ravel()[weights["kernel"].positions]
    np.testing.assert_allclose(mean, [entries[codes == k].mean() for k in range(4)], rtol=1e-5)
    assert gradients["kernel"].positions is None


def test_few_values_and_one():
    assert compressed(jnp.ones((4, 4)), nnc.cluster(bits=4)).materialise().tolist() == [[1.0] * 4] * 4
    assert compressed(jnp.zeros((4, 4)), nnc.cluster(bits=2, keeps_zero=True)).materialise().tolist() == [[0.0] * 4] * 4
