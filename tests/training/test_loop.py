"""Whole runs: interrupted, resumed, restored, refused."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.training import checkpoint, config, loop
from nncompress_jax.training.chunks import Chunks
from nncompress_jax.training.config import Config
from nncompress_jax.training.setup import prepare

CONFIG = Config(model="narrow", dataset="tiny", epochs=3, batch_size=16, learning_rate=0.01)


class InterruptionError(Exception):
    """Stands for the end of a machine."""


@pytest.fixture(scope="module")
def configured(tiny_data, tmp_path_factory):
    """The configuration of a run, in a folder of its own."""

    def make(name, **changes):
        folder = tmp_path_factory.mktemp(name)
        return dataclasses.replace(CONFIG, data_dir=tiny_data, workdir=str(folder / "run"), **changes)

    return make


@pytest.fixture(scope="module")
def finished(configured):
    """A run of three epochs, from beginning to end."""
    return loop.train(configured("finished"))


@pytest.fixture
def spoilt(finished, tmp_path):
    """A copy of the finished run that may be changed."""
    return Path(shutil.copytree(finished.workdir, tmp_path / "run"))


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_what_a_run_leaves(finished):
    assert finished.progress.steps == finished.progress.total_steps == 12
    assert finished.progress.training_seconds > 0
    assert finished.evaluation.count == 21
    assert [line["step"] for line in lines(finished.workdir)] == [4, 8, 12]
    assert lines(finished.workdir)[-1]["test_accuracy"] == finished.evaluation.accuracy
    assert list(finished.workdir.glob("events.out.tfevents.*"))


def assert_equal(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, checkpoint.restore(ours), checkpoint.restore(theirs))


def test_a_run_interrupted_after_an_epoch_ends_as_if_it_had_not_been(finished, spoilt, configured, monkeypatch):
    settings = configured("interrupted")
    run_epoch = loop._run_epoch

    def stopping(setup, programs, state, epoch, bar):
        if epoch == 2:
            raise InterruptionError
        return run_epoch(setup, programs, state, epoch, bar)

    monkeypatch.setattr(loop, "_run_epoch", stopping)
    with pytest.raises(InterruptionError):
        loop.train(settings)
    interrupted = checkpoint.load_progress(settings.workdir)
    assert interrupted.steps == 8
    # Saving went on in the background while the next epoch's steps took the saved state's memory.
    shutil.rmtree(spoilt / "checkpoints" / "12")
    assert_equal(settings.workdir, spoilt)
    # What was written beyond the checkpoint is dropped.
    with Path(settings.workdir, "metrics.jsonl").open("a") as file:
        file.write('{"step": 11, "train_loss": 0}\n{"step": 1')

    monkeypatch.undo()
    run = loop.train(settings)
    assert [line["step"] for line in lines(run.workdir)] == [4, 8, 12]
    assert_equal(run.workdir, finished.workdir)
    assert run.progress.training_seconds > interrupted.training_seconds


def test_a_finished_run_is_only_tested(finished, monkeypatch):
    monkeypatch.setattr(loop, "_run_epoch", None)
    again = loop.train(config.read(finished.workdir))
    assert again.evaluation.confusion.tolist() == finished.evaluation.confusion.tolist()
    assert again.progress == finished.progress


def test_restore_puts_the_variables_on_one_device(finished):
    variables = checkpoint.restore(finished.workdir)
    assert {len(leaf.devices()) for leaf in jax.tree.leaves(variables)} == {1}
    network = checkpoint.network(finished.workdir)
    assert network.num_classes == 4
    assert network.apply(variables, np.zeros((1, 32, 32, 3), np.float32)).shape == (1, 4)


def test_a_workdir_of_another_run(finished):
    settings = config.read(finished.workdir)
    for name, value in {"model": "vgg13", "epochs": 7, "seed": 1}.items():
        theirs = getattr(settings, name)
        message = f"holds a run of {name}={theirs}, not {value}; choose another --workdir, or --{name}={theirs}"
        with pytest.raises(nnc.InputError, match=message):
            loop.train(dataclasses.replace(settings, **{name: value}))


def test_a_truncated_checkpoint(spoilt):
    latest = spoilt / "checkpoints" / "12"
    for file in latest.rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(nnc.InputError, match="checkpoints/12: damaged checkpoint .*; delete that folder to go on"):
        checkpoint.restore(spoilt)


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
        ({"batch_size": 0}, "batch_size=0: expected more than 0"),
        ({"batch_size": 12}, "batch_size=12: expected a positive multiple of the 8 devices"),
        ({"batch_size": 128}, "batch_size=128: expected at most 64, the training images"),
        ({"learning_rate": float("nan")}, "learning_rate=nan: expected more than 0"),
        ({"recipe": "slow"}, "unknown recipe 'slow'"),
        ({"model": "vgg17"}, "unknown model 'vgg17'"),
        ({"dataset": "tinier"}, "unknown data set 'tinier'"),
    ],
)
def test_settings_that_cannot_be(configured, changes, message):
    settings = configured("refused", **changes)
    with pytest.raises(nnc.InputError, match=message):
        loop.train(settings)
    assert not os.path.exists(settings.workdir)


def test_the_last_smaller_batch_of_the_seed_recipe(configured):
    settings = configured("seed", recipe="seed", epochs=1, batch_size=40)
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
    ]
    assert len(set(folders)) == len(folders)
    assert str(folders[0]) == "runs/cifar10-vgg16-fast-seed0"


def test_a_chunk_of_steps_is_the_same_steps(configured):
    run = prepare(configured("chunk", model="narrow"))
    state = run.initial_state(0)
    results = []
    for steps in (1, 3):
        chunks, taken = Chunks(run, state, steps), jax.tree.map(jnp.copy, state)
        shapes, losses = [], []
        for program, rows in chunks.of(0):
            taken, measured = program(taken, rows)
            shapes.append(rows.shape)
            losses += measured.loss.tolist()
        results.append((shapes, losses, taken))
    (ones, losses, taken), (threes, losses_of_chunk, taken_of_chunk) = results
    assert ones == [(1, 16)] * 4
    assert threes == [(3, 16), (1, 16)]
    np.testing.assert_allclose(losses, losses_of_chunk, rtol=1e-4)
    assert int(taken.step) == int(taken_of_chunk.step) == 4
