"""Scripts by name, and a trained network."""

import functools
import runpy
from pathlib import Path

import pytest

from nncompress_jax.training.config import Config

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def command(called):
    """Runs a script by its name, as `called`."""

    def call(line):
        name, *flags = line.split()
        run = functools.partial(runpy.run_path, str(EXPERIMENTS / f"{name}.py"), run_name="__main__")
        return called(run, f"{name}.py", *flags)

    return call


@pytest.fixture(scope="module")
def workdir(tiny_data, tmp_path_factory):
    """A finished run on `tiny`."""
    from nncompress_jax.training.loop import train

    folder = str(tmp_path_factory.mktemp("runs") / "W")
    train(Config(model="narrow_stride", dataset="tiny", data_dir=tiny_data, epochs=1, batch_size=16, workdir=folder))
    return folder
