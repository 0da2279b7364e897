"""Every type of weight, in its own size where ONNX has a form for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.export.onnx import StoredDense
from tests import zoo
from tests.export.runtime import exported, kernels, same

BYTES = {
    # method, bytes of the file for each weight, at most
    "floats": (nnc.chain(), 4),
    "8 bits": (nnc.quantize(inputs=False), 1),
    "a step": (nnc.quantize(step=0.02, inputs=False), 1),
    "4 bits": (nnc.quantize(bits=4, inputs=False), 0.5),
    "2 bits": (nnc.quantize(bits=2, inputs=False), 0.5),
    "16 clusters": (nnc.cluster(bits=4), 0.5),
    "256 clusters": (nnc.cluster(bits=8), 1),
    "clusters by channel": (nnc.cluster(bits=4, by_channel=True), 4),
    "signs": (nnc.binarize(), 0.5),
    "zeros": (nnc.prune(sparsity=0.9), 4),
    "factors": (nnc.factorize(macs=0.3), 1.6),
    "factors of 8 bits": (nnc.chain(nnc.factorize(macs=0.3), nnc.quantize(inputs=False)), 0.7),
    "channels": (nnc.prune_channels(macs=0.3), 1.6),
    "channels of 8 bits": (nnc.chain(nnc.prune_channels(macs=0.3), nnc.quantize(inputs=False)), 0.5),
}


@pytest.fixture(scope="module")
def network():
    return zoo.of_linen(Wide())


class Wide(zoo.VGG):
    widths: tuple[int, ...] = (32, 64)

    @zoo.convolutional.nn.compact
    def __call__(self, x, train: bool = False):
        nn = zoo.convolutional.nn
        for width in self.widths:
            x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Conv(width, (3, 3))(x)))
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        return nn.Dense(5)(nn.relu(nn.Dense(64)(x.reshape((len(x), -1)))))


@pytest.mark.filterwarnings("ignore:.*integers in the file, multiplied as floats")
@pytest.mark.filterwarnings("ignore:.*the nearest that can be reached")
@pytest.mark.filterwarnings("ignore:.*sparse here, with all entries in the file")
@pytest.mark.parametrize("name", BYTES)
def test_types(name, network, tmp_path):
    method, bytes_of_each = BYTES[name]
    small = nnc.compress(network.variables, method, apply=network.apply, batches=[network.images])
    report = same(tmp_path, network.apply, small, network.images)
    count = sum(leaf.size for leaf in jax.tree.leaves(network.variables["params"]))
    assert report.size_bytes < bytes_of_each * count + 12_000  # names, biases, scales
    found = kernels(tmp_path)
    assert found["DequantizeLinear"] == found["Cast"] == 0  # nothing is decompressed with each call


def test_four_bits_run_on_integers(network, tmp_path):
    small = nnc.compress(network.variables, nnc.quantize(bits=4), apply=network.apply, batches=[network.images])
    _, report = exported(tmp_path, network.apply, small, network.images, batches=[network.images])
    assert (report.integer, report.others) == (4, 0)
    found = kernels(tmp_path)
    assert found["QLinearConv"] + found["QGemm"] == 4


def test_fewer_channels_are_a_narrower_network(network, tmp_path):
    method = nnc.chain(nnc.prune_channels(keep=0.5), nnc.quantize())
    small = nnc.compress(network.variables, method, apply=network.apply, batches=[network.images])
    run, report = exported(tmp_path, network.apply, small, network.images, batches=[network.images])
    assert (report.integer, report.others) == (4, 0)
    found = kernels(tmp_path)
    assert not {"Gather", "ScatterND", "Concat", "Where"} & found.keys()
    expected = np.asarray(jax.jit(nnc.inject(network.apply))(small, network.images))
    assert np.abs(run(network.images)[0] - expected).max() < 0.06 * np.abs(expected).max()


@pytest.mark.parametrize("factor", [-1.0, 0.0])
def test_scales_below_zero_and_zero(factor, tmp_path):
    """A weight that the network multiplies by a number keeps its codes and multiplies its scales."""
    random = np.random.default_rng(0)
    weights = {"w": jax.numpy.asarray(random.standard_normal((8, 6)), "float32"), "bias": jax.numpy.arange(6.0)}
    x = random.standard_normal((16, 8)).astype(np.float32)

    def apply(v, x):
        return jax.nn.relu(x @ (v["w"] * factor) + v["bias"])

    small = nnc.compress(weights, nnc.quantize(where="w"), apply=apply, batches=[x])
    run, report = exported(tmp_path, apply, small, x, batches=[x])
    assert report.integer == 1
    expected = np.asarray(apply(weights, x))
    assert np.abs(run(x)[0] - expected).max() < 0.03 * expected.max()


def test_gains_below_zero_and_channels_of_zeros(tmp_path):
    network = zoo.ZOO["VGG"]()
    variables = jax.tree.map(lambda leaf: leaf, network.variables)
    scale = variables["params"]["BatchNorm_0"]["scale"]
    variables["params"]["BatchNorm_0"]["scale"] = scale.at[::2].multiply(-1)
    kernel = variables["params"]["Conv_1"]["kernel"]
    variables["params"]["Conv_1"]["kernel"] = kernel.at[..., 3].set(0)
    variables["params"]["BatchNorm_2"]["scale"] = variables["params"]["BatchNorm_2"]["scale"].at[1].set(0)
    small = nnc.compress(variables, nnc.quantize(), apply=network.apply, batches=[network.images])
    run, report = exported(tmp_path, network.apply, small, network.images, batches=[network.images])
    assert report.others == 0
    expected = np.asarray(network.apply(variables, network.images))
    assert np.abs(run(network.images)[0] - expected).max() < 0.1 * np.abs(expected).max()


def test_a_weight_that_meets_an_array_that_is_known(tmp_path):
    """What comes of it is no array of codes."""
    known, draw = np.ones((6, 5, 3), np.float32), np.random.default_rng(0).standard_normal
    weights = {"w": jnp.asarray(draw((4, 4, 3)), jnp.float32)}
    small = nnc.compress(weights, nnc.quantize(where="*", inputs=False))
    same(
        tmp_path, lambda v, x: x + jnp.einsum("nhw,ixw->nihx", v["w"], known), small, draw((2, 4, 6, 4, 5)).astype("f4")
    )


def test_sparse_weights_are_said_to_be_dense_there(network, tmp_path):
    small = nnc.compress(network.variables, nnc.prune(sparsity=0.9, where="*Dense_0/kernel"))
    with pytest.warns(StoredDense, match="^params/Dense_0/kernel: sparse here, with all entries"):
        exported(tmp_path, network.apply, small, network.images)
