"""Integer operations on floats: near the float operation, with straight-through gradients and clip masks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.flatten_util import ravel_pytree

from nncompress_jax import InputError
from nncompress_jax.data import sources
from nncompress_jax.models.vgg import VGG, configuration
from nncompress_jax.ops import int8
from nncompress_jax.training.setup import preprocessing


class Net(nn.Module):
    """Dense, grouped, depthwise and strided convolutions; a dense layer for each pixel; one over all."""

    conv_general_dilated: object = lax.conv_general_dilated
    dot_general: object = lax.dot_general

    @nn.compact
    def __call__(self, x):
        def conv(*args, **kwargs):
            return nn.Conv(*args, **kwargs, conv_general_dilated=self.conv_general_dilated)

        x = nn.relu(conv(16, (3, 3))(x))
        x = nn.relu(conv(16, (3, 3), strides=2, feature_group_count=16)(x))
        x = nn.relu(conv(32, (3, 3), kernel_dilation=2, feature_group_count=2)(x))
        x = nn.relu(nn.Dense(24, dot_general=self.dot_general)(x))
        return nn.DenseGeneral((2, 5), axis=(-3, -2, -1), dot_general=self.dot_general)(x)


FLOAT, INTEGER = Net(), Net(int8.conv_general_dilated, int8.dot_general)
IMAGES = jax.random.normal(jax.random.key(0), (4, 12, 12, 3))
VARIABLES = FLOAT.init(jax.random.key(1), IMAGES)


def test_linen_layers_run_on_integers():
    program = str(jax.make_jaxpr(INTEGER.apply)(VARIABLES, IMAGES))
    assert program.count("name=integer_convolution") == 3
    expected, result = FLOAT.apply(VARIABLES, IMAGES), jax.jit(INTEGER.apply)(VARIABLES, IMAGES)
    assert 0 < jnp.abs(result - expected).max() < 0.05 * jnp.abs(expected).max()


def test_gradients_go_straight_through():
    def loss(network):
        return lambda variables, images: jnp.sum(jnp.sin(network.apply(variables, images)))

    exact, _ = ravel_pytree(jax.grad(loss(FLOAT), (0, 1))(VARIABLES, IMAGES))
    straight, _ = ravel_pytree(jax.jit(jax.grad(loss(INTEGER), (0, 1)))(VARIABLES, IMAGES))
    assert 0.99 <= jnp.vdot(exact, straight) / jnp.linalg.norm(exact) / jnp.linalg.norm(straight) < 1


def test_derivatives_forward_are_those_backward():
    def outputs(variables, images):
        return jnp.sin(INTEGER.apply(variables, images)).mean(0)

    point, along = (VARIABLES, IMAGES), jax.tree.map(lambda x: jnp.cos(3 * x), (VARIABLES, IMAGES))

    @jax.jit
    def both(*along):
        values, tangents = jax.jvp(outputs, point, along)
        back = jax.vjp(outputs, *point)[1](values)
        return jnp.vdot(values, tangents), sum(map(jnp.vdot, jax.tree.leaves(back), jax.tree.leaves(along)))

    np.testing.assert_allclose(*both(*along), rtol=1e-4)


def test_derivatives_are_at_the_dequantized_operands():
    """By each operand, and by both: of sum(x w) they are w, x and 1, as 8 bits hold them."""
    x, w = jnp.array([[0.3, -1.0, 0.77]]), jnp.array([[0.5], [-2.0], [1.2]])
    rounded = [
        np.round(np.ravel(v) / (np.abs(v).max() / 127.5)).clip(-127, 127) * (np.abs(v).max() / 127.5) for v in (x, w)
    ]

    def product(x, w):
        return int8.dot_general(x, w, (((1,), (0,)), ((), ())))[0, 0]

    along = jnp.array([[1.0, 2.0, 4.0]])
    np.testing.assert_allclose(jax.jvp(lambda x: product(x, w), (x,), (along,))[1], along[0] @ rounded[1], rtol=1e-6)
    np.testing.assert_allclose(jax.jvp(lambda w: product(x, w), (w,), (along.T,))[1], along[0] @ rounded[0], rtol=1e-6)
    np.testing.assert_allclose(
        jax.hessian(lambda x: product(x, w) ** 2)(x)[0, :, 0], 2 * np.outer(rounded[1], rounded[1]), rtol=1e-6
    )


def test_clipped_inputs_have_no_gradient():
    x, w = jnp.array([[0.5, 0.99, -0.99, 1.1, -3.0]]), jnp.ones((5, 2))
    numbers = (((1,), (0,)), ((), ()))

    W = 2 * 127 / 127.5  # two columns of ones, as 8 bits hold them

    def total(x, input_range):
        return int8.dot_general(x, w, numbers, input_range=input_range).sum()

    np.testing.assert_allclose(jax.grad(total)(x, 1.0), [[W, W, W, 0.0, 0.0]], rtol=1e-5)
    np.testing.assert_allclose(jax.grad(total)(x, None), np.full((1, 5), W), rtol=1e-5)
    # What is clipped reaches 127 of 127.5 steps.
    np.testing.assert_allclose(total(jnp.array([[0.0, 0, 0, 0, 9]]), 1.0), W * 127 / 127.5, rtol=1e-5)


def test_images_are_clipped_to_a_static_range():
    images, kernel = jnp.array([0.5, 2.0, -0.5, -2.0]).reshape(1, 2, 2, 1), jnp.ones((1, 1, 1, 1))

    def run(images):
        numbers = ("NHWC", "HWIO", "NHWC")
        return int8.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=numbers, input_range=1.0)

    np.testing.assert_allclose(run(images).ravel(), [0.5, 1, -0.5, -1], atol=1 / 127)
    np.testing.assert_allclose(jax.grad(lambda x: run(x).sum())(images).ravel(), [1, 0, 1, 0], rtol=0.01)


def test_each_example_has_its_own_range():
    """A large example does not coarsen the small one beside it."""
    small = jax.random.normal(jax.random.key(2), (1, 12, 12, 3))
    apply = jax.jit(INTEGER.apply)
    alone, beside = apply(VARIABLES, small), apply(VARIABLES, jnp.concatenate([small, 1e4 * small]))
    np.testing.assert_allclose(beside[:1], alone, rtol=1e-5, atol=1e-6)


def test_zeros_and_nan():
    numbers = (((1,), (0,)), ((), ()))
    product = int8.dot_general(jnp.array([[0.0, 0.0], [jnp.nan, 1.0]]), jnp.zeros((2, 3)), numbers)
    np.testing.assert_array_equal(product[0], np.zeros(3))
    assert jnp.isnan(product[1]).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_results_have_the_type_that_lax_gives(dtype):
    numbers = (((1,), (0,)), ((), ()))
    x, w = jnp.ones((2, 4), dtype), jnp.ones((4, 3), dtype)
    assert int8.dot_general(x, w, numbers).dtype == dtype
    assert int8.dot_general(x, w, numbers, preferred_element_type=jnp.float32).dtype == jnp.float32
    assert jax.grad(lambda x: int8.dot_general(x, w, numbers).sum().astype(jnp.float32))(x).dtype == dtype


def test_batch_groups_are_refused():
    x = jnp.ones((4, 8, 8, 2))
    with pytest.raises(InputError, match="batch_group_count=2: expected 1"):
        int8.conv_general_dilated(
            x, jnp.ones((3, 3, 2, 4)), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), batch_group_count=2
        )


def test_quantization_aware_training_converges():
    """The first blocks of VGG16-DS, weights and inputs quantized in every step, on a batch of real digits."""
    digits = sources.load("digits")
    images, labels = preprocessing(digits)(jnp.asarray(digits.train.images[:16])), digits.train.labels[:16]
    operations = {"conv_general_dilated": int8.conv_general_dilated, "dot_general": int8.dot_general}
    network = VGG(configuration("32 64/2 128/2", separable=True), **operations)
    variables = jax.jit(network.init)(jax.random.key(0), images)
    optimizer = optax.adam(2e-3)

    @jax.jit
    def step(variables, state):
        def loss(params):
            logits, stats = network.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), stats

        (value, stats), gradients = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        updates, state = optimizer.update(gradients, state)
        return {"params": optax.apply_updates(variables["params"], updates), **stats}, state, value

    state, losses = optimizer.init(variables["params"]), []
    for _ in range(10):
        variables, state, value = step(variables, state)
        losses.append(float(value))
    assert losses[0] == pytest.approx(np.log(10))
    assert losses[-1] < losses[0] / 4
