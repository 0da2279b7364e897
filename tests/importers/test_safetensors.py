"""Arrays through safetensors files, as others write and read them, and back."""

import json
import os

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

import nncompress_jax as nnc
from tests.artifact.test_file import assert_same


def through(folder, variables, **options):
    nnc.save_safetensors(folder / "a.safetensors", variables)
    return nnc.load_safetensors(folder / "a.safetensors", **options)


def header(folder):
    content = (folder / "a.safetensors").read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def test_a_network(tmp_path):
    variables = jax.jit(nnc.models.create("narrow_stride").init)(jax.random.key(0), jnp.ones((1, 32, 32, 3)))
    assert_same(variables, through(tmp_path, variables))
    with pytest.raises(nnc.InputError, match="Conv_0/kernel: is Quantized.*; use nnc.save"):
        nnc.save_safetensors(tmp_path / "b.safetensors", nnc.compress(variables))
    (tmp_path / "c.safetensors").write_bytes(b"nothing")
    with pytest.raises(nnc.InputError, match="no whole safetensors file"):
        nnc.load_safetensors(tmp_path / "c.safetensors")


def test_torchs_names(tmp_path, golden_state_dict):
    from nncompress_jax.importers import torch

    state_dict = golden_state_dict("D-DS")
    safetensors.numpy.save_file(state_dict, tmp_path / "a.safetensors")
    loaded = nnc.load_safetensors(tmp_path / "a.safetensors", model="vgg16ds_stride")
    assert_same(torch.convert(state_dict), loaded)


NARROW = ("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)), [[0, 1, 2], [3, 4, 5]]),
        (np.arange(12, dtype=np.float32).reshape(2, 6)[:, ::2], [[0, 2, 4], [6, 8, 10]]),
        (np.array([-0.5, 2.5], ">f4"), [-0.5, 2.5]),
        (np.array([1, 2**40], ">i8"), [1, 2**40]),
        (np.array([2**63]), [2**63]),
        (np.array([np.pi]), [np.pi]),
        (np.array([1 + 2j], np.complex64), [1 + 2j]),
        (np.zeros((0, 3), np.int16), []),
        (np.array([True, False]), [True, False]),
        *((np.array([[1, 9, 0.5, 9]], getattr(ml_dtypes, name))[:, ::2], [[1, 0.5]]) for name in NARROW),
    ],
    ids=lambda value: f"{value.dtype}{value.shape}" if hasattr(value, "dtype") else None,
)
def test_arrays_stay_as_they_are(array, expected, tmp_path):
    again = through(tmp_path, {"a": array})["a"]
    assert np.asarray(again).tolist() == expected
    assert again.dtype == array.dtype.newbyteorder("=")
    assert again.shape == array.shape


def test_numbers_become_arrays(tmp_path):
    again = through(tmp_path, {"a": 0.1, "b": 2**40, "c": True})
    assert [again[name].item() for name in "abc"] == [0.1, 2**40, True]


TREES = {
    "haiku": {"mlp/~/linear_0": {"b": 1, "w": 2}, "mlp/~/linear_1": {"w": 3}},
    "slashes": {"layer/weight": {"u": 1, "v/w": 2}, "b": 3},
    "both": {"a": {"b": 1}, "a/b": 2, "a%2Fb": 3, "a%252Fb": 4},
    "only slashes": {"/": {"": 1, "/": 2}, "//": 3},
    "percent": {"a%2Fb": {"%": 1}},
    "reserved": {"__metadata__": 1, "%5F%5Fmetadata%5F%5F": 2, "__metadata__/": 3},
    "any text": {"ä . x": {"": 1, "名": 2}},
}


@pytest.mark.parametrize("name", TREES)
def test_keys_stay_as_they_are(name, tmp_path):
    variables = jax.tree.map(lambda number: jnp.full(2, number), TREES[name])
    assert_same(variables, through(tmp_path, variables))


