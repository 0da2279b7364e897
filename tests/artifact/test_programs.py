"""The network's own program in the file: without its code, the same bits."""

import re
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import nncompress_jax as nnc
from nncompress_jax.programs.operations import OPERATIONS
from tests import zoo
from tests.coupling.test_random_programs import SIDE, B, Network
from tests.fuzz import files

DATA = Path(__file__).parents[1] / "data"


def saved(tmp_path, variables, apply, example, **options):
    """What comes back of a file."""
    nnc.save(tmp_path / "a.nnc", variables, apply=apply, example=example, **options)
    return nnc.load(tmp_path / "a.nnc")


def same(found, expected):
    """All leaves are the same bits."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def of(apply):
    return jax.jit(nnc.inject(apply))


@pytest.mark.parametrize("name", zoo.ZOO)
def test_the_zoo(name, tmp_path):
    network = zoo.ZOO[name]()
    apply, variables, _ = saved(tmp_path, network.variables, network.apply, network.images)
    images = jnp.concatenate([network.images, network.images[:1] * 0.3])  # three, where the example has two
    same(jax.jit(apply)(variables, images), jax.jit(network.apply)(network.variables, images))


@pytest.mark.parametrize("seed", range(12))
def test_random_programs(seed, tmp_path):
    network = Network(seed)
    images = jnp.asarray(np.random.default_rng(seed).standard_normal((B, SIDE, SIDE, 3)), jnp.float32)
    apply, variables, _ = saved(tmp_path, network.weights, network, images, any_batch=False)
    same(jax.jit(apply)(variables, images), jax.jit(network)(network.weights, images))


@pytest.mark.parametrize("name", ["VGG", "ViT", "VGG in NNX"])
def test_eight_bits(name, tmp_path):
    network = zoo.ZOO[name]()
    small = nnc.compress(network.variables, nnc.quantize())
    apply, variables, _ = saved(tmp_path, small, network.apply, network.images)
    same(jax.jit(apply)(variables, network.images[:1]), of(network.apply)(small, network.images[:1]))


METHODS = {
    "4 bits": nnc.quantize(bits=4),
    "trained 4 bits": nnc.fake_quantize(bits=4),
    "clusters": nnc.cluster(bits=4),
    "signs": nnc.binarize(),
    "zeros": nnc.prune(sparsity=0.9),
    "2:4": nnc.prune(pattern=(2, 4), where="*Conv_1/kernel"),
    "factors": nnc.factorize(macs=0.5),
    "channels": nnc.prune_channels(macs=0.5),
    "channels, zeros, clusters": nnc.chain(nnc.prune_channels(macs=0.5), nnc.prune(sparsity=0.5), nnc.cluster(bits=4)),
}


@pytest.mark.filterwarnings("ignore:.*the nearest that can be reached")
@pytest.mark.parametrize("name", METHODS)
def test_types_of_weights(name, tmp_path):
    network = zoo.ZOO["VGG"]()
    small = nnc.compress(network.variables, METHODS[name], apply=network.apply, batches=[network.images])
    apply, variables, _ = saved(tmp_path, small, network.apply, network.images)
    same(jax.jit(apply)(variables, network.images), of(network.apply)(small, network.images))


@pytest.mark.parametrize("name", ["VGG", "ViT"])
def test_gradients(name, tmp_path):
    """That of a ReLU is zero at zero, as where all inputs are."""
    network = zoo.ZOO[name]()
    apply, variables, _ = saved(tmp_path, network.variables, network.apply, network.images)

    def gradients(apply, variables, images):
        return jax.jit(jax.grad(lambda variables: (apply(variables, images) ** 2).sum()))(variables)

    for images in (network.images, jnp.zeros_like(network.images)):
        same(gradients(apply, variables, images), gradients(network.apply, network.variables, images))


def test_a_relu_has_no_gradient_at_zero(tmp_path):
    def network(weights, x):
        return nn.relu(x * weights) + nn.relu6(6 + x * weights) + jnp.logaddexp(x * weights, x)

    weights, x = jnp.ones(3), jnp.zeros((2, 3))
    apply, variables, _ = saved(tmp_path, {"w": weights}, lambda v, x: network(v["w"], x), x)
    found = jax.grad(lambda x: apply(variables, x).sum())(x)
    same(found, jax.grad(lambda x: network(weights, x).sum())(x))
    assert (found == 1).all()  # 0 + 0 + (1 + 1) / 2


@pytest.mark.filterwarnings("ignore:.*the nearest that can be reached")
def test_methods_take_it(tmp_path):
    """Channels, batches, cost and ONNX see the same network."""
    network = zoo.ZOO["VGG"]()
    apply, variables, _ = saved(tmp_path, network.variables, network.apply, network.images)
    method = nnc.chain(nnc.prune_channels(macs=0.5), nnc.quantize(ranges=nnc.calibration.abs_max))
    small = nnc.compress(variables, method, apply=apply, batches=[network.images])
    expected = nnc.compress(network.variables, method, apply=network.apply, batches=[network.images])
    same(small, expected)
    found = nnc.cost(apply, small, network.images)
    assert found.macs == nnc.cost(network.apply, expected, network.images).macs
    exported = nnc.export_onnx(tmp_path / "a.onnx", apply, small, network.images, batches=[network.images])
    assert exported.integer == len(nnc.int8_report(network.apply, expected, network.images).rows)


def test_training_mode(tmp_path):
    """Batch statistics, which divide by the number of examples, and dropout, which draws random numbers."""

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.BatchNorm(use_running_average=not train)(nn.Conv(8, (3, 3))(x))
            return nn.Dense(5)(nn.Dropout(0.5, deterministic=not train)(nn.relu(x)).mean((1, 2)))

    module = Network()

    def train(variables, images, key):
        return module.apply(variables, images, train=True, rngs={"dropout": key}, mutable=["batch_stats"])

    images = zoo.images_of(8)
    variables = module.init(jax.random.key(0), images)
    small = nnc.compress(variables, nnc.quantize())
    saved(tmp_path, small, module.apply, images, train=train)
    apply, small, _ = nnc.load(tmp_path / "a.nnc", train=True)
    for seed, batch in enumerate((images, images[:1], jnp.concatenate([images] * 4))):
        given = batch, jax.random.key(seed)
        same(jax.jit(apply)(small, *given), of(train)(small, *given))
    assert not jnp.array_equal(apply(small, images, jax.random.key(4))[0], apply(small, images, jax.random.key(5))[0])


def test_loops_and_branches(tmp_path):
    def network(weights, tokens, lengths):
        x = weights["table"][tokens]

        def turn(carry, layer):
            x, count = carry
            y = lax.cond(count % 2 == 0, lambda x: jnp.tanh(x @ layer), lambda x: x - x.mean(-1, keepdims=True), x)
            return (x + y, count + 1), y.max()

        (x, _), largest = lax.scan(turn, (x, 0), weights["layers"], reverse=True)
        mask = jnp.arange(tokens.shape[1]) < lengths[:, None]
        x = jnp.where(mask[..., None], x, -jnp.inf)
        best, places = lax.top_k(x.max(1), 2)
        return {"largest": largest, "found": (best, [places, jnp.sort(x[:, 0])], None)}

    draw = np.random.default_rng(0).standard_normal
    weights = {"table": jnp.asarray(draw((11, 6)), jnp.float32), "layers": jnp.asarray(draw((3, 6, 6)), jnp.float32)}
    tokens, lengths = jnp.arange(20).reshape(4, 5) % 11, jnp.array([5, 1, 2, 4])
    apply, again, _ = saved(tmp_path, weights, network, (tokens, lengths))
    for count in (1, 2, 4):
        given = tokens[:count], lengths[:count]
        same(jax.jit(apply)(again, *given), jax.jit(network)(weights, *given))


def test_a_scanned_network(tmp_path):
    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.relu(nn.Dense(8)(x)), None

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)()(x, None)[0]

    module, x = Network(), jnp.asarray(np.random.default_rng(0).standard_normal((4, 8)), jnp.float32)
    small = nnc.compress(module.init(jax.random.key(0), x), nnc.quantize())
    apply, variables, _ = saved(tmp_path, small, module.apply, x)
    same(jax.jit(apply)(variables, x), of(module.apply)(small, x))
    header, _ = files.split((tmp_path / "a.nnc").read_bytes())
    assert [name for name, *_ in header["program"]["operations"]].count("scan") == 1


def test_other_containers(tmp_path):
    """Variables of NNX come back as a dict by path, in the order in which the program takes them."""

    class Network(nnx.Module):
        def __init__(self, rngs):
            self.z = nnx.Linear(6, 6, rngs=rngs)
            self.a = nnx.List([nnx.Linear(6, 6, rngs=rngs) for _ in range(11)])

        def __call__(self, x):
            for layer in self.a:
                x = nnx.relu(layer(x))
            return self.z(x)

    graph, state = nnx.split(Network(nnx.Rngs(0)))
    x = jnp.ones((2, 6))

    def network(state, x):
        return nnx.merge(graph, state)(x)

    small = nnc.compress(state, nnc.quantize())
    apply, variables, _ = saved(tmp_path, small, network, x)
    assert set(variables) == {f"{layer}/{part}" for layer in ["z", *(f"a/{n}" for n in range(11))] for part in PARTS}
    same(jax.jit(apply)(variables, x), of(network)(small, x))
    pruned = nnc.compress(nnc.decompress(variables), nnc.prune(sparsity=0.5), apply=apply, batches=[x])
    assert apply(pruned, x).shape == (2, 6)
    apply, again, _ = nnc.load(tmp_path / "a.nnc", like=state)
    same(jax.jit(apply)(again, x), of(network)(small, x))


PARTS = ("kernel", "bias")


LOADED = """
import sys, numpy as np, jax, nncompress_jax as nnc
apply, variables, _ = nnc.load(sys.argv[1])
np.save(sys.argv[2], jax.jit(apply)(variables, np.load(sys.argv[3])))
assert not [name for name in sys.modules if name.split(".")[0] == "tests"]
"""


def test_another_process_needs_no_code_of_the_network(tmp_path):
    network = zoo.ZOO["ResNet"]()
    small = nnc.compress(network.variables, nnc.quantize())
    nnc.save(tmp_path / "a.nnc", small, apply=network.apply, example=network.images)
    np.save(tmp_path / "x.npy", network.images)
    paths = [str(tmp_path / name) for name in ("a.nnc", "y.npy", "x.npy")]
    subprocess.run([sys.executable, "-c", LOADED, *paths], check=True, cwd=tmp_path)
    same(np.load(tmp_path / "y.npy"), np.asarray(of(network.apply)(small, network.images)))


def test_its_size(tmp_path):
    network = nnc.models.create("vgg16")
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.ones((1, 32, 32, 3)))
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    nnc.save(tmp_path / "a.nnc", variables)
    nnc.save(tmp_path / "b.nnc", variables, apply=network.apply, example=jnp.ones((1, 32, 32, 3)))
    assert (tmp_path / "b.nnc").stat().st_size - (tmp_path / "a.nnc").stat().st_size < 2_000


def test_the_format_lists_the_operations():
    text = (DATA.parents[1] / "docs" / "format.md").read_text()
    rows = re.findall(r"^\| (`[^|]*`) \|([^|]*)\|$", text[text.index("| operation | parameters |") :], re.M)
    listed = {
        name: set(re.findall("`(\\S+)`", found)) for names, found in rows for name in re.findall("`(\\S+)`", names)
    }
    expected = {name: set(operation.params) for name, operation in OPERATIONS.items()}
    assert {name: listed.get(name) for name in expected} == expected


def test_files_of_version_2_load_for_ever():
    """Written by the first version that had programs: a network, its weights in 8 bits, and what it gave."""
    expected = np.load(DATA / "format-2.npz")
    apply, variables, info = nnc.load(DATA / "format-2.nnc")
    np.testing.assert_allclose(apply(variables, expected["x"]), expected["y"], rtol=1e-5, atol=1e-6)
    train, variables, _ = nnc.load(DATA / "format-2.nnc", train=True)
    outputs, updates = train(variables, expected["x"], jax.random.key(3))
    np.testing.assert_allclose(outputs, expected["outputs"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.tree.leaves(updates)[0], expected["mean"], rtol=1e-5, atol=1e-6)
    assert info.recipe == "quantize:8"
