"""What is saved comes back: every type, to the last bit, in a file that is small."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import nncompress_jax as nnc
from nncompress_jax.artifact.reader import opened
from nncompress_jax.artifact.sections import entropy_bytes
from nncompress_jax.weights.base import is_compressed
from tests.weights.cases import WEIGHTS, draw


def saved(folder, variables, **named):
    """Through a file and back."""
    nnc.save(folder / "model.nnc", variables, **named)
    return nnc.load(folder / "model.nnc", apply=lambda v, x: x)


def assert_same(one, other):
    """The same types and static parts, and the same bits."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for first, second in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert (first.dtype, np.shape(first)) == (second.dtype, np.shape(second))
        assert np.asarray(first).tobytes() == np.asarray(second).tobytes()


@pytest.mark.parametrize("name", WEIGHTS)
def test_every_type(name, tmp_path):
    variables = {
        "a": {"kernel": WEIGHTS[name].make(draw((3, 3, 8, 16), 0))},
        "b": WEIGHTS[name].make(draw((20, 12), 1)),
    }
    assert all(map(is_compressed, (variables["a"]["kernel"], variables["b"])))
    assert_same(variables, saved(tmp_path, variables).variables)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"a": jnp.zeros((0, 3)), "b": jnp.float32(3), "c": None},
        [(jnp.ones((2, 3)), jnp.zeros(3)), (jnp.ones((3, 1), jnp.bfloat16),)],
        {"nan": jnp.array([jnp.nan, -0.0, jnp.inf]), "k": jnp.arange(5), "flags": jnp.array([True, False, True])},
        {"many": jnp.zeros((40, 5000), jnp.int8), "places": jnp.array([0, 254, 255, 256, 2**31 - 1])},
        {"a/b": jnp.ones(3), "ä . x": {"": jnp.ones(2)}},
        {"narrow": jnp.arange(-8, 8).astype(jnp.int4), "f8": jnp.ones(9, jnp.float8_e4m3fn), "c": jnp.ones(4) * 1j},
    ],
    ids=["nothing", "empty", "lists", "not numbers", "wide", "names", "narrow types"],
)
def test_any_arrays(variables, tmp_path):
    assert_same(variables, saved(tmp_path, variables).variables)


def test_wide_numbers_stay_wide(tmp_path):
    """jax would make them narrower."""
    variables = {"a": np.array([np.pi]), "b": np.array([2**40])}
    assert_same(variables, saved(tmp_path, variables).variables)


def test_a_whole_network(tmp_path):
    network, images = nnc.models.create("narrow"), draw((2, 32, 32, 3), 0)
    variables = jax.jit(network.init)(jax.random.key(0), images)
    method = nnc.chain(nnc.prune_channels(macs=0.5), nnc.quantize())
    small = nnc.compress(variables, method, apply=network.apply, batches=[images])
    description = {"class_names": [str(i) for i in range(10)], "mean": (0.5, 0.5, 0.5), "deviation": (0.2, 0.2, 0.2)}
    description |= {"recipe": "channels:0.5+quantize:8", "dataset": "noise", "accuracy": 0.1}
    nnc.save(tmp_path / "a.nnc", small, model="narrow", image_shape=(32, 32, 3), **description)
    apply, again, info = nnc.load(tmp_path / "a.nnc")
    assert_same(small, again)
    logits = jax.jit(nnc.inject(network.apply))(small, images)
    assert (jax.jit(apply)(again, images) == logits).all()
    assert (info.model, info.image_shape, info.accuracy, info.recipe) == (
        "narrow",
        (32, 32, 3),
        0.1,
        description["recipe"],
    )
    assert len(info.class_names) == 10
    assert len(info.digest) == 64
    shrunken = nnc.shrink(nnc.compress(variables, nnc.prune_channels(macs=0.5), apply=network.apply, batches=[images]))
    nnc.save(tmp_path / "b.nnc", shrunken, model="narrow", image_shape=(32, 32, 3))
    apply, again, _ = nnc.load(tmp_path / "b.nnc")
    narrow = nnc.models.fitting(network, shrunken)
    assert (jax.jit(apply)(again, images) == jax.jit(nnc.inject(narrow.apply))(shrunken, images)).all()


def test_a_network_of_the_callers(tmp_path):
    graph, params = nnx.split(nnx.Sequential(nnx.Linear(8, 4, rngs=nnx.Rngs(0)), nnx.relu))
    small, inputs = nnc.compress(params), draw((3, 8), 0)

    def apply(params, x):
        return nnx.merge(graph, params)(x)

    nnc.save(tmp_path / "a.nnc", small)
    with pytest.raises(nnc.ArtifactError, match="another structure than dicts, lists and tuples; pass like=variables"):
        nnc.load(tmp_path / "a.nnc", apply=apply)
    loaded, again, _ = nnc.load(tmp_path / "a.nnc", apply=apply, like=params)
    assert_same(small, again)
    assert (loaded(again, inputs) == nnc.inject(apply)(small, inputs)).all()
    without, again, _ = nnc.load(tmp_path / "a.nnc", like=params)
    with pytest.raises(nnc.InputError, match=r"names no network of this library; call nnc.load\(path, apply=f\)"):
        without(again, inputs)
    with pytest.raises(nnc.InputError, match="layers/0/bias: only in the file, expected in both"):
        nnc.load(tmp_path / "a.nnc", like={"layers": params, "more": jnp.ones(3)})


