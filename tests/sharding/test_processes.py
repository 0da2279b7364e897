"""One run on several processes: real ones, on this machine."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

import nncompress_jax as nnc
from nncompress_jax.training import checkpoint, loop, mesh, processes, setup
from nncompress_jax.training.config import Config
from tests.prepared import labelled_images, write_prepared

EPOCHS, STEPS = 6, 5  # 80 images in batches of 16
SETTINGS = {"model": "narrowest", "dataset": "eighty", "epochs": EPOCHS, "batch_size": 16, "learning_rate": 0.01}
PATIENCE_S = 300
LONGEST_WITHOUT_THE_OTHER_S = 60


@pytest.fixture(scope="module")
def eighty(tmp_path_factory):
    """A data_dir with `eighty`: 80 images of four classes to train on."""
    folder = tmp_path_factory.mktemp("eighty")
    features = {"image": tfds.features.Image(shape=(32, 32, 3)), "label": tfds.features.ClassLabel(num_classes=4)}
    write_prepared(folder, "eighty", features, {"train": labelled_images(80), "test": labelled_images(21, seed=1)})
    return str(folder)


@pytest.fixture(scope="module")
def on_one(eighty, tmp_path_factory):
    """The run on four devices of one process, every checkpoint kept."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    return loop.train(Config(**SETTINGS, data_dir=eighty, workdir=str(workdir), keep_last=EPOCHS))


@pytest.fixture
def start(eighty, tmp_path):
    """Starts the run on two processes of two devices each; what still runs at the end is killed."""
    started = []

    def both(workdir, *flags, of_second=(), devices=(2, 2), seconds_a_step=0.0, seconds_at_the_end=(0, 0)):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        where = [f"--data_dir={eighty}", f"--workdir={workdir}", "--keep_last=6", "--platform=cpu"]
        command = [sys.executable, "-m", "tests.training.command", *settings, *where, *flags]
        command += [f"--coordinator=127.0.0.1:{port}", "--processes=2"]
        pair = []
        for process in range(2):
            own = [f"--process={process}", *(of_second if process else ())]
            environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices[process]}"}
            environment["SECONDS_A_STEP"] = str(seconds_a_step)
            environment["SECONDS_AT_THE_END"] = str(seconds_at_the_end[process])
            with (tmp_path / f"{len(started)}.log").open("w") as log:
                pair.append(subprocess.Popen([*command, *own], env=environment, stdout=log, stderr=log))
            pair[-1].log = Path(log.name)
            started.append(pair[-1])
        return pair

    yield both
    for process in started:
        process.kill()
        process.wait()


def ends(pair):
    """Exit codes."""
    return [process.wait(PATIENCE_S) for process in pair]


def losses(workdir):
    return [json.loads(line)["train_loss"] for line in Path(workdir, "metrics.jsonl").read_text().splitlines()]


def at(run, step, place):
    """A copy of a run that has come to this step."""
    shutil.copytree(run, place)
    for folder in (place / "checkpoints").iterdir():
        if folder.name.isdigit() and int(folder.name) > step:
            shutil.rmtree(folder)
    return place


def params_after(run, step, place):
    leaves = jax.tree.leaves(checkpoint.restore(at(run, step, place))["params"])
    return np.concatenate([np.ravel(leaf) for leaf in leaves])


def until_step(pair, workdir, step):
    """Waits for a checkpoint."""
    begin = time.monotonic()
    folder = Path(workdir, "checkpoints")
    while not any(int(name) >= step for name in os.listdir(folder) if name.isdigit()):
        assert time.monotonic() - begin < PATIENCE_S
        assert all(process.poll() is None for process in pair), [process.log.read_text() for process in pair]
        time.sleep(0.05)


@pytest.mark.system
def test_two_processes_train_as_one(on_one, start, tmp_path):
    workdir = tmp_path / "two"
    pair = start(workdir, "--stream=True")
    assert ends(pair) == [0, 0], [process.log.read_text() for process in pair]
    assert "test accuracy" in pair[0].log.read_text()
    assert "accuracy" not in pair[1].log.read_text()  # the first one shows
    np.testing.assert_allclose(losses(workdir)[0], losses(on_one.workdir)[0], rtol=1e-4)
    np.testing.assert_allclose(losses(workdir), losses(on_one.workdir), rtol=1e-2)
    ours, theirs = (params_after(run, STEPS, tmp_path / f"at{i}") for i, run in enumerate((workdir, on_one.workdir)))
    assert np.linalg.norm(ours - theirs) <= 1e-4 * np.linalg.norm(theirs)


