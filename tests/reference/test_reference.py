"""The imported checkpoints of the original network class, on all 10,000 test images of `cifar10_jpeg`.

Needs NNCOMPRESS_REFERENCE (a folder with checkpoints/), NNCOMPRESS_DATA (a data_dir) and torch; skips without them.
"""

import os
from pathlib import Path

import jax
import pytest

import nncompress_jax as nnc
from nncompress_jax.data import sources
from nncompress_jax.importers import torch as importer
from nncompress_jax.methods import minmax
from nncompress_jax.training.evaluation import evaluate
from nncompress_jax.training.mesh import data_mesh
from nncompress_jax.training.setup import preprocessing

pytestmark = pytest.mark.reference

# Correct of 10,000, by the original code: float, and its simulation at 8 bits in batches of 100.
CORRECT = {"vgg16": (8530, 8391), "vgg16ds": (8390, 8345), "vgg16ds_stride": (8251, 8018)}


def folder(variable):
    if not os.environ.get(variable):
        pytest.skip(f"{variable} is not set")
    return Path(os.environ[variable])


@pytest.fixture(scope="module")
def dataset():
    return sources.load("cifar10_jpeg", data_dir=str(folder("NNCOMPRESS_DATA")))


def count(name, dataset, *, simulated):
    pytest.importorskip("torch", reason="torch is not installed: make torch")
    variables = importer.load(folder("NNCOMPRESS_REFERENCE") / "checkpoints" / f"{name}.pth", model=name)
    apply = nnc.models.create(name).apply
    if simulated:
        apply, variables = minmax.simulate(apply, 8), minmax.quantize_variables(variables, 8)
    mesh = data_mesh(jax.devices()[:1])
    result = evaluate(apply, variables, dataset.test, preprocessing(dataset), batch_size=100, mesh=mesh)
    assert result.count == 10_000
    print(f"{name}, simulated {simulated}: {result.correct} correct, {result.images_per_second:.0f} images/s")
    return result.correct


@pytest.mark.parametrize("name", CORRECT)
def test_float_accuracy(name, dataset):
    assert abs(count(name, dataset, simulated=False) - CORRECT[name][0]) <= 2


@pytest.mark.parametrize("name", CORRECT)
def test_simulated_accuracy(name, dataset):
    assert abs(count(name, dataset, simulated=True) - CORRECT[name][1]) <= 30


def test_the_data_set_is_the_one_that_was_counted_on(dataset):
    assert (len(dataset.train), len(dataset.test)) == (50_000, 10_000)
    assert dataset.test.labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
