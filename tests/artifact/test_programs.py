"""The network's own program in the file: without its code, the same bits."""

import functools
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import nncompress_jax as nnc
from nncompress_jax.artifact.contents import contents
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
    assert "scan" in (tmp_path / "a.nnc").read_bytes().decode("latin1") or "scan" in str(header_of(tmp_path / "a.nnc"))


def header_of(path):
    return files.split(path.read_bytes())[0]


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


def test_constants_are_kept_exactly(tmp_path):
    table = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    weights, x = {"w": jnp.ones((5, 4)) / 3}, jnp.ones((2, 5, 4))

    def network(weights, x):
        return x * weights["w"].astype(jnp.float32) + table

    nnc.save(tmp_path / "a.nnc", weights, apply=network, example=x, floats="bfloat16")
    apply, again, _ = nnc.load(tmp_path / "a.nnc")
    assert not jnp.array_equal(again["w"], weights["w"])
    same(apply({"w": jnp.zeros((5, 4))}, x)[0], jnp.asarray(table))
    assert [row["weight"] for row in contents(tmp_path / "a.nnc")[1].rows[:2]] == ["w", "program/constants/0"]


def test_numbers_of_python_belong_to_the_program(tmp_path):
    weights, x = {"w": jnp.ones(3), "factor": 2.0}, jnp.ones((2, 3))
    apply, again, _ = saved(tmp_path, weights, lambda v, x: x * v["w"] * v["factor"], x)
    same(apply(again, x), 2 * x)
    with pytest.raises(nnc.InputError, match=r"variables: factor is 3.0, expected 2.0, as the program has it"):
        apply(again | {"factor": 3.0}, x)


def test_one_number_of_examples(tmp_path):
    def network(weights, x):
        return x.reshape(4, -1) @ weights["w"]

    weights, x = {"w": jnp.ones((6, 2))}, jnp.ones((8, 3))
    message = "a size of .* examples, and of .*; give any_batch=False|reshape"
    with pytest.raises(nnc.InputError, match=message):
        nnc.save(tmp_path / "a.nnc", weights, apply=network, example=x)
    assert not (tmp_path / "a.nnc").exists()
    apply, again, _ = saved(tmp_path, weights, network, x, any_batch=False)
    same(apply(again, x), network(weights, x))
    with pytest.raises(nnc.InputError, match=r"input 0: float32\[4, 3\], expected float32\[8, 3\]"):
        apply(again, x[:4])


class Pair(NamedTuple):
    x: jax.Array
    y: jax.Array


def loop(weights, x):
    return lax.while_loop(lambda x: x.sum() < 100, lambda x: x * weights["w"], x)


def solved(weights, x):
    return jnp.linalg.solve(weights["w"], x[..., None])[..., 0]


