"""Networks with early exits: each example ends as in the whole network, and nothing else is computed."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax import exits
from nncompress_jax.tracing.stages import stages


class Branchy(nn.Module):
    """Three exits; shortcuts go past the first, and jit hides the second part."""

    @nn.compact
    def __call__(self, x):
        norm = nn.BatchNorm(use_running_average=True)
        x = nn.relu(norm(nn.Conv(8, (3, 3))(x)))
        first = nn.Dense(5)(x.mean((1, 2)))
        y = nn.relu(nn.Conv(8, (3, 3))(x))
        x = nn.max_pool(x + y, (2, 2), (2, 2))
        second = nn.Dense(5)(x.mean((1, 2)))
        x = nn.relu(nn.Conv(16, (3, 3))(x))
        return first, second, nn.Dense(5)(x.reshape(len(x), -1))


NETWORK = Branchy()
IMAGES = 4 * jax.random.normal(jax.random.key(1), (50, 8, 8, 3))
VARIABLES = NETWORK.init(jax.random.key(0), IMAGES)

METHODS = {
    "floats": lambda variables, context: variables,
    "8 bits, static": nnc.quantize(ranges=nnc.calibration.abs_max),
    "cut channels": nnc.prune_channels(keep=0.5),
    "clusters": nnc.cluster(bits=4),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.6, 2.0, (0.9, 0.3)])
def test_each_example_ends_at_its_exit(method, threshold):
    """Against all outputs of the whole network: the first exit that is certain enough."""
    small = nnc.compress(VARIABLES, METHODS[method], apply=NETWORK.apply, batches=[IMAGES])
    outputs = np.stack(jax.jit(nnc.inject(NETWORK.apply))(small, IMAGES), 1)
    certainty = np.asarray(jax.nn.softmax(outputs).max(-1))
    least = np.append(np.broadcast_to(threshold, 2), -1)
    expected = (certainty >= least).argmax(1)
    answers = nnc.early_exit(NETWORK.apply, small, threshold)(IMAGES)
    near = (np.abs(certainty - least) < 1e-4).any(1)  # rounding may decide
    np.testing.assert_array_equal(answers.exits[~near], expected[~near])
    chosen = np.take_along_axis(outputs, answers.exits[:, None, None], 1)[:, 0]
    np.testing.assert_allclose(answers.logits, chosen, atol=1e-4 * np.abs(outputs).max())


def decided(outputs, labels, macs, thresholds):
    """Accuracy and mean cost, example by example."""
    right, cost = [], []
    for row in range(len(labels)):
        for number, logits in enumerate(outputs):
            odds = np.exp(logits[row] - logits[row].max())
            if number == len(outputs) - 1 or odds.max() / odds.sum() >= thresholds[number]:
                right.append(logits[row].argmax() == labels[row])
                cost.append(macs[number])
                break
    return np.mean(right), np.mean(cost) / macs[-1]


@pytest.mark.parametrize("drop", [0.0, 0.01, 0.05])
def test_thresholds_that_are_found(drop):
    """No drop beyond what is allowed, and as cheap as any single threshold for all exits that holds it."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 400)
    outputs = [
        (signal * np.eye(4)[labels] + random.standard_normal((400, 4))).astype(np.float32) for signal in (1.5, 3, 4)
    ]
    macs = [10, 25, 40]
    thresholds = nnc.exit_thresholds(outputs, labels, macs, max_drop=drop)
    accuracy, cost = decided(outputs, labels, macs, thresholds)
    whole = decided(outputs, labels, macs, [2.0, 2.0])
    assert accuracy >= whole[0] - drop - 1e-9
    single = [decided(outputs, labels, macs, [value, value]) for value in np.linspace(0.3, 1.01, 60)]
    assert cost <= 1.02 * min(price for right, price in single if right >= whole[0] - drop)
    assert cost < 0.9


def test_thresholds_of_a_call():
    run = nnc.early_exit(NETWORK.apply, VARIABLES, 2.0)
    assert set(run(IMAGES).exits.tolist()) == {2}
    for thresholds in (0.0, (0.6, 0.3)):
        found, expected = (
            run(IMAGES, thresholds=thresholds),
            nnc.early_exit(NETWORK.apply, VARIABLES, thresholds)(IMAGES),
        )
        np.testing.assert_array_equal(found.exits, expected.exits)
        np.testing.assert_array_equal(found.logits, expected.logits)


