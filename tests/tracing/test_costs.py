"""Counts of the original's networks, and of programs whose counts are known by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import nncompress_jax as nnc

IMAGE = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
D = """1792 1769472 36928 37748736 73856 18874368 147584 37748736 295168 18874368 590080 37748736 590080 37748736
1180160 18874368 2359808 37748736 2359808 37748736 2359808 9437184 2359808 9437184 2359808 9437184 5130 5120"""
DSM = """1792 1769472 4800 4784128 8960 2244608 17792 4489216 34304 2170880 68352 4341760 68352 4341760
134144 2134016 267776 4268032 267776 4268032 267776 1067008 267776 1067008 267776 1067008 5130 5120"""


def network_cost(name, **options):
    network = nnc.models.create(name, **options)
    variables = jax.eval_shape(network.init, jax.random.key(0), IMAGE)
    return nnc.cost(network.apply, variables, IMAGE)


def multiplying(cost):
    return [(layer.parameters, layer.macs) for layer in cost.layers if layer.macs]


def pairs(text):
    numbers = [int(word) for word in text.split()]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


@pytest.mark.parametrize(
    ("name", "parameters", "without_batch_norm", "macs"),
    [
        ("vgg16", 14_728_266, 14_719_818, 313_201_664),
        ("vgg16ds", 1_698_378, 1_682_506, 38_018_048),
        ("vgg16ds_stride", 1_698_378, 1_682_506, 10_835_456),
    ],
)
def test_totals_of_the_original(name, parameters, without_batch_norm, macs):
    cost = network_cost(name)
    assert (cost.parameters, cost.macs) == (parameters, macs)
    assert sum(layer.parameters for layer in cost.layers if layer.macs) == without_batch_norm
    statistics = parameters - without_batch_norm  # a mean and a variance for each scale and bias
    assert cost.resident_bytes == 4 * (parameters + statistics)


def test_layers_of_vgg16():
    assert multiplying(network_cost("vgg16")) == pairs(D)


def test_blocks_of_vgg16ds():
    first, *rest, dense = multiplying(network_cost("vgg16ds"))
    blocks = [(a + c, b + d) for (a, b), (c, d) in zip(rest[::2], rest[1::2], strict=True)]
    assert [first, *blocks, dense] == pairs(DSM)


def test_batch_norm_rows_follow_their_convolutions():
    convolution, norm, *_ = network_cost("vgg16").layers
    assert (convolution.path, norm.path) == ("Conv_0", "BatchNorm_0")
    assert convolution.output_shape == norm.output_shape == (1, 32, 32, 64)
    assert (norm.parameters, norm.macs, norm.resident_bytes) == (128, 0, 1024)


def test_macs_are_for_one_example():
    kernel = {"kernel": jnp.ones((8, 5))}
    assert {nnc.cost(lambda w, x: x @ w["kernel"], kernel, jnp.ones((b, 8))).macs for b in (1, 3)} == {40}


def test_scan_counts_every_turn_and_cond_its_dearest_branch():
    weights = {"layers": {"kernel": jnp.ones((6, 4, 4))}}

    def scanned(w, x):
        return jax.lax.scan(lambda x, kernel: (jnp.tanh(x @ kernel), None), x, w["layers"]["kernel"])[0]

    cost = nnc.cost(jax.jit(scanned), weights, jnp.ones((2, 4)))
    assert cost.macs == 6 * 16
    assert [(layer.path, layer.parameters) for layer in cost.layers] == [("layers", 96)]

    def chosen(w, x):
        return jax.lax.cond(x.sum() > 0, lambda x: x @ w["layers"]["kernel"][0], lambda x: x, x)

    assert nnc.cost(chosen, weights, jnp.ones((2, 4))).macs == 16


def test_attention_counts_products_of_data():
    attention = nn.MultiHeadDotProductAttention(num_heads=2)
    x = jnp.ones((1, 5, 8))
    variables = attention.init(jax.random.key(0), x)
    layers = {layer.path: layer.macs for layer in nnc.cost(attention.apply, variables, x).layers}
    assert layers == {"query": 320, "key": 320, "value": 320, "out": 320, "": 2 * 5 * 5 * 8}


def test_nnx_modules_and_transposed_convolutions():
    graph, state = nnx.split(nnx.ConvTranspose(3, 6, kernel_size=(2, 2), strides=(2, 2), rngs=nnx.Rngs(0)))
    cost = nnc.cost(lambda state, x: nnx.merge(graph, state)(x), state, jnp.ones((1, 4, 4, 3)))
    assert cost.macs == 16 * 4 * 3 * 6
    assert cost.parameters == 4 * 3 * 6 + 6


def test_remat_and_custom_derivatives_are_seen_through():
    @jax.custom_vjp
    def product(x, kernel):
        return x @ kernel

    product.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), lambda saved, g: (g @ saved[1].T, saved[0].T @ g))

    def apply(w, x):
        return jax.checkpoint(lambda x: jax.nn.relu(product(x, w["kernel"])))(x)

    cost = nnc.cost(apply, {"kernel": jnp.ones((3, 7))}, jnp.ones((1, 3)))
    assert [(layer.path, layer.operation, layer.macs) for layer in cost.layers] == [("kernel", "dot", 21)]


def test_gradients_count_what_they_multiply():
    """Of a convolution that keeps its size both gradients take as many multiply-accumulates as itself, here 9 * 64."""
    kernel, images = jnp.ones((3, 3, 4, 8)), jnp.ones((2, 6, 6, 4))

    def convolved(weights, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, weights["kernel"], (1, 1), "SAME", dimension_numbers=numbers)

    def gradients(weights, x):
        run = nnc.inject(convolved, fast=True)
        return nnc.value_and_grad(lambda weights, x: jnp.sum(run(weights, x) ** 2))(weights, x)

    def of_images(weights, x):
        return jax.grad(lambda x: jnp.sum(nnc.inject(convolved)(weights, x) ** 2))(x)

    forward = 6 * 6 * 9 * 4 * 8
    weights = {"kernel": kernel}
    assert nnc.cost(convolved, weights, images).macs == forward
    assert nnc.cost(gradients, weights, images).macs == 2 * forward
    assert nnc.cost(of_images, nnc.compress(weights), images).macs == 2 * forward
