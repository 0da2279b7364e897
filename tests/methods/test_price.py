"""Training with a price on the bits of codes: the entropy and its pull against NumPy, files, and what it gains."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nncompress_jax as nnc
from nncompress_jax.weights import parts
from nncompress_jax.weights.entropy import entropy_bits
from nncompress_jax.weights.fake_quantized import FakeQuantized
from nncompress_jax.weights.quantized import Quantized
from tests.methods.drawn import compressed, draw


def prices(codes):
    """Of each code from -127 to 127, the logarithm of how rare it is."""
    counts = np.array([(codes == code).sum() for code in range(-127, 128)], np.float64)
    return np.log2(codes.size / np.maximum(counts, 0.5))


def test_entropy_and_its_pull():
    ratio = np.random.default_rng(0).laplace(size=(30, 40)).astype(np.float32) * 2
    codes = np.rint(ratio)
    expected = prices(codes)[codes.astype(int) + 127].sum()
    bits, pull = jax.value_and_grad(entropy_bits)(jnp.asarray(ratio))
    np.testing.assert_allclose(bits, expected, rtol=1e-5)
    lower = np.floor(ratio).astype(int) + 127
    np.testing.assert_allclose(pull, prices(codes)[lower + 1] - prices(codes)[lower], rtol=1e-3, atol=1e-4)


def test_ends_of_the_range():
    bits, pull = jax.value_and_grad(entropy_bits)(jnp.array([-300.0, -127, 126.7, 127, 300]))
    assert np.isfinite(bits)
    assert np.isfinite(pull).all()
    assert pull[0] == pull[4] == 0  # they are clipped


@pytest.mark.parametrize("rate", [0.3, 1.0, 3.0])
def test_the_estimate_is_what_the_file_takes(rate):
    """Within 2 %."""
    kernel = jnp.asarray(np.random.default_rng(0).laplace(size=(512, 512)), jnp.float32)
    weight = compressed(kernel, nnc.fake_quantize(rate=rate, price=1e-6))
    estimate = float(entropy_bits(weight.weight / weight.scale)) / 8
    assert abs(nnc.stored_size(weight.convert()) - estimate) < 0.02 * estimate


def test_the_gradient_is_that_of_loss_and_bits():
    weight = compressed(draw(24, 16), nnc.fake_quantize(rate=2.0, price=0.125))
    target = draw(24, 16, seed=1)
    gradients = nnc.grad(nnc.inject(lambda w: (w["kernel"] * target).sum()))({"kernel": weight})
    found = parts.preconditioned({"kernel": weight}, gradients)["kernel"]
    scale = float(weight.scale.item())
    ratio = np.asarray(weight.weight, np.float64) / scale
    slopes = np.diff(prices(np.rint(ratio)))[np.floor(ratio).astype(int) + 127]
    np.testing.assert_allclose(found.weight, target + 0.125 * slopes / scale, rtol=1e-3)
    by_scale = -0.125 * (slopes * ratio).sum() / scale / np.sqrt(127 * 24 * 16)
    np.testing.assert_allclose(found.scale.item() - gradients["kernel"].scale.item(), by_scale, rtol=1e-3)


@pytest.mark.parametrize("axis", [-2, -1])
def test_the_gradient_of_whole_channels(axis):
    """Of torch's kernels inputs are the last axis; a channel of zeros is pulled nowhere."""
    kernel = draw(24, 16).at[3].set(0) if axis == -2 else draw(24, 16).at[:, 3].set(0)
    apply = (lambda w, x: x @ w["kernel"]) if axis == -2 else (lambda w, x: x @ w["kernel"].T)
    batches = [draw(2, 24 if axis == -2 else 16)]
    found = []
    for share in (0.0, 0.25):
        method = nnc.fake_quantize(rate=2.0, price=0.125, channels=share)
        weights = nnc.compress({"kernel": kernel}, method, apply=apply, batches=batches)
        zero = jax.tree.map(jnp.zeros_like, weights)
        found.append(parts.preconditioned(weights, zero)["kernel"])
    ratio = np.asarray(kernel, np.float64) / float(weights["kernel"].scale.item())
    norms = np.sqrt(np.square(ratio).sum(-1 if axis == -2 else 0, keepdims=True))
    unit = np.divide(ratio, norms, out=np.zeros_like(ratio), where=norms > 0)
    expected = 0.125 * 0.25 * np.sqrt(16 if axis == -2 else 24) * unit / float(weights["kernel"].scale.item())
    np.testing.assert_allclose(found[1].weight - found[0].weight, expected, rtol=1e-3, atol=1e-4)
    assert found[1].scale == found[0].scale


