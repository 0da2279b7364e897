"""Other people's training loops on compressed variables, with `nnc.optimizer` around their optimizer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits

import nncompress_jax as nnc
from nncompress_jax.weights.parts import tracked, trains
from tests.training.methods import METHODS, OWN_GRADIENTS

ALL = METHODS | OWN_GRADIENTS


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    return jnp.asarray(images[:256, :, None].reshape(-1, 8, 8, 1) / 8 - 1, jnp.float32), jnp.asarray(labels[:256])


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Conv(16, (3, 3), strides=2)(x)))
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Conv(32, (3, 3), strides=2)(x)))
        return nn.Dense(10)(x.reshape((len(x), -1)))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Conv(1, 16, (3, 3), strides=2, rngs=rngs)
        self.second = nnx.Conv(16, 32, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(32, rngs=rngs)
        self.last = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.second(nnx.relu(self.first(x)))))
        return self.last(x.reshape((len(x), -1)))


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def compressed(variables, method, apply, images):
    return nnc.compress(variables, ALL[method], apply=apply, batches=[images[:64]])


def fixed_parts(tree):
    """Arrays that neither gradients nor what is seen may move."""
    marks = zip(trains(tree), tracked(tree), strict=True)
    return [np.asarray(leaf) for leaf, mark in zip(jax.tree.leaves(tree), marks, strict=True) if not any(mark)]


@pytest.mark.parametrize("method", ALL)
def test_linen_and_train_state(method, digits):
    """The loop of docs/fine_tuning.md: the loss is halved in 60 steps, and weights keep their types and positions."""
    images, labels = digits
    network = Linen()
    variables = network.init(jax.random.key(0), images)
    small = compressed(variables, method, network.apply, images)
    apply = nnc.inject(network.apply)
    tx = nnc.optimizer(optax.adamw(1e-2, mask=nnc.decays))
    state = TrainState.create(apply_fn=apply, params=small["params"], tx=tx)

    @jax.jit
    def step(state, statistics):
        def loss_of(params):
            logits, updated = apply(
                {"params": params, "batch_stats": statistics}, images, train=True, mutable=["batch_stats"]
            )
            return cross_entropy(logits, labels), updated["batch_stats"]

        (loss, statistics), gradients = nnc.value_and_grad(loss_of, has_aux=True)(state.params)
        return state.apply_gradients(grads=gradients), statistics, loss

    statistics, losses = small["batch_stats"], []
    for _ in range(60):
        state, statistics, loss = step(state, statistics)
        losses.append(float(loss))
    assert losses[-1] < losses[0] / 2
    assert jax.tree.structure(state.params) == jax.tree.structure(small["params"])
    for before, after in zip(fixed_parts(small["params"]), fixed_parts(state.params), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("method", ALL)
def test_nnx_and_its_optimizer(method, digits):
    images, labels = digits
    model = Nnx(nnx.Rngs(0))
    model.eval()
    graph, state = nnx.split(model)
    small = compressed(state, method, lambda state, x: nnx.merge(graph, state)(x), images)
    model = nnx.merge(graph, small)
    model.train()
    before = nnx.state(model, nnx.Param)
    optimizer = nnx.Optimizer(model, nnc.optimizer(optax.adamw(1e-2, mask=nnc.decays)), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        loss_of = nnc.inject(lambda model: cross_entropy(model(images), labels))
        loss, gradients = nnx.value_and_grad(loss_of, allow_int=True)(model)
        optimizer.update(model, gradients)
        return loss

    mean = nnc.decompress({"mean": model.norm.mean.get_value()})["mean"]
    losses = [float(step(model, optimizer)) for _ in range(60)]
    assert losses[-1] < losses[0] / 2
    after = nnx.state(model, nnx.Param)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    for old, new in zip(fixed_parts(before), fixed_parts(after), strict=True):
        np.testing.assert_array_equal(old, new)
    moved = nnc.decompress({"mean": model.norm.mean.get_value()})["mean"]
    assert (mean != moved).any()  # batch statistics are set in the module
