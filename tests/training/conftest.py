"""Whole runs on little data."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from nncompress_jax.training import loop
from nncompress_jax.training.config import Config

CONFIG = Config(model="narrowest", dataset="tiny", epochs=3, batch_size=16, learning_rate=0.01)


@pytest.fixture(scope="session")
def configured(tiny_data, tmp_path_factory):
    """The configuration of a run, in a folder of its own."""

    def make(name, **changes):
        folder = tmp_path_factory.mktemp(name)
        return dataclasses.replace(CONFIG, data_dir=tiny_data, workdir=str(folder / "run"), **changes)

    return make


@pytest.fixture(scope="session")
def finished(configured):
    """A run of three epochs, from beginning to end."""
    return loop.train(configured("finished"))


@pytest.fixture(scope="session")
def streamed(configured):
    """The same run, on images that are read as it goes on."""
    return loop.train(configured("streamed", stream=True))


@pytest.fixture
def spoilt(finished, tmp_path):
    """A copy of the finished run that may be changed."""
    return Path(shutil.copytree(finished.workdir, tmp_path / "run"))