def test_names_that_need_no_escape_are_plain(tmp_path):
    """As files were before keys were escaped, and as other programs write them."""
    through(tmp_path, {"a": {"b%2Fc": jnp.ones(2)}, "d": jnp.ones(1)})
    assert header(tmp_path).keys() == {"a/b%2Fc", "d"}
    safetensors.numpy.save_file({"a/b%2Fc": np.ones(2)}, tmp_path / "a.safetensors", {"format": "np"})
    assert nnc.load_safetensors(tmp_path / "a.safetensors")["a"].keys() == {"b%2Fc"}


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.WeightNorm(nn.Dense(4))(x)
        return nn.SpectralNorm(nn.Dense(3))(x, update_stats=False)


def test_norms_of_weights(tmp_path):
    """linen names what they keep `Dense_0/kernel/scale`, in one key."""
    variables = Normed().init(jax.random.key(0), jnp.ones((1, 5)))
    assert any("/" in key for key in variables["params"]["WeightNorm_0"])
    assert_same(variables, through(tmp_path, variables))


def test_other_containers(tmp_path):
    for variables in ([jnp.ones(2), (jnp.zeros(3),)], nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0))), {0: jnp.ones(3)}):
        assert_same(variables, through(tmp_path, variables, like=jax.tree.map(jnp.zeros_like, variables)))
    with pytest.raises(nnc.InputError, match=r"a.safetensors: 0: \[3\] in the file, \[2\] in like="):
        nnc.load_safetensors(tmp_path / "a.safetensors", like=[jnp.ones(2)])
    with pytest.raises(nnc.InputError, match="more: only in like="):
        nnc.load_safetensors(tmp_path / "a.safetensors", like={"0": jnp.ones(3), "more": jnp.ones(3)})


def test_an_equinox_module(tmp_path):
    """What the refusal advises works."""
    module = eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0))
    with pytest.raises(
        nnc.InputError, match=r"activation: the function .*; save equinox.filter\(variables, equinox.is"
    ):
        through(tmp_path, module)
    again = through(tmp_path, eqx.filter(module, eqx.is_array_like), like=module)
    assert again.activation is module.activation
    assert_same(eqx.filter(module, eqx.is_array), eqx.filter(again, eqx.is_array))


def test_random_keys(tmp_path):
    """What the refusal advises works."""
    with pytest.raises(
        nnc.InputError, match="k: random keys; use nnc.save, or put jax.random.key_data in their places"
    ):
        through(tmp_path, {"k": jax.random.key(7), "w": jnp.ones(2)})
    again = through(tmp_path, {"k": jax.random.key_data(jax.random.key(7))})
    assert (jax.random.wrap_key_data(again["k"]) == jax.random.key(7)).all()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"a": np.ones(2, np.complex128), "b": jnp.ones(2, jnp.int4)}, "a: complex128, b: int4, expected one of bool"),
        ({"a": np.array(["x"])}, "a: <U1, expected one of bool"),
        ({"a": "x", "b": object()}, "a: the text 'x', b: object, which no file can hold"),
        (np.ones(3), "an array without a name; save {'name': array}"),
        ({"\ud800": np.ones(3)}, "a name that is no Unicode text; rename it"),
        ({"a": 2**70}, "a: object, expected one of bool"),
    ],
)
def test_what_cannot_be_saved(variables, message, tmp_path):
    with pytest.raises(nnc.InputError, match=message):
        nnc.save_safetensors(tmp_path / "a.safetensors", variables)
    assert os.listdir(tmp_path) == []


def test_the_file_is_replaced_whole(tmp_path):
    """By `files.replacing`, which has its own tests."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")
    path.chmod(0o664)
    (tmp_path / "link").symlink_to(path)
    nnc.save_safetensors(tmp_path / "link", {"a": jnp.ones(2)})
    assert (tmp_path / "link").is_symlink()
    assert path.stat().st_mode & 0o777 == 0o664
    with pytest.raises(nnc.InputError, match="cannot be written .No such file"):
        nnc.save_safetensors(tmp_path / "none" / "a", {"a": jnp.ones(2)})


def test_damaged_headers(tmp_path):
    path = tmp_path / "a.safetensors"
    nnc.save_safetensors(path, {"a": jnp.ones(2), "b/c": jnp.ones(3)})
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(nnc.InputError, match="no whole safetensors file"):
            nnc.load_safetensors(path)
