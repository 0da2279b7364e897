"""The imported checkpoints of the original network class, on all 10,000 test images of `cifar10_jpeg`.

Needs NNCOMPRESS_REFERENCE (a folder with checkpoints/), NNCOMPRESS_DATA (a data_dir) and torch; skips without them.
"""

import functools
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
from nncompress_jax.training.setup import calibration_batches, preprocessing

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


@functools.cache
def network(name):
    pytest.importorskip("torch", reason="torch is not installed: make torch")
    path = folder("NNCOMPRESS_REFERENCE") / "checkpoints" / f"{name}.pth"
    return nnc.models.create(name).apply, importer.load(path, model=name)


def correct(apply, variables, dataset, description):
    mesh = data_mesh(jax.devices()[:1])
    result = evaluate(apply, variables, dataset.test, preprocessing(dataset), batch_size=100, mesh=mesh)
    assert result.count == 10_000
    print(f"{description}: {result.correct} correct, {result.images_per_second:.0f} images/s")
    return result.correct


@pytest.mark.parametrize("name", CORRECT)
def test_float_accuracy(name, dataset):
    assert abs(correct(*network(name), dataset, f"{name}, float") - CORRECT[name][0]) <= 2


@pytest.mark.parametrize("name", CORRECT)
def test_simulated_accuracy(name, dataset):
    apply, variables = network(name)
    apply, variables = minmax.simulate(apply, 8), minmax.quantize_variables(variables, 8)
    assert abs(correct(apply, variables, dataset, f"{name}, simulated") - CORRECT[name][1]) <= 30


@pytest.mark.parametrize("name", CORRECT)
def test_int8_accuracy(name, dataset):
    """Within 0.2 points of float where each image brings its ranges, 0.5 where they are static."""
    apply, variables = network(name)
    small = nnc.compress(variables)
    assert (
        abs(correct(nnc.inject(apply), small, dataset, f"{name}, int8, dynamic activations") - CORRECT[name][0]) <= 20
    )
    method = nnc.quantize(ranges=nnc.calibration.mean_squared_error)
    small = nnc.compress(variables, method, apply=apply, batches=calibration_batches(dataset, 10, 100))
    assert abs(correct(nnc.inject(apply), small, dataset, f"{name}, int8, static ranges") - CORRECT[name][0]) <= 50


def test_the_data_set_is_the_one_that_was_counted_on(dataset):
    assert (len(dataset.train), len(dataset.test)) == (50_000, 10_000)
    assert dataset.test.labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
