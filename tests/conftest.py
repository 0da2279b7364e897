"""Every test sees eight CPU devices; a prepared data set is at hand."""

import json
import os
import sys
import tempfile
from pathlib import Path

# Before jax starts: the tests of one file run on eight devices where the code takes all of them.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"
# Several tests train the same networks: what one compiled, the others and the other worker processes load.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    compiled = tempfile.TemporaryDirectory(prefix="compiled-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled.name

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests import networks
from tests.prepared import labelled_images, write_prepared

collect_ignore = ["fuzz/guided.py"]  # needs atheris, and runs by hand

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True, scope="session")
def narrow_networks():
    """Known by name once tests run."""
    networks.register()


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Decoded images are kept in a folder of the test session."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


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
