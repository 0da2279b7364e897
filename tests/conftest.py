"""Tests see one CPU device, as users do (those in `sharding/` see four); a prepared data set is at hand."""

import itertools
import json
import os
import sys
import time
from pathlib import Path

# Before jax starts. What a test compiled, other processes and later runs of the tests load.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(__file__).parents[1] / ".pytest_cache" / "compiled")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # jaxlib 0.10.1 complains of every program that it kept itself

import hypothesis
import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
import tyro  # noqa: F401  it looks at builtins, where doctests leave their last value
from matplotlib.figure import Figure

from tests import networks
from tests.prepared import labelled_images, write_prepared

collect_ignore = ["fuzz/guided.py"]  # needs atheris, and runs by hand
SECONDS_COMPILED = 7 * 24 * 3600
FINISHED = itertools.count(1)

# The same examples each time, whose programs are kept; make test-all draws new ones.
hypothesis.settings.register_profile("same", derandomize=True)
hypothesis.settings.load_profile("same")

GOLDEN = Path(__file__).parent / "golden"


def pytest_sessionstart(session):
    """Forgets what was compiled a week ago, so that the folder does not grow for ever."""
    if not hasattr(session.config, "workerinput"):
        for file in Path(os.environ["JAX_COMPILATION_CACHE_DIR"]).glob("*"):
            if file.stat().st_mtime < time.time() - SECONDS_COMPILED:
                file.unlink(missing_ok=True)


@pytest.fixture(autouse=True, scope="session")
def narrow_networks():
    """Known by name once tests run."""
    networks.register()


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Decoded images are kept in a folder of the test session."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def few_programs():
    """Linux grants a process 65,530 memory maps, and each compiled program holds some: now and then all are let go."""
    yield
    if next(FINISHED) % 100 == 0:
        jax.clear_caches()


@pytest.fixture
def called(monkeypatch, capsys):
    """Runs a command with these arguments; gives its exit code and what it printed on either stream."""

    def call(run, *arguments):
        monkeypatch.setattr(sys, "argv", [*arguments])
        try:
            run()
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def pictures(monkeypatch):
    """The figures that are saved, by their path."""
    saved, save = {}, Figure.savefig

    def kept(figure, path, **options):
        save(figure, path, **options)
        assert Path(path).read_bytes()[:4] == b"\x89PNG"
        saved[str(path)] = figure

    monkeypatch.setattr(Figure, "savefig", kept)
    return saved


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """A data_dir with `tiny`: 32x32 images of four classes, 64 to train on and 21 to test."""
    folder = tmp_path_factory.mktemp("prepared")
    features = {
        "image": tfds.features.Image(shape=(32, 32, 3)),
        "label": tfds.features.ClassLabel(names=["night", "dusk", "dawn", "day"]),
    }
    splits = {"train": labelled_images(64), "test": labelled_images(21, seed=1)}
    write_prepared(folder, "tiny", features, splits)
    return str(folder)


@pytest.fixture(scope="session")
def golden_state_dict():
    """State dicts by configuration, drawn as the reference vectors were."""
    described = json.loads((GOLDEN / "state_dict.json").read_text())

    def draw(configuration):
        random = np.random.default_rng(described["seed"])
        state_dict = {}
        for key, shape in described["state_dict"][configuration]["keys"]:
            if key.endswith("num_batches_tracked"):
                state_dict[key] = np.zeros((), np.int64)
            elif key.endswith("running_var") or (len(shape) == 1 and key.endswith("weight")):
                state_dict[key] = random.random(shape, np.float32) + np.float32(0.5)
            else:
                gain = {4: np.sqrt(2 / np.prod(shape[1:])), 2: np.sqrt(1 / shape[-1]), 1: 0.1}[len(shape)]
                state_dict[key] = random.standard_normal(shape, np.float32) * np.float32(gain)
        return state_dict

    return draw