WRONG = {
    "a loop": (loop, {"w": jnp.full(3, 2.0)}, "while in apply: a loop without a fixed number of turns"),
    "an object": (lambda v, x: Pair(x * v["w"], x), {"w": jnp.ones(3)}, "apply returns a Pair; expected"),
    "an order": (
        lambda v, x: x[: len(x) // 2] * v["w"],
        {"w": jnp.ones(3)},
        "a size of 1 with 2 examples, and of 64 with 128; give any_batch=False",
    ),
    "a solver": (
        solved,
        {"w": jnp.eye(3)},
        "lu in .*: not in the list of operations",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_written(name, tmp_path):
    network, weights, message = WRONG[name]
    with pytest.raises(nnc.InputError, match=message) as error:
        nnc.save(tmp_path / "a.nnc", weights, apply=network, example=jnp.ones((4, 3)))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "a.nnc").exists()


def test_a_derivative_of_its_own_that_no_file_holds(tmp_path):
    @jax.custom_vjp
    def rounded(x):
        return jnp.round(x)

    rounded.defvjp(lambda x: (jnp.round(x), None), lambda _, g: (g,))
    weights, x = {"w": jnp.full(3, 1.3)}, jnp.ones((2, 3))
    apply, again, _ = saved(tmp_path, weights, lambda v, x: rounded(x * v["w"]), x)
    same(apply(again, x), jnp.ones((2, 3)))
    with pytest.raises(nnc.InputError, match="a function with a derivative of its own, which the file does not hold"):
        jax.grad(lambda v: apply(v, x).sum())(again)


def test_what_does_not_belong_to_it(tmp_path):
    weights, x = {"w": jnp.ones((3, 2))}, jnp.ones((2, 3))
    apply, again, _ = saved(tmp_path, weights, lambda v, x: x @ v["w"], x)
    with pytest.raises(nnc.InputError, match=r"variables: w is float32\[3, 4\], expected float32\[3, 2\]"):
        apply({"w": jnp.ones((3, 4))}, x)
    with pytest.raises(nnc.InputError, match=r"variables: w is none, expected float32\[3, 2\]"):
        apply({}, x)
    same(apply(again, np.ones((2, 3))), apply(again, x))  # float64, which JAX makes float32
    with pytest.raises(nnc.InputError, match=r"input 0: int32\[2, 3\], expected float32\[batch, 3\]"):
        apply(again, jnp.ones((2, 3), int))
    with pytest.raises(nnc.InputError, match=r"input 0: float32\[2, 4\], expected float32\[batch, 3\]"):
        apply(again, jnp.ones((2, 4)))
    with pytest.raises(nnc.InputError, match="inputs at 0, 1, expected 0"):
        apply(again, x, x)
    with pytest.raises(nnc.InputError, match="no program of training mode; save it with train="):
        nnc.load(tmp_path / "a.nnc", train=True)
    with pytest.raises(nnc.InputError, match="apply= without example=: expected inputs of it"):
        nnc.save(tmp_path / "b.nnc", weights, apply=lambda v, x: x)
    with pytest.raises(nnc.InputError, match="example= without apply=, to which it belongs"):
        nnc.save(tmp_path / "b.nnc", weights, example=x)


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


# What nobody should have written.

HOSTILE = {
    "an operation": (("operations", 0, 0), "os.system", "operation os.system, which this library has none of"),
    "an attribute": (("operations", 0, 0), "__class__", "operation __class__, which this library has none of"),
    "an operand": (("operations", 0, 1, 0), 99, "value 99 of"),
    "one below": (("operations", 0, 1, 0), -1, "value -1 of"),
    "a constant": (("operations", 0, 1, 0), {"constant": 5}, "an operand of a program is described as"),
    "a type": (("inputs", 0, 1), "object", "an input of a program is described as"),
    "more variables": (("variables",), 7, "a program of 7 variables, where the file has 2"),
    "a module": (("operations", 0), ["neg", [0], {}, 4], "stands in module 4 of 1"),
    "a parameter": (("operations", 0, 2, "x"), 1, "operation dot_general of a program is described as"),
    "terabytes": (
        ("operations", 0),
        ["broadcast_in_dim", [0], {"shape": [2**20, 2**20, 4, 3], "broadcast_dimensions": [3]}],
        "a result of 52,776,558,133,248 bytes, more than",
    ),
    "for ever": (
        ("operations", 0),
        ["scan", [0], {"length": 2**21, "reverse": False, "constants": 0, "carried": 1, "body": {}}],
        "a loop of 2,097,152 turns, expected 1,048,576 at most",
    ),
    "a derivative": (("operations", 0), ["call", [0], {"derivative": "x", "body": {}}], "the derivative of x, which"),
    "a whole number": (("operations", 0, 1, 0), ["int8", 300], "an operand of a program is described as"),
    "sizes": (("operations", 0), ["reshape", [0], {"new_sizes": [2, 2]}], "an array of shape [3] as one of [2, 2]"),
    "below zero": (
        ("operations", 0),
        ["reshape", [0], {"new_sizes": [-3, -1]}],
        "operation reshape of a program is desc",
    ),
    "ranks": (("operations", 0), ["transpose", [0], {"permutation": [0, 1]}], "operation transpose of the program"),
}


@pytest.fixture
def whole(tmp_path):
    weights = {"b": jnp.ones(3), "w": jnp.ones((4, 3))}
    nnc.save(tmp_path / "a.nnc", weights, apply=lambda v, x: x @ v["w"] + v["b"], example=jnp.ones((2, 4)))
    return tmp_path / "a.nnc"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs(name, whole):
    place, value, message = HOSTILE[name]
    header, sections = files.split(whole.read_bytes())
    parent = functools.reduce(lambda node, key: node[key], place[:-1], header["program"])
    parent[place[-1]] = value
    whole.write_bytes(files.joined(header, sections))
    with pytest.raises(nnc.ArtifactError) as error:
        nnc.load(whole)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{whole}: damaged: ")
    assert "\n" not in str(error.value)


def test_programs_that_are_nested_too_deep(whole):
    header, sections = files.split(whole.read_bytes())
    body = {"operations": [], "results": [0]}
    for _ in range(40):
        body = {"operations": [["call", [0], {"body": body}]], "results": [0]}
    header["program"]["operations"][0] = ["call", [0], {"body": body}]
    whole.write_bytes(files.joined(header, sections))
    with pytest.raises(nnc.ArtifactError, match="at depth 17"):
        nnc.load(whole)


def test_loops_inside_of_loops_are_counted_together(whole):
    def loop(length, body):
        params = {"length": length, "reverse": False, "constants": 0, "carried": 1, "body": body}
        return {"operations": [["scan", [0], params]], "results": [0]}

    header, sections = files.split(whole.read_bytes())
    header["program"]["operations"][0] = loop(2**11, loop(2**11, {"operations": [], "results": [0]}))["operations"][0]
    whole.write_bytes(files.joined(header, sections))
    with pytest.raises(nnc.ArtifactError, match="a loop of 4,194,304 turns"):
        nnc.load(whole)


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
