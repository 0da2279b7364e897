"""Training through compression: the papers' gradients, learning, and what it settles to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from tests.methods.drawn import draw

TRAINING = {
    "8 bits": nnc.fake_quantize(),
    "4 bits": nnc.fake_quantize(bits=4),
    "3 bits": nnc.fake_quantize(bits=3),
    "2 bits, learned steps": nnc.fake_quantize(bits=2, learned_scales=True),
    "signs": nnc.binarize(train=True),
    "signs, 8-bit inputs": nnc.binarize(train=True, scaled=False, inputs="int8"),
    "factors of 4 bits": nnc.chain(nnc.factorize(rank=4), nnc.fake_quantize(bits=4)),
}


@pytest.mark.parametrize("name", TRAINING)
def test_settled_weights_have_the_same_outputs(name):
    weights = nnc.compress({"kernel": draw(16, 24)}, TRAINING[name])
    apply, x = nnc.inject(lambda w, x: x @ w["kernel"]), draw(4, 16, seed=1)
    converted = nnc.convert(weights)
    assert converted["kernel"].nbytes < weights["kernel"].nbytes / 2
    np.testing.assert_array_equal(apply(converted, x), apply(weights, x))


@pytest.mark.parametrize("name", TRAINING)
def test_what_a_network_computes_from_a_weight_begins_with_the_same_floats(name):
    """As weight standardisation does; what follows is one program on both, up to how it is compiled."""
    weights = nnc.compress({"kernel": draw(16, 24) ** 3}, TRAINING[name])
    dense = jax.jit(nnc.inject(lambda w: jnp.abs(w["kernel"])))
    converted = nnc.convert(weights)
    np.testing.assert_array_equal(dense(weights), dense(converted))
    np.testing.assert_array_equal(dense(converted), np.abs(nnc.decompress(converted)["kernel"]))

    def standardised(weights, x):
        kernel = weights["kernel"]
        return x @ ((kernel - kernel.mean(0)) / kernel.std(0))

    apply, x = jax.jit(nnc.inject(standardised)), draw(4, 16, seed=1)
    np.testing.assert_allclose(apply(converted, x), apply(weights, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", TRAINING)
def test_training_through_compression_learns(name):
    """A few steps of gradient descent on a regression bring the loss down, in the compressed form."""
    weights = nnc.compress({"kernel": 0.1 * draw(16, 24)}, TRAINING[name])
    x = draw(64, 16, seed=1)
    target = x @ draw(16, 24, seed=2)

    def loss(weights, x):
        return jnp.square(nnc.inject(lambda w, x: x @ w["kernel"])(weights, x) - target).mean()

    @jax.jit
    def step(weights):
        value, gradients = nnc.value_and_grad(loss)(weights, x)
        moved = jax.tree.map(
            lambda leaf, gradient: leaf if gradient is None else leaf - 0.5 * gradient,
            weights,
            gradients,
            is_leaf=lambda leaf: leaf is None,
        )
        return moved, value

    losses = []
    for _ in range(30):
        weights, value = step(weights)
        losses.append(float(value))
    assert losses[-1] < 0.8 * losses[0]


def test_learned_steps_have_the_papers_gradient():
    """Esser et al. 2020, equation 3, times 1 / sqrt(N Q), by hand for one step."""
    weight = jnp.array([[0.1], [0.4], [-1.4], [9.0]])
    fake = nnc.compress({"kernel": weight}, nnc.fake_quantize(bits=4, learned_scales=True))["kernel"]
    fake = type(fake)(weight, jnp.full((1, 1), 0.5), bits=4)
    gradients = jax.grad(lambda fake: fake.materialise().sum())(fake)
    ratio = np.array([0.2, 0.8, -2.8, 18.0])
    by_weight = np.where(np.abs(ratio) <= 7.5, np.round(ratio) - ratio, 7 * np.sign(ratio))
    np.testing.assert_allclose(gradients.scale.item(), by_weight.sum() / np.sqrt(4 * 7), rtol=1e-5)
    np.testing.assert_array_equal(gradients.weight.ravel(), [1, 1, 1, 0])


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
@pytest.mark.parametrize("unit", [2.0**-63, 2.0**-83, 2.0**-119])
def test_learned_steps_of_dead_channels_have_gradients(bits, unit):
    """The gradient of a step does not depend on the unit of its channel: that of 1e-36 is that of 1."""
    kernel, cotangent = draw(16, 8), draw(16, 8, seed=1)
    kernel += 0.1 * jnp.sign(kernel)  # a hundredth of 1e-36 would be no normal float
    ours, expected = (
        jax.grad(lambda fake: (fake.materialise() * cotangent).sum())(
            nnc.compress({"kernel": kernel * scaled}, nnc.fake_quantize(bits=bits, learned_scales=True))["kernel"]
        )
        for scaled in (unit, 1)
    )
    assert np.abs(expected.scale).min() > 0
    np.testing.assert_array_equal(ours.scale, expected.scale)
    np.testing.assert_array_equal(ours.weight, expected.weight)


def test_learned_steps_of_channels_of_zeros_have_gradients():
    fake = nnc.compress({"kernel": jnp.zeros((16, 8))}, nnc.fake_quantize(bits=4, learned_scales=True))["kernel"]
    gradients = jax.grad(lambda fake: fake.materialise().sum())(fake)
    np.testing.assert_array_equal(gradients.scale, np.zeros((1, 8)))
    np.testing.assert_array_equal(gradients.weight, np.ones((16, 8)))
