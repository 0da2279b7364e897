"""Values that stand where a hash says: against the hash in Python's whole numbers, and what the paper found."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.datasets

import nncompress_jax as nnc
from nncompress_jax.weights import parts
from nncompress_jax.weights.hashed import Hashed
from tests.methods.drawn import compressed, draw


def mixed(x):
    """MurmurHash3's finalizer, as published."""
    x ^= x >> 16
    x = x * 0x85EBCA6B % 2**32
    x ^= x >> 13
    x = x * 0xC2B2AE35 % 2**32
    return x ^ x >> 16


def looked_up(values, seed, size):
    hashes = [mixed(n ^ mixed((seed + 0x9E3779B9) % 2**32)) for n in range(size)]
    return [float(values[(h >> 1) % len(values)]) * (1 - 2 * (h & 1)) for h in hashes]


def test_entries_are_where_the_hash_says():
    weight = compressed(draw(3, 3, 8, 16), nnc.hash_weights(share=0.1))
    assert weight.values.shape == (116,)  # a tenth of 1,152, rounded up
    expected = looked_up(np.asarray(weight.values), int(weight.seed), weight.size)
    np.testing.assert_array_equal(np.ravel(weight.materialise()), np.float32(expected))


def test_values_are_the_closest():
    """Any other value of any bucket is further from the weights."""
    kernel = draw(64, 32)
    weight = compressed(kernel, nnc.hash_weights(share=0.125))

    def error(values):
        return jnp.square(Hashed(values, weight.seed, weight.inner).materialise() - kernel).sum()

    np.testing.assert_allclose(jax.grad(error)(weight.values), 0, atol=1e-4)
    assert error(weight.values) < (1 - 0.1) * jnp.square(kernel).sum()


def test_two_weights_share_differently():
    small = nnc.compress({"a": {"kernel": draw(32, 32)}, "b": {"kernel": draw(32, 32)}}, nnc.hash_weights())
    assert small["a"]["kernel"].seed != small["b"]["kernel"].seed
    again = nnc.compress({"a": {"kernel": draw(32, 32)}}, nnc.hash_weights())
    np.testing.assert_array_equal(again["a"]["kernel"].values, small["a"]["kernel"].values)
    other = nnc.compress({"a": {"kernel": draw(32, 32)}}, nnc.hash_weights(seed=1))
    assert other["a"]["kernel"].seed != small["a"]["kernel"].seed


def test_a_value_trains_like_its_entries_on_average():
    weights = {"kernel": compressed(draw(64, 8), nnc.hash_weights(share=0.05))}
    target = draw(64, 8, seed=1)
    gradients = nnc.grad(nnc.inject(lambda w: (w["kernel"] * target).sum()))(weights)
    found = parts.preconditioned(weights, gradients)["kernel"].values
    size, seed, count = 512, int(weights["kernel"].seed), 26
    hashes = np.array([mixed(n ^ mixed((seed + 0x9E3779B9) % 2**32)) for n in range(size)])
    signed = np.where(hashes & 1, -1, 1) * np.ravel(target)
    expected = [signed[(hashes >> 1) % count == k].mean() for k in range(count)]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_the_file_holds_values_and_a_seed(tmp_path):
    weight = compressed(draw(256, 256), nnc.hash_weights(share=1 / 64))
    nnc.save(tmp_path / "a.nnc", {"kernel": weight})
    assert (tmp_path / "a.nnc").stat().st_size < 4 * 1024 + 600
    again = nnc.load(tmp_path / "a.nnc").variables["kernel"]
    np.testing.assert_array_equal(again.materialise(), weight.materialise())


@pytest.mark.parametrize("share", [0, 1, -0.5, 1e-9])
def test_refusals(share):
    with pytest.raises(nnc.InputError, match=f"share={share}: expected from 1.5e-05 to below 1"):
        nnc.hash_weights(share=share)


def trained(params, x, y, steps=150):
    """Test accuracy of a network of one hidden layer, on the second half of the examples."""
    half = len(x) // 2

    def logits(params, x):
        return jnp.tanh(x @ params["first"]["kernel"] + params["first"]["bias"]) @ params["second"]["kernel"]

    def loss(params):
        found = nnc.inject(logits)(params, x[:half])
        return optax.softmax_cross_entropy_with_integer_labels(found, y[:half]).mean()

    tx = nnc.optimizer(optax.adam(0.02))

    @jax.jit
    def step(params, state):
        updates, state = tx.update(nnc.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return float((nnc.inject(logits)(params, x[half:]).argmax(-1) == y[half:]).mean())


def test_sharing_beats_a_narrow_layer_of_as_many_parameters():
    """The paper's claim, on digits: 4 hidden units of 64 weights, or 128 units that share those 256 weights."""
    digits = sklearn.datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x, y = jnp.asarray(digits.data[order] / 16 - 0.3, jnp.float32), jnp.asarray(digits.target[order])

    def network(hidden, seed):
        random = np.random.default_rng(seed).standard_normal
        shapes = {"first": (64, hidden), "second": (hidden, 10)}
        return {
            name: {"kernel": jnp.asarray(random(shape) / shape[0] ** 0.5, jnp.float32), "bias": jnp.zeros(shape[1])}
            for name, shape in shapes.items()
        }

    narrow = [trained(network(4, seed), x, y) for seed in range(3)]
    share = nnc.hash_weights(share=1 / 32)
    hashed = [trained(nnc.compress(network(128, seed), share), x, y) for seed in range(3)]
    assert nnc.compress(network(128, 0), share)["first"]["kernel"].values.size == 256
    assert np.mean(hashed) > np.mean(narrow) + 0.01