@pytest.mark.system
def test_one_that_dies_ends_the_other_and_both_go_on(on_one, start, tmp_path):
    workdir = at(on_one.workdir, STEPS, tmp_path / "run")  # of four devices, on two processes of two
    pair = start(workdir)
    until_step(pair, workdir, 2 * STEPS)
    pair[1].kill()
    assert pair[0].wait(LONGEST_WITHOUT_THE_OTHER_S) != 0
    assert re.search("process 0 lost another one .* start all of them again|another task died", pair[0].log.read_text())

    pair = start(workdir, seconds_a_step=0.3)  # they need a second to agree
    until_step(pair, workdir, 3 * STEPS)
    pair[1].send_signal(signal.SIGTERM)  # to one of them: all agree on a step
    assert ends(pair) == [75, 75], [process.log.read_text() for process in pair]
    saved = [re.search("saved at step (\\d+) of 30", process.log.read_text())[1] for process in pair]
    assert saved[0] == saved[1]

    pair = start(workdir)
    assert ends(pair) == [0, 0]
    assert f"goes on from step {saved[0]} of 30" in pair[0].log.read_text()
    np.testing.assert_allclose(losses(workdir), losses(on_one.workdir), rtol=1e-2)


def test_a_checkpoint_of_four_devices_goes_on_on_one(on_one, eighty, tmp_path, monkeypatch):
    workdir = at(on_one.workdir, STEPS, tmp_path / "run")
    monkeypatch.setattr(setup, "data_mesh", lambda: mesh.data_mesh(jax.devices()[:1]))
    run = loop.train(Config(**SETTINGS, data_dir=eighty, workdir=str(workdir)))
    assert run.progress.steps == EPOCHS * STEPS
    np.testing.assert_allclose(losses(workdir), losses(on_one.workdir), rtol=1e-2)


@pytest.mark.system
def test_the_odd_one_is_named(start, tmp_path):
    pair = start(tmp_path / "run", of_second=["--keep_last=7"])
    assert ends(pair) == [2, 2]
    expected = f"--keep_last: process 1 on {socket.gethostname()} has 7, 1 of 2 processes have 6; make them the same"
    assert all(expected in process.log.read_text() for process in pair)
    assert not (tmp_path / "run").exists()


@pytest.mark.system
@pytest.mark.parametrize("slower", [0, 1])
def test_one_that_has_fewer_devices(slower, start, tmp_path):
    pair = start(tmp_path / "run", devices=(2, 1), seconds_at_the_end=[(3, 0), (0, 3)][slower])
    assert ends(pair) == [2, 2]
    assert all("devices: process 1 has 1, 1 of 2 processes have 2" in process.log.read_text() for process in pair)


def test_the_odd_one_of_many():
    message = "code: process 2 on c has 0.1 ab, 3 of 4 processes have 0.1 cd; make them the same on all hosts"
    with pytest.raises(nnc.InputError, match=message):
        processes.compare("code", ["0.1 cd", "0.1 cd", "0.1 ab", "0.1 cd"], "abcd")


@pytest.mark.system
def test_a_folder_that_is_not_shared(start, tmp_path):
    pair = start(tmp_path / "run", of_second=[f"--workdir={tmp_path / 'other'}"])
    assert ends(pair) == [2, 2]
    assert "--workdir: process 1" in pair[1].log.read_text()


@pytest.mark.system
def test_a_platform_that_is_not_there(tmp_path):
    command = [sys.executable, "-m", "tests.training.command", "--model=narrow", f"--workdir={tmp_path / 'run'}"]
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    run = subprocess.run([*command, "--platform=tpu"], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "error: --platform=tpu: no such device can be used here (" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_flags_that_belong_together():
    with pytest.raises(nnc.InputError, match="--coordinator alone; expected --coordinator, --processes and --process"):
        processes.start(processes.Cluster(coordinator="127.0.0.1:1"))
