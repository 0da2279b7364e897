"""Whole runs: interrupted, resumed, restored, refused."""

import dataclasses
import itertools
import os
import pwd
import signal
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.errors import UnfinishedError
from nncompress_jax.training import checkpoint, config, loop
from nncompress_jax.training.chunks import Resident
from nncompress_jax.training.config import Config
from nncompress_jax.training.evaluation import evaluate
from nncompress_jax.training.interruption import Interruption
from nncompress_jax.training.setup import prepare
from tests.training.runs import assert_equal, lines


def test_what_a_run_leaves(finished):
    assert finished.progress.steps == finished.progress.total_steps == 12
    assert finished.progress.training_seconds > 0
    assert finished.evaluation.count == 21
    assert [line["step"] for line in lines(finished.workdir)] == [4, 8, 12]
    assert lines(finished.workdir)[-1]["test_accuracy"] == finished.evaluation.accuracy
    assert list(finished.workdir.glob("events.out.tfevents.*"))


def interrupt(monkeypatch, after):
    """SIGTERM arrives before the question whether one has is asked for the time `after`, counted from 0."""
    asked, is_asked = itertools.count(), Interruption.is_asked

    def counting(self):
        if next(asked) == after:
            signal.raise_signal(signal.SIGTERM)
            assert self._asked.wait(5)
        return is_asked(self)

    monkeypatch.setattr(Interruption, "is_asked", counting)


# An epoch asks after each of its four steps, and after the only batch of its test.
@pytest.mark.parametrize(
    ("after", "steps", "stream"), [(0, 1, False), (3, 4, False), (4, 4, False), (5, 5, True), (14, 12, False)]
)
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    after, steps, stream, finished, streamed, configured, monkeypatch
):
    settings, whole = configured("interrupted", stream=stream), streamed if stream else finished
    interrupt(monkeypatch, after)
    with pytest.raises(UnfinishedError, match=f"asked to end, saved at step {steps} of 12; the same command goes on"):
        loop.train(settings)
    interrupted = checkpoint.load_progress(settings.workdir)
    assert interrupted.steps == steps
    assert not interrupted.is_finished
    # What was written beyond the checkpoint is dropped.
    with Path(settings.workdir, "metrics.jsonl").open("a") as file:
        file.write('{"step": 12, "train_loss": 0}\n{"step": 1')

    monkeypatch.undo()
    run = loop.train(settings)
    assert_equal(run.workdir, whole.workdir)
    assert without_times(run) == without_times(whole)
    assert run.progress.training_seconds > interrupted.epoch.seconds


