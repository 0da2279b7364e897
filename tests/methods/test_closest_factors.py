"""Factors whose outputs stay closest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import nncompress_jax as nnc
from tests.methods.drawn import draw
from tests.methods.obq import damped
from tests.methods.test_in_sequence import error, mixed


def dense(weights, x):
    return x @ weights["kernel"]


def turned(weights, x):
    return x @ weights["kernel"].T


@pytest.mark.parametrize("apply", [dense, turned])
def test_a_pair_is_the_best_one_for_its_outputs(apply):
    """Eckart and Young: of the outputs, the largest singular values."""
    matrix, x = draw(8, 6), mixed(200, 8)
    weights = {"kernel": matrix.T if apply is turned else matrix}
    small = nnc.compress(weights, nnc.factorize(rank=2, compensate=True, where="*"), apply=apply, batches=[x])["kernel"]
    root = np.linalg.cholesky(damped(np.asarray(x, np.float64).T @ np.asarray(x, np.float64))).T
    left, values, right = np.linalg.svd(root @ np.asarray(matrix, np.float64), full_matrices=False)
    wanted = np.linalg.solve(root, (left[:, :2] * values[:2]) @ right[:2])
    assert [factor.shape for factor in small.factors] == ([(6, 2), (2, 8)] if apply is turned else [(8, 2), (2, 6)])
    found = np.asarray(small.materialise())
    np.testing.assert_allclose(found.T if apply is turned else found, wanted, rtol=1e-3, atol=1e-4)


def conv(weights, x):
    return lax.conv_general_dilated(x, weights["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def smooth(seed):
    """Images whose neighbouring pixels have much in common."""
    x = jax.random.normal(jax.random.key(seed), (16, 8, 8, 8))
    return x + jnp.roll(x, 1, 1) + jnp.roll(x, 1, 2) + 2 * x.mean(-1, keepdims=True)


@pytest.mark.parametrize(("kind", "most"), [("spatial", 0.85), ("tucker", 0.97), ("cp", 0.99)])
def test_chains_have_closer_outputs(kind, most):
    weights = {"kernel": draw(3, 3, 8, 12)}
    plain, best = (
        nnc.compress(weights, nnc.factorize(rank=4, kind=kind, compensate=each), apply=conv, batches=[smooth(0)])
        for each in (False, True)
    )
    assert [f.shape for f in best["kernel"].factors] == [f.shape for f in plain["kernel"].factors]
    assert error(conv, best, weights, smooth(1)) < most * error(conv, plain, weights, smooth(1))


def test_the_energy_is_that_of_outputs():
    """Of inputs with two directions, two factors leave nothing out."""
    x = draw(100, 2) @ draw(2, 16)
    weights = {"kernel": draw(16, 16)}
    small = nnc.compress(weights, nnc.factorize(energy=0.99, compensate=True, where="*"), apply=dense, batches=[x])
    assert small["kernel"].factors[0].shape[1] <= 3