@pytest.mark.parametrize("floats", ["bfloat16", "float16"])
def test_floats_in_16_bits(floats, tmp_path):
    variables = {"a": draw((40, 30), 0), "kernel": nnc.compress({"kernel": draw((40, 30), 1)})["kernel"]}
    again = saved(tmp_path, variables, floats=floats).variables
    assert (again["a"] == variables["a"].astype(floats).astype(jnp.float32)).all()
    assert (again["kernel"].codes == variables["kernel"].codes).all()
    with opened(tmp_path / "model.nnc") as file:
        error = dict(file.sections)["a"].largest_error
    largest = float(jnp.abs(again["a"] - variables["a"]).max())
    assert 0 < largest <= error <= 1.1 * largest
    assert error == float(f"{error:.1e}")  # two digits
    with pytest.raises(nnc.InputError, match="1e\\+06 is more than float16 can hold"):
        nnc.save(tmp_path / "b.nnc", {"a": jnp.array([1e6])}, floats="float16")
    assert not (tmp_path / "b.nnc").exists()


def spread_codes(kind):
    random = np.random.default_rng(0)
    return {
        "laplace": lambda: np.clip(np.rint(random.laplace(0, 20, (300, 64))), -127, 127).astype(np.int8),
        "channels of other widths": lambda: (
            np.rint(random.standard_normal((500, 64)) * np.linspace(3, 40, 64)).clip(-127, 127).astype(np.int8)
        ),
        "uniform": lambda: random.integers(0, 256, (100, 64)).astype(np.uint8),
        "two of many": lambda: np.where(random.random((200, 50)) < 0.02, 200, 3).astype(np.uint8),
        "one": lambda: np.full((99, 7), 5, np.uint8),
        "few": lambda: np.arange(5).astype(np.uint8),
        "floats": lambda: random.standard_normal((64, 64)).astype(np.float32),
        "places": lambda: np.flatnonzero(random.random(50_000) < 0.1).astype(np.int32),
        "rare places": lambda: np.flatnonzero(random.random(500_000) < 0.001).astype(np.int32),
        "signs": lambda: random.integers(0, 2, (100, 100)).astype(bool),
    }[kind]()


@pytest.mark.parametrize(
    "kind",
    [
        *("laplace", "channels of other widths", "uniform", "two of many", "one", "few", "floats", "places"),
        *("rare places", "signs"),
    ],
)
def test_each_section_is_near_its_entropy(kind, tmp_path):
    array = spread_codes(kind)
    nnc.save(tmp_path / "a.nnc", {"a": array})
    with opened(tmp_path / "a.nnc") as file:
        ((_, section),) = file.sections
        (again,) = file.arrays()
    entropy, distinct = entropy_bytes(section, again)
    assert (again == array).all()
    assert section.size_bytes <= 1.002 * entropy + 64 + 2 * distinct
    if kind == "channels of other widths":
        assert section.size_bytes < 0.97 * entropy


def test_the_file_is_what_its_parts_are(tmp_path):
    info = nnc.save(tmp_path / "a.nnc", {"a": draw((30, 40), 0)}, class_names=("x", "y"))
    first = (tmp_path / "a.nnc").read_bytes()
    again = nnc.save(tmp_path / "a.nnc", {"a": draw((30, 40), 0)}, class_names=("x", "y"))
    assert (tmp_path / "a.nnc").read_bytes() == first  # the same network is the same file
    assert again == info == nnc.load(tmp_path / "a.nnc").info
    assert [path.name for path in tmp_path.iterdir()] == ["a.nnc"]


@pytest.mark.parametrize(
    ("variables", "named", "message"),
    [
        ({"a": np.array(["text"])}, {}, "a: .U4, expected one of bool, int8"),
        ({"a": jnp.ones(3)}, {"accuracy": "good"}, "could not convert|accuracy"),
        ({"a": jnp.ones(3)}, {"class_names": (1, 2)}, "not to be written: class_names"),
        ({"a": jnp.ones(3)}, {"model": "vgg16"}, "image_shape"),
        ({"a": jnp.ones(3)}, {"model": "narrow", "image_shape": (32, 32, 3)}, "only in"),
    ],
)
def test_what_cannot_be_saved(variables, named, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        nnc.save(tmp_path / "a.nnc", variables, **named)
    assert list(tmp_path.iterdir()) == []


def test_nowhere_to_write(tmp_path):
    with pytest.raises(nnc.InputError, match="cannot be written .*; what was there before is as it was"):
        nnc.save(tmp_path / "none" / "a.nnc", {"a": jnp.ones(3)})
    with pytest.raises(nnc.InputError, match="No such file or directory; expected a file of nnc.save"):
        nnc.load(tmp_path / "none.nnc")
    with pytest.raises(nnc.InputError, match="Is a directory"):
        nnc.load(tmp_path)
