"""Networks as people write them: floats as they are, integers on integers."""

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import nncompress_jax as nnc
from tests import zoo
from tests.export.runtime import exported, kernels, same

INTEGER = ("QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat")
FLOAT = ("Conv", "FusedConv", "Gemm", "FusedGemm")


@pytest.mark.parametrize("name", zoo.ZOO)
def test_floats(name, tmp_path):
    network = zoo.ZOO[name]()
    same(tmp_path, network.apply, network.variables, network.images)


@pytest.mark.filterwarnings("ignore:UNet/ConvTranspose_0, UNet/ConvTranspose_1. integers in the file")
@pytest.mark.parametrize("ranges", [nnc.calibration.abs_max, None], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", zoo.ZOO)
def test_integers(name, ranges, tmp_path):
    network = zoo.ZOO[name]()
    apply, images = network.apply, network.images
    small = nnc.compress(network.variables, nnc.quantize(ranges=ranges), apply=apply, batches=[images])
    run, report = exported(tmp_path, apply, small, images, batches=[images])
    transposed = 2 if name == "U-Net" else 0  # onnxruntime has no transposed convolution on integers
    codes = len(nnc.int8_report(apply, small, images).rows) - transposed
    assert (report.integer, report.others) == (codes, transposed)
    found = kernels(tmp_path)
    assert sum(found[kernel] for kernel in INTEGER) == codes
    assert sum(found[kernel] for kernel in FLOAT) == 0
    floats, own = np.asarray(apply(network.variables, images)), jax.jit(nnc.inject(apply))(small, images)
    for expected in (floats, own):
        assert np.abs(run(images)[0] - expected).max() < 0.1 * np.abs(floats).max()


def test_seven_bits(tmp_path):
    """For processors on which sums of two products saturate: inputs that may be below zero have one bit less."""
    network = zoo.ZOO["ViT"]()
    apply, images = network.apply, network.images
    small = nnc.compress(network.variables, nnc.quantize(), apply=apply, batches=[images])
    largest = {}
    for reduced in (False, True):
        exported(tmp_path, apply, small, images, batches=[images], reduce_range=reduced)
        model = onnx.load(tmp_path / "network.onnx")
        constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
        rounded = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
        codes = [node for node in rounded if constants[node.input[2]] == 128]
        model.graph.output.extend(onnx.ValueInfoProto(name=node.output[0]) for node in codes)
        session = onnxruntime.InferenceSession(model.SerializeToString())
        found = session.run([node.output[0] for node in codes], {"input": np.asarray(images)})
        largest[reduced] = max(np.abs(each.astype(int) - 128).max() for each in found)
    assert largest[False] > 120  # rounding moves data beyond what was measured
    assert 60 < largest[True] < 68


def test_a_file_is_a_quarter_of_its_floats(tmp_path):
    network = nnc.models.create("vgg16ds_stride")
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    variables = zoo.drawn(jax.eval_shape(network.init, jax.random.key(0), images))
    small = nnc.compress(variables)
    _, report = exported(tmp_path, network.apply, small, images, batches=[images])
    assert report.size_bytes < 0.26 * sum(leaf.nbytes for leaf in jax.tree.leaves(variables))
