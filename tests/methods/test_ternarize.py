"""Weights of three values: the papers' threshold and gradients by hand, and learning."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import nncompress_jax as nnc
from nncompress_jax.weights import parts
from nncompress_jax.weights.clustered import Clustered
from tests.methods.drawn import compressed, draw

WEIGHT = np.array([[0.05, 0.9, -0.4], [-1.2, 0.6, 0.1]], np.float32)
"""0.7 times the mean magnitude is 0.379."""


def test_values_are_means_of_what_is_above_the_threshold():
    weight = compressed(jnp.asarray(WEIGHT), nnc.ternarize())
    assert isinstance(weight, Clustered)
    np.testing.assert_allclose(weight.codebook, [-0.8, 0, 0.75], rtol=1e-6)
    np.testing.assert_allclose(weight.materialise(), [[0, 0.75, -0.8], [-0.8, 0.75, 0]], rtol=1e-6)
    assert compressed(draw(64, 64), nnc.ternarize()).nbytes == 64 * 64 // 4 + 12


def test_gradients_are_the_papers():
    """Zhu et al. 2017, equations 7 and 8; then the means over the entries."""
    weights = {"kernel": compressed(jnp.asarray(WEIGHT), nnc.ternarize(train=True))}
    cotangent = np.array([[1.0, 2, 3], [4, 5, 6]], np.float32)
    gradients = nnc.grad(nnc.inject(lambda w: (w["kernel"] * cotangent).sum()))(weights)
    found = gradients["kernel"]
    np.testing.assert_allclose(found.weight, [[1, 0.75 * 2, 0.8 * 3], [0.8 * 4, 0.75 * 5, 6]], rtol=1e-6)
    np.testing.assert_allclose([found.positive, found.negative], [2 + 5, -(3 + 4)], rtol=1e-6)
    taken = parts.preconditioned(weights, gradients)["kernel"]
    np.testing.assert_allclose([taken.positive, taken.negative], [3.5, -3.5], rtol=1e-6)
    np.testing.assert_array_equal(taken.weight, found.weight)


def test_converted_weights_are_the_same():
    weight = compressed(draw(48, 40), nnc.ternarize(train=True))
    np.testing.assert_array_equal(weight.convert().materialise(), weight.materialise())
    np.testing.assert_array_equal(compressed(draw(48, 40), nnc.ternarize()).materialise(), weight.materialise())


def test_a_weight_of_zeros_stays_so():
    weight = compressed(jnp.zeros((40, 40)), nnc.ternarize())
    np.testing.assert_array_equal(weight.materialise(), np.zeros((40, 40)))


def test_training_learns_the_two_values():
    """A target of three values is found again, from floats that only lean towards it."""
    signs = jnp.sign(draw(32, 8, seed=1)) * (jnp.abs(draw(32, 8, seed=1)) > 0.6)
    target = jnp.where(signs > 0, 0.5, jnp.where(signs < 0, -0.2, 0))
    x = draw(256, 32, seed=2)

    def loss(weights):
        run = nnc.inject(lambda w, x: x @ w["kernel"])
        return jnp.square(run(weights, x) - x @ target).mean()

    weights = {"kernel": compressed(0.5 * signs + 0.1 * draw(32, 8, seed=3), nnc.ternarize(train=True))}
    tx = nnc.optimizer(optax.adam(0.01))

    @jax.jit
    def step(weights, state):
        updates, state = tx.update(nnc.grad(loss)(weights), state, weights)
        return optax.apply_updates(weights, updates), state

    state, first = tx.init(weights), float(loss(weights))
    for _ in range(300):
        weights, state = step(weights, state)
    assert loss(nnc.convert(weights)) < 0.01 * first
    np.testing.assert_allclose(weights["kernel"].positive, 0.5, atol=0.02)
    np.testing.assert_allclose(weights["kernel"].negative, 0.2, atol=0.02)
