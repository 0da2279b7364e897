"""Images, losses and measures of a program's own, in the loop."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.data.sources import Dataset
from nncompress_jax.data.split import InMemory
from nncompress_jax.training import checkpoint, loop, objective
from nncompress_jax.training.config import Config
from nncompress_jax.training.setup import preprocessing
from tests.training.runs import lines

RANDOM = np.random.default_rng(0)
TRAIN, TEST = (
    InMemory(RANDOM.integers(0, 256, (count, 32, 32, 3), np.uint8), np.arange(count, dtype=np.int32) % 4)
    for count in (50, 23)
)
DATASET = Dataset("mine", TRAIN, TEST, ("a", "b", "c", "d"), (0.5,) * 3, (0.25,) * 3, flips=False)
CONFIG = Config(model="narrowest", dataset="mine", epochs=2, batch_size=16, learning_rate=0.01)


def second(logits, labels):
    """Whether the label is among the two likeliest."""
    return (jnp.argsort(-logits)[:, :2] == labels[:, None]).any(-1)


def squared(logits, labels):
    """A loss that is not the cross entropy: the mean over classes, for each example."""
    return jnp.square(logits - jnp.eye(4)[labels]).mean(-1)


SQUARES = dataclasses.replace(
    objective.of_outputs(lambda logits, labels: squared(logits, labels).mean()),
    measures={"second": second, "squares": squared},
)


def configured(tmp_path, **changes):
    return dataclasses.replace(CONFIG, workdir=str(tmp_path / "run"), **changes)


@pytest.mark.parametrize("batch_size", [16, 25])
def test_measures_are_means_over_all_images(tmp_path, batch_size):
    config = configured(tmp_path, batch_size=batch_size)
    run = loop.train(config, objective=SQUARES, dataset=DATASET)
    variables = checkpoint.restore(run.workdir)
    apply = nnc.models.create("narrowest", num_classes=4).apply
    logits = np.asarray(apply(variables, preprocessing(DATASET)(jnp.asarray(TEST.images))), np.float64)
    ranks = (logits > np.take_along_axis(logits, TEST.labels[:, None], 1)).sum(1)
    expected = np.square(logits - np.eye(4)[TEST.labels]).mean()
    *_, last = lines(run.workdir)
    assert last["test_second"] == pytest.approx((ranks < 2).mean())
    assert last["test_squares"] == pytest.approx(expected, rel=1e-4)
    assert run.evaluation.measures == {"second": last["test_second"], "squares": last["test_squares"]}
    assert last["train_squares"] == pytest.approx(last["train_loss"], rel=1e-5)  # the loss is that measure's mean


def test_a_run_that_goes_on_adds_to_what_it_measured(tmp_path, monkeypatch):
    """Interrupted within its second epoch: the line of that epoch is the same."""
    whole = configured(tmp_path / "whole", learning_rate=0.001)
    loop.train(whole, objective=SQUARES, dataset=DATASET)
    halted = dataclasses.replace(whole, workdir=str(tmp_path / "halted"))
    asked = iter([False] * 4 + [True])
    with monkeypatch.context() as patch:
        patch.setattr(loop.Interruption, "is_asked", lambda self: next(asked, True))
        with pytest.raises(nnc.errors.UnfinishedError):
            loop.train(halted, objective=SQUARES, dataset=DATASET)
    run = loop.train(halted, objective=SQUARES, dataset=DATASET)
    ours, theirs = lines(run.workdir)[-1], lines(tmp_path / "whole" / "run")[-1]
    names = [name for name in theirs if name not in ("images_per_second", "training_seconds")]
    assert [ours[name] for name in names] == pytest.approx([theirs[name] for name in names], rel=1e-6)


def test_refusals(tmp_path):
    with pytest.raises(nnc.InputError, match="dataset=digits, and one by the name of mine: expected one name for both"):
        loop.train(configured(tmp_path, dataset="digits"), dataset=DATASET)
    taken = dataclasses.replace(SQUARES, measures={"accuracy": second})
    with pytest.raises(nnc.InputError, match="measure 'accuracy': is reported already"):
        loop.train(configured(tmp_path), objective=taken, dataset=DATASET)
    assert not (tmp_path / "run").exists()
