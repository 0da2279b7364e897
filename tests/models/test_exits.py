"""Networks with early exits: their outputs, their variables, and how they are trained and tested."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax import losses
from nncompress_jax.commands.initial import initial_variables
from nncompress_jax.commands.teacher import objective_of
from nncompress_jax.models import VGG
from nncompress_jax.models.exits import with_exits
from nncompress_jax.models.network import shapes
from nncompress_jax.models.resnet import ResNet
from nncompress_jax.models.resnet import configuration as residual
from nncompress_jax.models.vgg import configuration
from nncompress_jax.training import checkpoint, config, loop, objective
from nncompress_jax.training.config import Config
from nncompress_jax.training.evaluation import evaluate
from nncompress_jax.training.setup import load_dataset, preprocessing
from tests.normalized import drawn

IMAGES = jnp.asarray(np.random.default_rng(1).standard_normal((4, 32, 32, 3), np.float32))
NETWORKS = {
    "vgg": VGG(configuration("8 M 16 M 16 M M M"), exits=(1, 3, 5)),
    "resnet": ResNet(residual((8, 16), 2, "padding"), stem=8, exits=(0, 2)),
}


def pooled(x, size):
    """Averages over windows, in float64."""
    side = x.shape[1] // size
    return np.asarray(x, np.float64).reshape(len(x), size, side, size, side, -1).mean((2, 4)).reshape(len(x), -1)


def variables_of(network):
    return drawn(shapes(network, (32, 32, 3)))


def test_exits_classify_the_averages_of_their_maps():
    """Against NumPy, on the maps of the first blocks: an exit of 16x16, one of 8x8, one of 4x4."""
    network = NETWORKS["vgg"]
    variables = variables_of(network)
    *early, _ = network.apply(variables, IMAGES)
    maps = IMAGES
    for number in range(3):
        conv, norm = variables["params"][f"Conv_{number}"], variables["params"][f"BatchNorm_{number}"]
        statistics = variables["batch_stats"][f"BatchNorm_{number}"]
        maps = jax.lax.conv_general_dilated(
            maps, conv["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        normal = (maps + conv["bias"] - statistics["mean"]) / jnp.sqrt(statistics["var"] + 1e-5)
        maps = jnp.maximum(normal * norm["scale"] + norm["bias"], 0)
        side = maps.shape[1] // 2
        maps = maps.reshape(4, side, 2, side, 2, -1).max((2, 4))
        dense = variables["params"][f"Exit_{number}"]
        expected = pooled(maps, 4) @ np.asarray(dense["kernel"], np.float64) + dense["bias"]
        np.testing.assert_allclose(early[number], expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("kind", NETWORKS)
def test_exits_leave_the_network_as_it_was(kind):
    """Those that begin at zero say nothing; the last output is the same, bit for bit."""
    network = NETWORKS[kind]
    trunk = network.copy(exits=())
    trained = variables_of(trunk)
    variables = with_exits(network, trained)
    assert jax.tree.structure(variables) == jax.tree.structure(dict(shapes(network, (32, 32, 3))))
    *early, logits = network.apply(variables, IMAGES)
    assert len(early) == len(network.exits)
    assert not any(np.asarray(output).any() for output in early)
    np.testing.assert_array_equal(logits, trunk.apply(trained, IMAGES))
    assert with_exits(network, variables) is variables
    assert with_exits(trunk, trained) is trained


@pytest.mark.parametrize("kind", NETWORKS)
def test_cut_channels(kind):
    """Exits lose the channels that are cut before them, and the narrow network is found by its widths."""
    network = NETWORKS[kind]
    variables = variables_of(network)
    small = nnc.compress(variables, nnc.prune_channels(keep=0.5), apply=network.apply, batches=[IMAGES])
    shrunk = nnc.shrink(small)
    narrow = nnc.models.fitting(network, shrunk)
    assert narrow.exits == network.exits
    assert narrow.stem < network.stem if kind == "resnet" else narrow.blocks[0].features == 4
    expected = jax.jit(nnc.inject(network.apply))(small, IMAGES)
    for found, each in zip(narrow.apply(shrunk, IMAGES), expected, strict=True):
        np.testing.assert_allclose(found, each, rtol=1e-3, atol=1e-3 * np.abs(each).max())
    assert with_exits(network, {**shrunk, "params": without(shrunk["params"])})["params"].keys() == (
        shrunk["params"].keys()
    )


def without(params):
    return {name: layer for name, layer in params.items() if not name.startswith("Exit_")}


def test_the_loss_is_the_mean_over_exits():
    outputs = tuple(jax.random.normal(jax.random.key(number), (5, 3)) for number in range(3))
    labels = jnp.arange(5) % 3
    found = objective.CLASSIFICATION.of(outputs, labels, inputs=None, features={}, given=None)
    each = [losses.cross_entropy(logits, labels) for logits in outputs]
    np.testing.assert_allclose(found, np.mean(each), rtol=1e-6)


CONFIG = Config(model="narrowest", dataset="tiny", epochs=2, batch_size=16, learning_rate=0.01)


@pytest.fixture(scope="module")
def whole(tiny_data, tmp_path_factory):
    """A run of the network without exits."""
    folder = str(tmp_path_factory.mktemp("whole") / "run")
    loop.train(dataclasses.replace(CONFIG, data_dir=tiny_data, workdir=folder))
    return folder


@pytest.mark.parametrize("options", [{}, {"teacher": "self"}, {"recipe": "channels:0.5+fake_quantize:8"}])
def test_exits_are_trained_on_top_of_a_network(whole, tmp_path, options):
    """From --init of the network without them; each exit learns, and the test counts the last."""
    begun = dataclasses.replace(
        config.read(whole), model="narrowest_exits", init=whole, workdir=str(tmp_path / "run"), **options
    )
    run = loop.train(begun, initial_variables(begun), objective_of(begun))
    variables = nnc.convert(checkpoint.restore(run.workdir))
    network = nnc.models.fitting(nnc.models.create("narrowest_exits", num_classes=4), variables)
    dataset = load_dataset(begun)
    preprocess = preprocessing(dataset)
    rows = np.arange(len(dataset.test))
    images, labels = dataset.test.read(rows)
    outputs = nnc.inject(network.apply)(variables, preprocess(jnp.asarray(images)))
    assert all(np.asarray(output).any() for output in outputs)
    assert run.evaluation.accuracy == np.mean(np.asarray(outputs[-1]).argmax(-1) == labels)
    assert evaluate(network.apply, variables, dataset.test, preprocess).accuracy == run.evaluation.accuracy