def test_whole_channels_go_at_equal_bits():
    """Of a hidden layer that is wider than it has to be, and what is left gives the same outputs."""
    x = draw(512, 16)
    outputs = jnp.tanh(x @ draw(16, 4, seed=2) / 4) @ draw(4, 8, seed=3)
    apply = lambda w, x: jnp.tanh(x @ w["a"]["kernel"]) @ w["b"]["kernel"]  # noqa: E731
    tx = nnc.optimizer(optax.adam(3e-3))

    def loss(weights):
        return jnp.square(nnc.inject(apply)(weights, x) - outputs).mean()

    @jax.jit
    def step(weights, state):
        updates, state = tx.update(nnc.grad(loss)(weights), state, weights)
        return optax.apply_updates(weights, updates), state

    def trained(share):
        weights = {"a": {"kernel": draw(16, 48, seed=4) / 4}, "b": {"kernel": draw(48, 8, seed=5) / 7}}
        weights = nnc.compress(weights, nnc.fake_quantize(target_rate=1.0, channels=share, where="*"))
        state = tx.init(weights)
        for _ in range(1500):
            weights, state = step(weights, state)
        whole = nnc.convert(weights)
        small = nnc.compress(whole, nnc.remove_unused_channels(), apply=apply, batches=[x])
        np.testing.assert_allclose(loss(small), loss(whole), rtol=0.05)
        return nnc.cost(apply, small, x).macs, float(loss(whole))

    (without, before), (small, after) = trained(0.0), trained(1.0)
    assert small < 0.7 * without
    assert after < before


