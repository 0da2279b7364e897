"""Networks by jax.export: for several platforms, any number of examples, weights as arguments."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export

import nncompress_jax as nnc
from tests import zoo

METHODS = {
    "floats": nnc.chain(),
    "8 bits": nnc.quantize(),
    "static 8 bits": nnc.quantize(ranges=nnc.calibration.abs_max),
    "4 bits": nnc.quantize(bits=4),
    "clusters": nnc.cluster(bits=4),
    "zeros": nnc.prune(sparsity=0.9),
    "channels of 8 bits": nnc.chain(nnc.prune_channels(macs=0.5), nnc.quantize()),
}


@pytest.mark.filterwarnings("ignore:.*the nearest that can be reached")
@pytest.mark.parametrize(
    ("name", "method"), [*(("VGG", method) for method in METHODS), ("MobileNetV2", "8 bits"), ("ViT", "8 bits")]
)
def test_any_number_of_examples(name, method, tmp_path):
    network = zoo.ZOO[name]()
    apply, images = network.apply, network.images
    small = nnc.compress(network.variables, METHODS[method], apply=apply, batches=[images])
    exported = nnc.export_stablehlo(tmp_path / "a.hlo", apply, small, images)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    lines = exported.mlir_module().splitlines()
    products = [line for line in lines if "stablehlo.dot_general" in line or "stablehlo.convolution" in line]
    on_integers = [line for line in products if "xi8>" in line and "xi32>" in line]
    assert bool(on_integers) == ("bits" in method)
    again = export.deserialize(bytearray((tmp_path / "a.hlo").read_bytes()))
    for given in (images, jnp.concatenate([images] * 3)[:5]):
        expected = jax.jit(nnc.inject(apply))(small, given)
        np.testing.assert_allclose(again.call(small, given), expected, atol=1e-5 * float(abs(expected).max()))


def test_it_holds_no_weights(tmp_path):
    network = nnc.models.create("vgg16ds_stride")
    images = jnp.ones((2, 32, 32, 3))
    small = nnc.compress(network.init(jax.random.key(0), images))
    exported = nnc.export_stablehlo(tmp_path / "a.hlo", network.apply, small, images)
    assert (tmp_path / "a.hlo").stat().st_size < 0.1 * sum(leaf.nbytes for leaf in jax.tree.leaves(small))
    kernels = [aval for aval in exported.in_avals if aval.dtype == jnp.int8]
    assert len(kernels) == len(nnc.int8_report(network.apply, small, images).rows)


def test_code_that_asks_for_the_number_of_examples(tmp_path):
    """`len(x)` of an axis without a number is an error of Python, where it is traced so."""
    weights, x = {"w": jnp.ones((12, 2))}, jnp.ones((4, 3, 4))
    nnc.export_stablehlo(tmp_path / "a.hlo", lambda v, x: x.reshape(len(x), -1) @ v["w"], weights, x)
    again = export.deserialize(bytearray((tmp_path / "a.hlo").read_bytes()))
    assert again.call(weights, x[:3]).shape == (3, 2)


CALLED = """
import sys, jax, numpy as np, nncompress_jax as nnc
from pathlib import Path
again = jax.export.deserialize(bytearray(Path(sys.argv[1]).read_bytes()))
_, variables, _ = nnc.load(sys.argv[2])
np.save(sys.argv[4], again.call(variables, np.load(sys.argv[3])))
"""


def test_in_another_process(tmp_path):
    network = zoo.ZOO["VGG"]()
    small = nnc.compress(network.variables, nnc.quantize())
    nnc.export_stablehlo(tmp_path / "a.hlo", network.apply, small, network.images)
    nnc.save(tmp_path / "a.nnc", small)
    np.save(tmp_path / "x.npy", network.images)
    paths = [str(tmp_path / name) for name in ("a.hlo", "a.nnc", "x.npy", "y.npy")]
    subprocess.run([sys.executable, "-c", CALLED, *paths], check=True)
    expected = jax.jit(nnc.inject(network.apply))(small, network.images)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-5)


def test_other_containers(tmp_path):
    graph, state = nnx.split(nnx.Linear(3, 3, rngs=nnx.Rngs(0)))
    x = jnp.ones((2, 3))

    def apply(state, x):
        return nnx.merge(graph, state)(x)

    nnc.save(tmp_path / "a.nnc", state, apply=apply, example=x)
    nnc.export_stablehlo(tmp_path / "a.hlo", apply, state, x)
    _, variables, _ = nnc.load(tmp_path / "a.nnc")
    again = export.deserialize(bytearray((tmp_path / "a.hlo").read_bytes()))
    np.testing.assert_allclose(again.call(variables, x), apply(state, x), rtol=1e-6)


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(nnc.InputError, match="lu in .*: not in the list of operations"):
        nnc.export_stablehlo(tmp_path / "a.hlo", lambda v, x: jnp.linalg.solve(v, x.T).T, jnp.eye(3), jnp.ones((2, 3)))
    assert not (tmp_path / "a.hlo").exists()