def test_no_stage_computes_what_another_did():
    divided = stages(NETWORK.apply, VARIABLES, IMAGES)
    made = [variable for stage in divided.stages for equation in stage.equations for variable in equation.outvars]
    assert len(set(made)) == len(made)
    assert [len(stage.inputs) for stage in divided.stages] == [1, 1, 1]
    assert divided.stages[1].inputs[0].aval.shape == (50, 8, 8, 8)
    assert divided.stages[2].inputs[0].aval.shape == (50, 4, 4, 8)


def test_integers_stay_integers():
    small = nnc.compress(VARIABLES, nnc.quantize(ranges=nnc.calibration.abs_max), apply=NETWORK.apply, batches=[IMAGES])
    leaves = jax.tree.leaves(small)
    divided = stages(NETWORK.apply, small, IMAGES)
    carried = [IMAGES]
    for number in range(3):
        text = jax.jit(lambda *args, number=number: divided.run(number, *args)).lower(leaves, carried).as_text()
        assert "xi8>" in text
        assert "xi32>" in text
        carried = divided.run(number, leaves, carried)[1]


def test_fewer_examples_go_on(monkeypatch):
    """Sizes of the batches that later stages see hold what is left."""
    seen = []
    run = exits.Stages.run

    def watched(self, number, leaves, carried):
        seen.append((number, len(carried[0])))
        return run(self, number, leaves, carried)

    monkeypatch.setattr(exits.Stages, "run", watched)
    weights = {"w": jnp.eye(3)}
    network = nnc.early_exit(lambda w, x: (x @ w["w"], 2 * x @ w["w"], 3 * x @ w["w"]), weights, 0.9)
    certain = jnp.tile(jnp.array([[9.0, 0, 0]]), (40, 1))
    unsure = jnp.tile(jnp.array([[0.1, 0, 0]]), (9, 1))
    answers = network(jnp.concatenate([certain, unsure]))
    assert answers.exits.tolist() == [0] * 40 + [2] * 9
    assert seen == [(0, 56), (1, 16), (2, 16)]


def test_sizes_of_batches():
    """They hold what there is, are few, and hold little else."""
    sizes = [exits._size(count) for count in range(1, 5000)]
    assert all(count <= size for count, size in enumerate(sizes, 1))
    assert max(size / count for count, size in enumerate(sizes, 1) if count > 32) < 1.25
    assert len(set(sizes)) < 40
    assert [exits._size(count) for count in (1, 8, 9, 33, 65, 129, 256, 257)] == [8, 8, 16, 40, 80, 160, 256, 320]


@pytest.mark.parametrize(
    ("apply", "thresholds", "message"),
    [
        (lambda w, x: x @ w["w"], 0.5, "apply returns one array; expected a network with early exits"),
        (lambda w, x: (x @ w["w"], x @ w["w"]), (0.5, 0.5), "2 thresholds for 2 exits: expected 1"),
        (
            lambda w, x: ((mean := x.mean(0)) + x @ w["w"], 2 * mean + x),
            2.0,
            r"exit 1 goes on with .*\[3\].* of 8 examples: expected an array of each example",
        ),
    ],
)
def test_refusals_of_networks(apply, thresholds, message):
    network = nnc.early_exit(apply, {"w": jnp.eye(3)}, thresholds)
    with pytest.raises(nnc.InputError, match=message):
        network(jnp.ones((8, 3)))


def test_refusals_of_thresholds():
    logits, labels = [np.zeros((5, 3))] * 2, np.zeros(5, int)
    for arguments in ((logits, labels[:4], [1, 2]), (logits, labels, [1]), (logits[:1], labels, [1])):
        with pytest.raises(nnc.InputError, match=r"outputs \[5, 3\].*: expected two exits or more of N"):
            nnc.exit_thresholds(*arguments)


@pytest.mark.parametrize("shape", [(0, 3), ()])
def test_refusals_of_inputs(shape):
    network = nnc.early_exit(lambda w, x: (x @ w["w"], x @ w["w"]), {"w": jnp.eye(3)}, 0.5)
    with pytest.raises(nnc.InputError, match="expected one example at least"):
        network(jnp.zeros(shape))
