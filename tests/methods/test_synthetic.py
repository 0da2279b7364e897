"""Synthetic images: what enters the normalizations, by numpy, beside what the network holds."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import lax
from sklearn.datasets import load_digits

import nncompress_jax as nnc
from tests.normalized import NETWORKS, InNNX, draw, linen

SHAPE = (8, 8, 1)


class Digits(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        norm = functools.partial(nn.BatchNorm, use_running_average=not train, momentum=0.9)
        x = nn.relu(norm(name="BatchNorm_0")(nn.Conv(16, (3, 3), name="Conv_0")(x)))
        x = nn.relu(norm(name="BatchNorm_1")(nn.Conv(32, (3, 3), strides=2, name="Conv_1")(x)))
        x = norm(name="BatchNorm_2")(nn.Dense(24, name="Dense_0")(x.mean((1, 2))))
        return nn.Dense(10, name="Dense_1")(nn.relu(x))


@pytest.fixture(scope="module")
def trained():
    """Some hundred steps on scikit-learn's digits."""
    images, labels = load_digits(return_X_y=True)
    images = jnp.asarray(images.reshape(-1, *SHAPE) / 8 - 1, jnp.float32)
    variables = Digits().init(jax.random.key(0), images[:1])
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(variables, state, rows):
        def loss(params):
            logits, new = Digits().apply(
                variables | {"params": params}, images[rows], train=True, mutable="batch_stats"
            )
            return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(labels)[rows]).mean(), new

        gradients, new = jax.grad(loss, has_aux=True)(variables["params"])
        updates, state = optimizer.update(gradients, state)
        return {"params": optax.apply_updates(variables["params"], updates), **new}, state

    state = optimizer.init(variables["params"])
    for turn in range(150):
        rows = np.random.default_rng(turn).integers(0, len(images), 128)
        variables, state = step(variables, state, rows)
    return variables


@pytest.fixture(scope="module")
def images(trained):
    options = {"shift": 0, "smoothness": 0.01, "steps": 150}
    return nnc.synthetic_images(Digits().apply, trained, 96, shape=SHAPE, batch_size=96, **options)


def apart(variables, images):
    """By normalization the largest distance of means, in stored deviations, and of deviations, as a log2.

    By numpy, of what the layers before the normalizations give in inference.
    """
    layers = lambda module, _: isinstance(module, nn.Conv | nn.Dense)  # noqa: E731
    _, kept = Digits().apply(variables, images, mutable="intermediates", capture_intermediates=layers)
    seen = kept["intermediates"]
    far = {}
    for name, layer in {"BatchNorm_0": "Conv_0", "BatchNorm_1": "Conv_1", "BatchNorm_2": "Dense_0"}.items():
        stored, entered = variables["batch_stats"][name], np.asarray(seen[layer]["__call__"][0], np.float64)
        axes, deviation = tuple(range(entered.ndim - 1)), np.sqrt(stored["var"])
        means = np.abs(entered.mean(axes) - stored["mean"]) / deviation
        far[name] = means.max(), np.abs(np.log2(entered.std(axes) / deviation)).max()
    return far


def test_statistics_are_those_of_training(trained, images):
    """Means within a fifth of the stored deviation, deviations within 15 %, in all channels."""
    assert (images.shape, images.dtype) == ((96, *SHAPE), jnp.float32)
    for mean, deviation in apart(trained, images).values():
        assert mean < 0.2
        assert deviation < np.log2(1.15)
    noise = apart(trained, jax.random.normal(jax.random.key(0), (96, *SHAPE)))
    assert all(mean > 0.6 and deviation > np.log2(1.7) for mean, deviation in noise.values())


def test_each_class_is_there_as_often(trained, images):
    classes = Digits().apply(trained, images).argmax(1)
    assert ((np.bincount(classes, minlength=10) - 9.6) ** 2).max() <= 2**2


def test_classes_are_those_that_were_given(trained):
    labels = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3] * 3
    images = nnc.synthetic_images(Digits().apply, trained, 30, shape=SHAPE, labels=labels, smoothness=0.01)
    assert (Digits().apply(trained, images).argmax(1) == jnp.array(labels)).mean() > 0.9


def small_network():
    """A layer of 1 x 1 that is normalized, and its mean."""
    leaves = {"kernel": draw(3, 5), "mean": draw(5), "var": draw(5) ** 2}

    def apply(leaves, x):
        return ((x @ leaves["kernel"] - leaves["mean"]) / jnp.sqrt(leaves["var"] + 1e-3)).mean((1, 2))

    return apply, leaves


