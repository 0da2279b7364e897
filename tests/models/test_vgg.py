"""The networks against reference logits of the original code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.importers import torch
from nncompress_jax.methods import minmax
from nncompress_jax.models import vgg
from tests.conftest import GOLDEN

CONFIGURATIONS = {"vgg16": "D", "vgg16ds": "D-DSM", "vgg16ds_stride": "D-DS"}


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_golden_logits(name, golden_state_dict):
    configuration = CONFIGURATIONS[name]
    golden = np.load(GOLDEN / f"vgg_{configuration}.npz")
    variables = torch.convert(golden_state_dict(configuration), model=name)
    apply = jax.jit(nnc.models.create(name).apply)
    images = jnp.asarray(golden["x"].transpose(0, 2, 3, 1))
    assert relative(apply(variables, images), golden["logits"]) < 1e-4
    quantize = jax.jit(minmax.quantize_variables, static_argnums=1)
    for bits in (4, 8):
        quantized = quantize(variables, bits)
        assert relative(apply(quantized, images), golden[f"logits_weights_{bits}bit"]) < 1e-3
    simulated = jax.jit(minmax.simulate(nnc.models.create(name).apply, 8))(quantized, images)
    assert relative(simulated, golden["logits_weights_activations_8bit"]) < 0.2


@pytest.mark.parametrize("name", ["vgg11", "vgg13", "vgg16", "vgg19", "vgg16ds", "vgg16ds_stride"])
@pytest.mark.parametrize("size", [32, 96])
def test_shapes(name, size):
    network = nnc.models.create(name, num_classes=7)
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), images)
    assert jax.eval_shape(network.apply, variables, images).shape == (2, 7)
    assert variables["params"]["Dense_0"]["kernel"].shape == ((size // 32) ** 2 * 512, 7)


@pytest.mark.parametrize("shape", [(1, 33, 33, 3), (1, 32, 64, 3), (32, 32, 3)])
def test_image_sizes_that_cannot_be(shape):
    network = nnc.models.create("vgg11")
    with pytest.raises(nnc.InputError, match="expected \\[B, H, H, I\\] with H divisible by 32"):
        jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))


def test_unknown_names():
    with pytest.raises(nnc.InputError, match="unknown model 'vgg17'; choose one of vgg11, "):
        nnc.models.create("vgg17")
    network = nnc.models.create("vgg11", initialization="zeros")
    with pytest.raises(nnc.InputError, match="unknown initialization 'zeros'"):
        jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


def test_initializations():
    images, blocks = jnp.zeros((1, 32, 32, 3)), vgg.configuration("64 M 128 M M M M")
    he = jax.jit(vgg.VGG(blocks).init)(jax.random.key(0), images)["params"]
    seed = jax.jit(vgg.VGG(blocks, initialization="seed").init)(jax.random.key(0), images)["params"]
    fan_in = 9 * 64
    np.testing.assert_allclose(he["Conv_1"]["kernel"].std(), np.sqrt(2 / fan_in), rtol=0.05)
    assert not he["Conv_1"]["bias"].any()
    assert (he["BatchNorm_1"]["scale"] == 1).all()
    for name in ("kernel", "bias"):  # uniform in +-1/sqrt(fan_in)
        largest = jnp.abs(seed["Conv_1"][name]).max()
        assert 0.9 / np.sqrt(fan_in) < largest <= 1 / np.sqrt(fan_in)
    scale = seed["BatchNorm_1"]["scale"]
    assert scale.min() >= 0
    assert scale.max() < 1
    assert 0.3 < scale.mean() < 0.7


def test_bfloat16_keeps_parameters_statistics_and_logits_in_float32():
    network = nnc.models.create("vgg11", dtype=jnp.bfloat16)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), images)
    logits, updated = jax.eval_shape(
        lambda v, x: network.apply(v, x, train=True, mutable=["batch_stats"]), variables, images
    )
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, logits, updated))} == {jnp.dtype("float32")}
    text = jax.jit(network.apply).lower(variables, images).as_text()
    assert "stablehlo.convolution" in text
    assert all("bf16" in line for line in text.splitlines() if "stablehlo.convolution" in line)
