"""Networks by name: parameters and multiply-accumulates as published, widths that fit what was cut, dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.models import mobilenet, resnet
from nncompress_jax.models.network import shapes

IMAGES = jax.random.normal(jax.random.key(1), (4, 32, 32, 3))
VGG = {
    "vgg11": [(64, 1), (128, 1), (256, 2), (512, 2), (512, 2)],
    "vgg13": [(64, 2), (128, 2), (256, 2), (512, 2), (512, 2)],
    "vgg16": [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)],
    "vgg19": [(64, 2), (128, 2), (256, 4), (512, 4), (512, 4)],
}
"""Channels and convolutions of each stage; each ends with pooling."""

MOBILENET = [(1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]


class Sum:
    """Parameters and multiply-accumulates by the formulas of single layers."""

    def __init__(self):
        self.parameters = self.macs = 0

    def convolution(self, inputs, outputs, window, size, *, groups=1, bias=False, norm=True):
        kernel = window**2 * inputs * outputs // groups
        self.parameters += kernel + bias * outputs + norm * 2 * outputs
        self.macs += kernel * size**2

    def dense(self, inputs, outputs):
        self.parameters += inputs * outputs + outputs
        self.macs += inputs * outputs

    @property
    def both(self):
        return self.parameters, self.macs


def vgg(stages, widths, classes, *, size, maps, norm):
    total, inputs = Sum(), 3
    for channels, count in stages:
        for _ in range(count):
            total.convolution(inputs, channels, 3, size, bias=True, norm=norm)
            inputs = channels
        size //= 2
    inputs *= maps**2
    for width in (*widths, classes):
        total.dense(inputs, width)
        inputs = width
    return total.both


def residual(depth, widths, *, projection):
    total, size = Sum(), 32
    total.convolution(3, widths[0], 3, size)
    for stage, width in enumerate(widths):
        if stage:
            size //= 2
            total.convolution(widths[stage - 1], width, 3, size)
            if projection:
                total.convolution(widths[stage - 1], width, 1, size)
        for _ in range(2 * depth - (stage > 0)):
            total.convolution(width, width, 3, size)
    total.dense(widths[-1], 10)
    return total.both


def inverted(*, always_expands, projection):
    total, size, inputs = Sum(), 32, 32
    total.convolution(3, 32, 3, size)
    for expansion, channels, count, first in MOBILENET:
        for stride in [first] + [1] * (count - 1):
            hidden = expansion * inputs
            if expansion > 1 or always_expands:
                total.convolution(inputs, hidden, 1, size)
            size //= stride
            total.convolution(hidden, hidden, 3, size, groups=hidden)
            total.convolution(hidden, channels, 1, size)
            if projection and stride == 1 and inputs != channels:
                total.convolution(inputs, channels, 1, size)
            inputs = channels
    total.convolution(320, 1280, 1, size)
    total.dense(1280, 10)
    return total.both


def with_exits(network, channels):
    total = Sum()
    for count in channels:
        total.dense(16 * count, 10)
    return network[0] + total.parameters, network[1] + total.macs


EXPECTED = {
    **{name: vgg(stages, (), 10, size=32, maps=1, norm=True) for name, stages in VGG.items()},
    **{f"{name}_bn_cifar": vgg(VGG[name], (512, 512), 10, size=32, maps=1, norm=True) for name in VGG},
    **{f"{name}_torchvision": vgg(VGG[name], (4096, 4096), 1000, size=224, maps=7, norm=False) for name in VGG},
    **{f"{name}_bn_torchvision": vgg(VGG[name], (4096, 4096), 1000, size=224, maps=7, norm=True) for name in VGG},
    **{f"resnet{6 * n + 2}": residual(n, (16, 32, 64), projection=False) for n in (3, 5, 7, 9, 18)},
    **{f"resnet{6 * n + 2}_projection": residual(n, (16, 32, 64), projection=True) for n in (3, 5, 7, 9, 18)},
    "vgg16_exits": with_exits(vgg(VGG["vgg16"], (), 10, size=32, maps=1, norm=True), (128, 256, 256, 512)),
    "resnet56_exits": with_exits(residual(9, (16, 32, 64), projection=False), (16, 32, 32, 64)),
    "resnet18": residual(2, (64, 128, 256, 512), projection=True),
    "mobilenetv2": inverted(always_expands=True, projection=True),
    "mobilenetv2_x1_0": inverted(always_expands=False, projection=False),
}
PUBLISHED = {
    **{"resnet20": 0.27e6, "resnet32": 0.46e6, "resnet44": 0.66e6, "resnet56": 0.85e6, "resnet110": 1.7e6},
    **{"resnet20_projection": 272_474, "resnet18": 11_173_962, "mobilenetv2": 2_296_922},
    **{"mobilenetv2_x1_0": 2_236_682, "vgg16_torchvision": 138_357_544, "vgg16_bn_torchvision": 138_365_992},
}


def network_of(name):
    return nnc.models.create(name, num_classes=1000 if name.endswith("torchvision") else 10)


@pytest.mark.parametrize("name", EXPECTED)
def test_parameters_and_multiply_accumulates(name):
    network = network_of(name)
    size = network.image_size(None)
    cost = nnc.cost(network.apply, shapes(network, (size, size, 3)), jnp.zeros((1, size, size, 3)))
    assert (cost.parameters, cost.macs) == EXPECTED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_that_are_published(name):
    found, digits = EXPECTED[name][0], PUBLISHED[name]
    assert float(f"{found:.2g}") == digits if isinstance(digits, float) else found == digits


@pytest.mark.parametrize(("width", "millions"), [("x0_5", 0.70), ("x0_75", 1.37), ("x1_4", 4.33)])
def test_other_widths_of_mobilenet(width, millions):
    network = nnc.models.create(f"mobilenetv2_{width}")
    assert round(sum(x.size for x in jax.tree.leaves(shapes(network, (32, 32, 3))["params"])) / 1e6, 2) == millions


@pytest.mark.parametrize("name", [name for name in nnc.models.NAMES if "19" not in name and "110" not in name])
def test_logits_and_the_protocol(name):
    """Of any network: logits in both modes, its own variables fit, and it is float32 where it computes in bfloat16."""
    network = nnc.models.create(name, num_classes=7, dtype=jnp.bfloat16)
    variables = shapes(network, (32, 32, 3))
    assert nnc.models.fitting(nnc.models.create(name, dtype=jnp.bfloat16), variables) == network
    assert network.image_size(variables) == (224 if name.endswith("torchvision") else 32)
    others = list(variables.keys() - {"params"})

    def train(variables, images):
        return network.apply(variables, images, train=True, mutable=others, rngs={"dropout": jax.random.key(0)})

    outputs, updated = jax.eval_shape(train, variables, IMAGES)
    assert jax.tree.map(jnp.shape, updated) == jax.tree.map(jnp.shape, {name: variables[name] for name in others})
    assert outputs == jax.eval_shape(network.apply, variables, IMAGES)
    assert [logits.shape for logits in jax.tree.leaves(outputs)] == [(4, 7)] * (1 + len(network.exits))
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, outputs, updated))} == {jnp.dtype("float32")}


def drawn(network):
    random = np.random.default_rng(0)

    def leaf(path, x):
        name = path[-1].key
        if name in ("scale", "var"):
            return jnp.asarray(0.5 + random.random(x.shape, np.float32))
        deviation = (2 / np.prod(x.shape[:-1])) ** 0.5 if name == "kernel" else 0.1
        return jnp.asarray(deviation * random.standard_normal(x.shape, np.float32))

    return jax.tree_util.tree_map_with_path(leaf, shapes(network, (32, 32, 3)))


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("name", ["resnet20", "resnet20_projection", "mobilenetv2"])
def test_half_the_multiply_accumulates(name):
    network = nnc.models.create(name)
    variables = drawn(network)
    small = nnc.compress(variables, nnc.prune_channels(macs=0.5), apply=network.apply, batches=[IMAGES])
    shrunk = nnc.shrink(small)
    narrow = nnc.models.fitting(network, shrunk)
    share = nnc.cost(narrow.apply, shrunk, IMAGES).macs / nnc.cost(network.apply, variables, IMAGES).macs
    assert 0.48 < share < 0.52
    assert jax.tree.map(jnp.shape, dict(shapes(narrow, (32, 32, 3)))) == jax.tree.map(jnp.shape, dict(shrunk))
    expected = jax.jit(nnc.inject(network.apply))(small, IMAGES)
    assert relative(jax.jit(narrow.apply)(shrunk, IMAGES), expected) < 1e-4


@pytest.mark.parametrize("name", ["resnet20", "mobilenetv2"])
def test_integers(name):
    network = nnc.models.create(name)
    variables = drawn(network)
    small = nnc.compress(variables)
    report = nnc.int8_report(network.apply, small, IMAGES)
    assert {row.types.split()[0] for row in report.rows} == {"int8"}
    assert len(report.rows) == len([x for x in jax.tree.leaves(variables) if x.ndim > 1])
    expected = jax.jit(network.apply)(variables, IMAGES)
    assert relative(jax.jit(nnc.inject(network.apply))(small, IMAGES), expected) < 0.1


@pytest.mark.parametrize("name", ["vgg11_bn_cifar", "mobilenetv2_x0_5"])
def test_dropout(name):
    network = nnc.models.create(name)
    variables = drawn(network)

    @jax.jit
    def train(key):
        return network.apply(variables, IMAGES, train=True, mutable=["batch_stats"], rngs={"dropout": key})[0]

    first, second = train(jax.random.key(0)), train(jax.random.key(1))
    assert (first == train(jax.random.key(0))).all()
    assert relative(first, second) > 0.01


def test_zeros_behind_the_channels():
    x = np.arange(2 * 5 * 5 * 3, dtype=np.float32).reshape(2, 5, 5, 3)
    found = resnet.padded(jnp.asarray(x), 5, 2)
    assert found.shape == (2, 3, 3, 5)
    np.testing.assert_array_equal(found[..., :3], x[:, [0, 2, 4]][:, :, [0, 2, 4]])
    assert not found[..., 3:].any()


def test_widths_that_cannot_be():
    network = resnet.ResNet((resnet.Block(4, 2, 2, "padding"),), stem=4)
    with pytest.raises(nnc.InputError, match="a shortcut from 4 to 2 channels, expected no fewer than before"):
        shapes(network, (32, 32, 3))
    network = mobilenet.MobileNetV2((mobilenet.Block(4, 5, shortcut="identity"),), stem=4)
    with pytest.raises(nnc.InputError, match="a block of 5 channels beside a shortcut of 4; expected as many in both"):
        shapes(network, (32, 32, 3))
    with pytest.raises(nnc.InputError, match="unknown activation 'tanh'; choose one of relu, relu6"):
        shapes(network.copy(activation="tanh"), (32, 32, 3))
    for name, other in (("resnet20", "resnet32"), ("resnet20", "resnet20_projection"), ("mobilenetv2", "vgg11")):
        variables = shapes(nnc.models.create(other), (32, 32, 3))
        with pytest.raises(nnc.InputError, match="in one of the network and the variables, expected in both"):
            nnc.models.fitting(nnc.models.create(name), variables)


@pytest.mark.parametrize(("size", "fits"), [(32, True), (224, True), (448, True), (64, False), (96, False)])
def test_images_of_networks_that_pool_to_seven_pixels(size, fits):
    network = nnc.models.create("vgg11_torchvision", head=(8,), num_classes=3)
    if fits:
        assert shapes(network, (size, size, 3))["params"]["Dense_0"]["kernel"].shape == (7 * 7 * 512, 8)
        return
    with pytest.raises(nnc.InputError, match=f"images are {size} high, expected 32 or a multiple of 224"):
        shapes(network, (size, size, 3))


@pytest.mark.parametrize("shape", [(32, 32, 3), (1, 32, 16, 3)])
def test_images_of_other_shapes(shape):
    with pytest.raises(nnc.InputError, match=r"images are .*, expected \[B, H, H, I\]"):
        jax.eval_shape(nnc.models.create("resnet20").init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
