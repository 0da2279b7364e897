"""Static ranges: where they come from, and what no batch tells."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.methods import calibration
from nncompress_jax.methods.calibration import BINS, Histogram
from nncompress_jax.methods.selection import LeftAlone


def histogram(values):
    values = np.abs(values)
    counts, _ = np.histogram(values, BINS, (0, values.max()))
    return Histogram(counts, float(values.max()), float(values.max()))


VALUES = np.random.default_rng(0).laplace(size=100_000)


def test_rules():
    seen = histogram(VALUES)
    assert calibration.abs_max(seen) == np.abs(VALUES).max()
    for fraction in (0.5, 0.99, 0.9999):
        expected = np.quantile(np.abs(VALUES), fraction)
        assert calibration.percentile(fraction)(seen) == pytest.approx(expected, abs=2 * seen.edge / BINS)
    assert calibration.percentile(1)(seen) == seen.largest


def test_mean_squared_error_beats_its_neighbours():
    def error(limit):
        step = limit / 127.5
        return ((np.clip(np.round(VALUES / step), -127, 127) * step - VALUES) ** 2).mean()

    chosen = calibration.mean_squared_error(histogram(VALUES))
    assert chosen < 0.9 * np.abs(VALUES).max()
    assert error(chosen) <= 1.02 * min(error(limit) for limit in np.linspace(0.2, 1, 81) * np.abs(VALUES).max())


@pytest.mark.parametrize("fraction", [0, 1.5, -1])
def test_percentiles_that_are_none(fraction):
    with pytest.raises(nnc.InputError, match="expected a fraction"):
        calibration.percentile(fraction)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, second=False):
        x = nn.relu(nn.Conv(8, (3, 3), name="first")(x))
        branch = nn.Dense(4, name="branch")
        branch(x)  # both are made, whichever runs
        last = nn.Dense(4, name="last")(x)
        return branch(x) if second else last


IMAGES = [jax.random.normal(jax.random.key(seed), (2, 8, 8, 3)) for seed in range(3)]
VARIABLES = Net().init(jax.random.key(9), IMAGES[0])


APPLY = Net().apply


def steps(rule, variables=VARIABLES, batches=IMAGES, apply=APPLY):
    small = nnc.compress(variables, nnc.quantize(ranges=rule), apply=apply, batches=batches)
    return {path: leaf["kernel"].input_scale for path, leaf in small["params"].items()}


def test_steps_are_of_what_enters_each_layer():
    found = steps(calibration.abs_max)
    largest = max(float(jnp.abs(x).max()) for x in IMAGES)
    assert found["first"] == pytest.approx(largest / 127.5)
    hidden = [nn.relu(nn.Conv(8, (3, 3)).apply({"params": VARIABLES["params"]["first"]}, x)) for x in IMAGES]
    assert found["last"] == pytest.approx(max(float(h.max()) for h in hidden) / 127.5)
    assert found["last"] == found["branch"]
    clipped = steps(calibration.percentile(0.9))
    assert all(clipped[name] < found[name] for name in found)
    assert all(step.dtype == jnp.float32 for step in found.values())


def test_a_batch_may_be_a_tuple_of_arguments():
    def apply(variables, x, factor):
        return Net().apply(variables, factor * x)

    twice = steps(calibration.abs_max, batches=[(x, 2.0) for x in IMAGES], apply=apply)
    assert twice["first"] == pytest.approx(2 * float(steps(calibration.abs_max)["first"]))


def test_static_outputs_are_near_and_clip():
    small = nnc.compress(VARIABLES, nnc.quantize(ranges=calibration.abs_max), apply=Net().apply, batches=IMAGES)
    apply = jax.jit(nnc.inject(Net().apply))
    for x in IMAGES:
        expected = Net().apply(VARIABLES, x)
        np.testing.assert_allclose(apply(small, x), expected, atol=0.05 * float(jnp.abs(expected).max()))
    # Beyond the range nothing more happens: a larger image is the same as a clipped one.
    limit = float(small["params"]["first"]["kernel"].input_scale) * 127
    np.testing.assert_allclose(
        apply(small, 100 * IMAGES[0]), apply(small, jnp.clip(100 * IMAGES[0], -limit, limit)), atol=1e-4
    )


def test_zeros_keep_a_range():
    found = steps(calibration.mean_squared_error, batches=[jnp.zeros((2, 8, 8, 3))])
    assert found["first"] == pytest.approx(1 / 127.5)


def test_every_layer_that_no_batch_reached_is_named():
    params = VARIABLES["params"] | {"Dense_7": {"kernel": jnp.ones((4, 4))}, "Dense_8": {"kernel": jnp.ones((4, 4))}}
    with pytest.raises(nnc.InputError, match="reached params/Dense_7/kernel, params/Dense_8/kernel; "):
        steps(calibration.abs_max, {"params": params})


def test_a_branch_that_no_batch_took():
    def apply(variables, x):
        return jax.lax.cond(
            x.max() > 1e3, lambda x: x @ variables["big"]["kernel"], lambda x: x @ variables["small"]["kernel"], x
        )

    variables = {name: {"kernel": jnp.ones((3, 3))} for name in ("big", "small")}
    method = nnc.quantize(ranges=calibration.abs_max)
    with pytest.raises(nnc.InputError, match="reached big/kernel;"):
        nnc.compress(variables, method, apply=apply, batches=IMAGES)
    assert (
        nnc.compress(variables, method, apply=apply, batches=[*IMAGES, 1e4 * IMAGES[0]])["big"]["kernel"].input_scale
        > 1
    )


def test_a_table_that_is_only_looked_up_needs_no_range():
    def apply(variables, tokens):
        return jnp.take(variables["table"], tokens, axis=0) @ variables["kernel"]

    variables = {"table": jnp.ones((64, 16)), "kernel": jnp.ones((16, 2))}
    method = nnc.quantize(ranges=calibration.abs_max)
    small = nnc.compress(variables, method, apply=apply, batches=[jnp.arange(5)])
    assert small["table"].input_scale is None
    assert small["kernel"].input_scale is not None


@pytest.mark.parametrize(
    ("batches", "words"), [([], "need batches="), ([jnp.full((1, 8, 8, 3), jnp.nan)], "NaN or infinite")]
)
def test_batches_that_tell_nothing(batches, words):
    with pytest.raises(nnc.InputError, match=words):
        steps(calibration.abs_max, batches=batches)


def test_histograms_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        histogram(VALUES).edge = 1.0


def test_places_of_other_magnitudes_share_no_range():
    """Of inputs around 1 at one place and around 100 at the other; those around 2 and 3 still do."""
    x, weights = jnp.asarray(np.random.default_rng(1).standard_normal((4, 16)), jnp.float32), {"w": jnp.eye(16)}

    def apply(factor):
        return lambda w, x: (x @ w["w"], factor * x @ w["w"])

    with pytest.warns(calibration.DynamicRange, match="w: its inputs are of different magnitudes at different places"):
        apart = nnc.compress(weights, nnc.quantize(ranges=calibration.abs_max), apply=apply(100), batches=[x])
    assert apart["w"].input_scale is None
    small, large = nnc.inject(apply(100))(apart, x)
    step = np.abs(x).max(1, keepdims=True) / 127
    assert (np.abs(small - x) <= step / 2 + 0.01 * np.abs(x)).all()
    assert (np.abs(large - 100 * x) <= 100 * (step / 2 + 0.01 * np.abs(x))).all()
    near = nnc.compress(weights, nnc.quantize(ranges=calibration.abs_max), apply=apply(3), batches=[x])
    assert near["w"].input_scale == pytest.approx(3 * np.abs(x).max() / 127, rel=0.01)


def test_what_no_method_can_take_needs_no_range():
    weights = {"good": {"kernel": jnp.eye(4)}, "empty": {"kernel": jnp.zeros((0, 4))}}
    method = nnc.quantize(ranges=calibration.abs_max)
    with pytest.warns(LeftAlone, match="empty/kernel: left as it is: no entries"):
        small = nnc.compress(weights, method, apply=lambda w, x: x @ w["good"]["kernel"], batches=[jnp.ones((2, 4))])
    assert small["good"]["kernel"].input_scale == pytest.approx(1 / 127, rel=0.01)