@pytest.mark.parametrize("axes", [(), (-1,), (-2,)])
@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_weights_train_on(axes, bits):
    """The same codes, scales and ranges to begin with; converted at once, the same weight."""
    variables = {"a": {"kernel": draw(32, 48)}, "b": {"kernel": draw(48, 8)}}
    apply = lambda v, x: jax.nn.relu(x @ v["a"]["kernel"]) @ v["b"]["kernel"]  # noqa: E731
    method = nnc.quantize(bits=bits, axes=axes, where="a/kernel", ranges=nnc.calibration.abs_max)
    small = nnc.compress(variables, method, apply=apply, batches=[draw(4, 32, seed=1)])
    training = nnc.compress(small, nnc.fake_quantize(bits=2))
    assert isinstance(training["a"]["kernel"], FakeQuantized)
    assert (training["a"]["kernel"].bits, training["b"]["kernel"].bits) == (bits, 2)
    converted = nnc.convert(training)["a"]["kernel"]
    assert jax.tree.structure(converted) == jax.tree.structure(small["a"]["kernel"])
    for one, other in zip(jax.tree.leaves(converted), jax.tree.leaves(small["a"]["kernel"]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_quantized_weights_inside_of_others_train_on():
    kernel = draw(3, 3, 8, 16)
    cut = nnc.compress({"kernel": draw(32, 32)}, nnc.chain(nnc.factorize(rank=4), nnc.quantize()))
    training = nnc.compress(cut, nnc.fake_quantize(where="*"))
    assert {type(factor) for factor in training["kernel"].factors} == {FakeQuantized}
    jax.tree.map(np.testing.assert_array_equal, nnc.convert(training), cut)
    both = nnc.compress({"a": {"kernel": kernel}, "b": {"kernel": kernel}}, nnc.quantize())
    half = nnc.compress(both, nnc.fake_quantize(where="a/*"))
    assert isinstance(half["a"]["kernel"], FakeQuantized)
    assert half["b"]["kernel"] is both["b"]["kernel"]  # what was not chosen stays


def test_a_price_makes_the_file_smaller_at_equal_loss():
    """A regression on few of many inputs: paid for, the others' weights go to zero, and the loss is no higher."""
    x = draw(512, 64)
    target = x[:, :8] @ draw(8, 16, seed=2)

    def loss(weights):
        return jnp.square(nnc.inject(lambda w, x: x @ w["kernel"])(weights, x) - target).mean()

    tx = nnc.optimizer(optax.adam(0.01))

    @jax.jit
    def step(weights, state):
        updates, state = tx.update(nnc.grad(loss)(weights), state, weights)
        return optax.apply_updates(weights, updates), state

    def trained(price):
        weights = nnc.compress({"kernel": 0.3 * draw(64, 16, seed=3)}, nnc.fake_quantize(step=0.1, price=price))
        state = tx.init(weights)
        for _ in range(300):
            weights, state = step(weights, state)
        kernel = nnc.convert(weights)["kernel"]
        assert isinstance(kernel, Quantized)
        return float(loss({"kernel": kernel})), float(entropy_bits(jnp.asarray(kernel.codes, jnp.float32)))

    free, paid = trained(None), trained(1e-4)
    assert paid[1] < 0.7 * free[1]
    assert paid[0] < 1.5 * free[0]


@pytest.mark.parametrize("target", [0.5, 1.5])
def test_a_target_is_reached_and_held(target):
    """Over both weights together, whatever each takes; then for a third as long again."""
    x = draw(512, 64)
    outputs = jnp.tanh(x @ draw(64, 32, seed=2) / 8) @ draw(32, 8, seed=3)

    def loss(weights):
        run = nnc.inject(lambda w, x: jnp.tanh(x @ w["a"]["kernel"]) @ w["b"]["kernel"])
        return jnp.square(run(weights, x) - outputs).mean()

    weights = {"a": {"kernel": draw(64, 32, seed=4) / 8}, "b": {"kernel": draw(32, 8, seed=5) / 4}}
    weights = nnc.compress(weights, nnc.fake_quantize(target_rate=target, where="*"))
    tx = nnc.optimizer(optax.adam(3e-3))

    @jax.jit
    def step(weights, state):
        updates, state = tx.update(nnc.grad(loss)(weights), state, weights)
        return optax.apply_updates(weights, updates), state

    state, rates, prices = tx.init(weights), [], []
    for _ in range(1600):
        weights, state = step(weights, state)
        codes = [np.asarray(nnc.convert(weights)[name]["kernel"].codes) for name in "ab"]
        bits = sum(float(entropy_bits(jnp.asarray(each, jnp.float32))) for each in codes)
        rates.append(bits / sum(each.size for each in codes))
        prices.append([float(weights[name]["kernel"].price) for name in "ab"])
    assert rates[0] > 2
    assert min(rates) > 0.7 * target  # not gone past
    np.testing.assert_allclose(np.mean(rates[-400:]), target, rtol=0.1)
    assert all(one == other for one, other in prices)


def test_stays_in_files_and_checkpoints(tmp_path):
    weight = compressed(draw(64, 32), nnc.fake_quantize(rate=1.0, price=1e-7))
    nnc.save(tmp_path / "a.nnc", {"kernel": weight})
    again = nnc.load(tmp_path / "a.nnc").variables["kernel"]
    assert float(again.price) == pytest.approx(1e-7)
    jax.tree.map(np.testing.assert_array_equal, again, weight)
    wrong = dataclasses.replace(weight, scale=None)
    assert wrong.check() == "price float32 [], expected a float32, beside a scale"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"price": 0}, "price=0: expected what a bit costs, more than 0, as 1e-7"),
        ({"price": float("inf")}, "price=inf: expected"),
        ({"rate": 1.0, "learned_scales": True}, "learned_scales with rate=; leave one of them out"),
        ({"price": 1e-7, "target_rate": 1.0}, "target_rate=1.0, price=1e-07: expected one of them"),
        ({"target_rate": 9}, "target_rate=9, price=None: expected one of them, a rate above 0, at most 8"),
        ({"channels": 0.5}, "channels=0.5: expected 0 or more bits, beside price= or target_rate="),
        ({"channels": -1, "price": 1e-7}, "channels=-1: expected 0 or more bits"),
        ({"step": 0.1, "axes": (-1,)}, "axes with step=; leave one of them out"),
        ({"step": 0.1, "rate": 1.0}, "step= and rate= both say how large a step is"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(nnc.InputError, match=message):
        nnc.fake_quantize(**arguments)