# Two programs, which XLA may round apart.
def test_a_streamed_run_takes_the_same_steps(finished, streamed):
    restored = [checkpoint.restore(run.workdir) for run in (streamed, finished)]
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5), *restored)
    for ours, theirs in zip(without_times(streamed), without_times(finished), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def without_times(run):
    return [{name: value for name, value in line.items() if "second" not in name} for line in lines(run.workdir)]


def test_the_default_answer_to_the_signal_comes_back(finished):
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_finished_run_is_only_tested(finished, monkeypatch):
    monkeypatch.setattr(loop, "compile_chunks", None)
    again = loop.train(config.read(finished.workdir))
    assert again.evaluation.confusion.tolist() == finished.evaluation.confusion.tolist()
    assert again.progress == finished.progress


def test_a_user_without_home_and_name(finished, spoilt, monkeypatch):
    """As in a container that runs as any user."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", mock.Mock(side_effect=KeyError("uid not found")))
    again = loop.train(dataclasses.replace(config.read(finished.workdir), workdir=str(spoilt)))
    assert again.evaluation.confusion.tolist() == finished.evaluation.confusion.tolist()


def test_a_finished_run_may_be_interrupted_in_its_test(finished, spoilt, monkeypatch):
    interrupt(monkeypatch, 0)
    settings = dataclasses.replace(config.read(finished.workdir), workdir=str(spoilt))
    with pytest.raises(UnfinishedError, match="asked to end, saved at step 12 of 12"):
        loop.train(settings)
    assert_equal(spoilt, finished.workdir)


def test_checkpoints_within_an_epoch(finished, configured):
    run = loop.train(configured("often", checkpoint_steps=3, keep_last=5))
    kept = sorted(int(folder.name) for folder in (run.workdir / "checkpoints").iterdir())
    assert set(kept) >= {6, 8, 9, 12}  # the last ones, after 3, 4 and before; and the best
    assert_equal(run.workdir, finished.workdir)
    assert without_times(run) == without_times(finished)


def test_the_best_is_kept(finished):
    accuracies = {line["step"]: line["test_accuracy"] for line in lines(finished.workdir)}
    with checkpoint.manager(finished.workdir) as checkpoints:
        best = checkpoints.best_step()
    assert accuracies[best] == max(accuracies.values())
    network, images = checkpoint.network(finished.workdir), prepare(config.read(finished.workdir))
    variables = checkpoint.restore(finished.workdir, best=True)
    tested = evaluate(network.apply, variables, images.dataset.test, images.preprocess)
    assert tested.accuracy == accuracies[best]


def test_a_workdir_of_another_run(finished):
    settings = config.read(finished.workdir)
    for name, value in {"model": "vgg13", "epochs": 7, "seed": 1}.items():
        theirs = getattr(settings, name)
        message = f"holds a run of {name}={theirs}, not {value}; choose another --workdir, or --{name}={theirs}"
        with pytest.raises(nnc.InputError, match=message):
            loop.train(dataclasses.replace(settings, **{name: value}))


def test_a_run_goes_on_in_the_numbers_that_it_began_with(configured, monkeypatch):
    settings = configured("begun")
    begun = config.as_begun(settings)
    assert begun.bfloat16 is False  # on the CPU
    config.claim(begun)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert config.as_begun(settings) == begun
    assert config.as_begun(configured("elsewhere")).bfloat16 is True
    for asked in (True, False):
        settings = dataclasses.replace(settings, bfloat16=asked)
        assert config.as_begun(settings) == settings
    asked = Config(model="vgg16")
    assert config.as_begun(asked).folder() == asked.folder()


def test_an_epoch_that_is_not_what_it_was(finished, spoilt, monkeypatch):
    settings = dataclasses.replace(config.read(finished.workdir), workdir=str(spoilt))
    setup = prepare(settings)
    labels = np.resize(setup.dataset.train.labels, 65)
    grown = dataclasses.replace(setup.dataset, train=dataclasses.replace(setup.dataset.train, labels=labels))
    for changed, message in (
        (dataclasses.replace(setup, dataset=grown), "began with 64 training images, now there are 65; give it"),
        (
            dataclasses.replace(setup, batches=dataclasses.replace(setup.batches, size=8)),
            "began with 12 steps, now there are 24; give it the data set that it began with, or train into another",
        ),
    ):
        monkeypatch.setattr(loop, "prepare", lambda *_, changed=changed: changed)
        with pytest.raises(nnc.InputError, match=message):
            loop.train(settings)


def test_a_damaged_configuration(spoilt):
    (spoilt / "config.json").write_text('{"model": "vgg16"')
    with pytest.raises(nnc.InputError, match="config.json: not a configuration of this version"):
        checkpoint.restore(spoilt)


def test_workdirs_that_are_none(tmp_path):
    with pytest.raises(nnc.InputError, match="run: no such folder; expected the --workdir of a training run"):
        checkpoint.restore(tmp_path / "run")
    with pytest.raises(nnc.InputError, match="has no config.json; expected the --workdir of a training run"):
        checkpoint.restore(tmp_path)


def test_no_checkpoint_yet(configured):
    settings = configured("claimed")
    config.claim(settings)
    with pytest.raises(nnc.InputError, match="holds no checkpoint yet; train for an epoch first"):
        checkpoint.restore(settings.workdir)
    assert os.listdir(settings.workdir) == ["config.json"]


def test_a_workdir_that_cannot_be_written(configured, tmp_path):
    (tmp_path / "file").write_text("")
    settings = dataclasses.replace(configured("blocked"), workdir=str(tmp_path / "file"))
    with pytest.raises(nnc.InputError, match="file: cannot be written: .*; choose another --workdir"):
        config.claim(settings)


def test_a_loss_that_is_not_finite(configured):
    settings = configured("diverging", learning_rate=1e20)
    with pytest.raises(nnc.InputError, match="^step \\d+: the loss is .* at learning rate .*; choose a lower"):
        loop.train(settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": -1}, "epochs=-1: expected more than 0"),
        ({"epochs": 0}, "epochs=0: expected more than 0"),
        ({"checkpoint_steps": 0}, "checkpoint_steps=0: expected more than 0"),
        ({"keep_last": 0}, "keep_last=0: expected more than 0"),
        ({"batch_size": 0}, "batch_size=0: expected more than 0"),
        ({"batch_size": 128}, "batch_size=128: expected at most 64, the training images"),
        ({"learning_rate": float("nan")}, "learning_rate=nan: expected more than 0"),
        ({"preset": "slow"}, "unknown preset 'slow'"),
        ({"model": "vgg17"}, "unknown model 'vgg17'"),
        ({"dataset": "tinier"}, "unknown data set 'tinier'"),
    ],
)
def test_settings_that_cannot_be(configured, changes, message):
    settings = configured("refused", **changes)
    with pytest.raises(nnc.InputError, match=message):
        loop.train(settings)
    assert not os.path.exists(settings.workdir)


def test_the_last_smaller_batch_of_the_seed_preset(configured):
    settings = configured("seed", preset="seed", epochs=1, batch_size=40)
    run = loop.train(settings)
    assert run.progress.total_steps == 2
    assert lines(run.workdir)[-1]["learning_rate"] == pytest.approx(0.01)


def test_default_folders_tell_runs_apart():
    folders = [
        Config(model="vgg16").folder(),
        Config(model="vgg16", epochs=3).folder(),
        Config(model="vgg16", seed=1).folder(),
        Config(model="vgg16", bfloat16=True).folder(),
        Config(model="vgg16", dataset="cifar100").folder(),
        Config(model="vgg16", train_split="train[:90%]").folder(),
        Config(model="vgg16", train_split="train[90%:]").folder(),
        Config(model="vgg16", test_split="train[90%:]").folder(),
    ]
    assert len(set(folders)) == len(folders)
    assert str(folders[0]) == "runs/cifar10-vgg16-fast-seed0"


def test_a_chunk_of_steps_is_the_same_steps(configured):
    run = prepare(configured("chunk", model="narrow"))
    state = run.initial_state(0)
    results = []
    for steps in (1, 3):
        taken = jax.tree.map(jnp.copy, state)
        shapes, losses = [], []
        for chunk in Resident(run, state, steps).after(0):
            taken, measured = chunk.run(taken)
            shapes.append((chunk.steps, chunk.batch_size))
            losses += measured.loss.tolist()
        results.append((shapes, losses, taken))
    (ones, losses, taken), (threes, losses_of_chunk, taken_of_chunk) = results
    assert ones == [(1, 16)] * 4
    assert threes == [(3, 16), (1, 16)]
    np.testing.assert_allclose(losses, losses_of_chunk, rtol=1e-4)
    assert int(taken.step) == int(taken_of_chunk.step) == 4