def test_the_same_seed_gives_the_same_images():
    make = functools.partial(nnc.synthetic_images, *small_network(), 5, shape=(4, 4, 3), batch_size=3, steps=2)
    first = make()
    assert first.shape == (5, 4, 4, 3)
    assert len({image.tobytes() for image in np.asarray(first)}) == 5
    assert (make() == first).all()
    for other in ({"seed": 1}, {"flips": True, "labels": [0, 1, 2, 3, 4]}, {"smoothness": 1.0}):
        assert (make(**other) != first).any()


def test_smooth():
    make = functools.partial(nnc.synthetic_images, *small_network(), 16, shape=(4, 4, 3), steps=50)
    rough, smooth = (jnp.diff(make(smoothness=weight), axis=1).std() for weight in (0.0, 10.0))
    assert smooth < 0.5 * rough


def test_of_a_compressed_network():
    apply, leaves = small_network()
    small = nnc.compress(leaves, nnc.quantize(bits=4))
    make = functools.partial(nnc.synthetic_images, apply, count=8, shape=(4, 4, 3), steps=3)
    assert (make(small) == make(nnc.decompress(small))).all()
    assert (make(small) != make(leaves)).any()


ALONE = {"shift": 0, "smoothness": 0.0, "steps": 300}
"""With these nothing stands beside the distance of the statistics."""


def test_in_nnx():
    apply, state, x = NETWORKS["NNX"]()
    images = nnc.synthetic_images(apply, state, 64, shape=x.shape[1:], labels=None, **ALONE)
    model = InNNX(nnx.Rngs(0))
    nnx.update(model, state)
    entered = np.asarray(model.conv(images))
    np.testing.assert_allclose(entered.mean((0, 1, 2)), model.norm.mean.get_value(), atol=0.05)
    np.testing.assert_allclose(entered.var((0, 1, 2)), model.norm.var.get_value(), rtol=0.1)


def test_in_haiku():
    apply, variables, x = NETWORKS["Haiku"]()
    images = nnc.synthetic_images(apply, variables, 64, shape=x.shape[1:], labels=None, **ALONE)
    params, state = variables
    weights = params["net/~/conv"]
    entered = lax.conv_general_dilated(images, weights["w"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    entered = np.asarray(entered + weights["b"])
    mean, variance = (np.ravel(state[f"net/~/batch_norm/~/{name}_ema"]["average"]) for name in ("mean", "var"))
    np.testing.assert_allclose(entered.mean((0, 1, 2)), mean, atol=0.1)
    np.testing.assert_allclose(entered.var((0, 1, 2)), variance, rtol=0.2, atol=0.02)


REFUSED = {
    "no images": ({"count": 0}, "count=0: expected a whole number of at least 1"),
    "no steps": ({"steps": 0}, "steps=0: expected a whole number of at least 1"),
    "a batch of one": ({"batch_size": 1}, "batch_size=1: expected a whole number of at least 2"),
    "one size": ({"shape": 8}, "shape=8: expected that of one image, \\(height, width, channels\\)"),
    "a batch's shape": ({"shape": (1, 8, 8, 1)}, "shape=\\(1, 8, 8, 1\\): expected that of one image"),
    "other channels": ({"shape": (8, 8, 3)}, "apply cannot be traced with inputs of shape \\(\\(4, 8, 8, 3\\),\\)"),
    "a negative rate": ({"learning_rate": -1.0}, "learning_rate=-1.0: expected more than 0"),
    "a negative weight": ({"smoothness": -1.0}, "smoothness=-1.0: expected 0 or more"),
    "half a pixel": ({"shift": 0.5}, "shift=0.5: expected a whole number of at least 0"),
    "other words": ({"labels": "all"}, "labels='all': expected 'random', classes of the images, or None"),
    "few labels": ({"labels": [1, 2]}, "labels=int64\\[2\\]: expected 4 whole numbers from 0 to 9"),
    "a class too many": ({"labels": [1, 2, 3, 10]}, "labels=int64\\[4\\]: expected 4 whole numbers from 0 to 9"),
    "a wild rate": ({"learning_rate": 1e30}, "the loss is .* at step 1; give finite variables, or a smaller"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(trained, case):
    options, words = REFUSED[case]
    with pytest.raises(nnc.InputError, match=words):
        nnc.synthetic_images(Digits().apply, trained, **{"count": 4, "shape": SHAPE, "steps": 2} | options)


def test_networks_that_are_refused():
    apply, variables, x = linen(nn.Dense(3), draw(1, 4, 4, 2))
    with pytest.raises(nnc.InputError, match="the program holds no batch normalization, whose statistics"):
        nnc.synthetic_images(apply, variables, 4, shape=x.shape[1:])
    apply, variables, x = NETWORKS["Haiku"]()
    with pytest.raises(nnc.InputError, match="apply returns \\[4, 5, 5, 4\\]: expected logits \\[B, C\\]; give labels"):
        nnc.synthetic_images(apply, variables, 4, shape=x.shape[1:])
