"""Leaves of every kind in a file: what comes back, what is stored once, and what no file can hold."""

import os
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import nncompress_jax as nnc
from nncompress_jax.artifact.contents import contents
from nncompress_jax.artifact.reader import opened
from tests.artifact.test_file import assert_same, saved
from tests.artifact.test_refusals import refused
from tests.fuzz import files
from tests.test_leaves import SAME, VALUES
from tests.weights.cases import draw


@pytest.mark.parametrize("kind", SAME)
def test_any_order_of_bytes(kind, tmp_path):
    again = saved(tmp_path, {"a": SAME[kind], "b": [SAME[kind]]}).variables
    assert again["a"].tolist() == np.float32(VALUES).tolist()
    assert again["b"][0] is again["a"]
    wide = saved(tmp_path, {"a": np.array([2**40, -1], ">i8"), "b": np.array([np.pi], ">f8")}).variables
    assert (wide["a"].tolist(), wide["b"].tolist()) == ([2**40, -1], [np.pi])


NUMBERS = [1.5, 0.1, -0.0, float("inf"), 3, -(2**63), 2**64 - 1, True, False, 1 + 2j]


def test_numbers_stay_numbers(tmp_path):
    """So that they take the type of what they meet, as before; narrow floats= does not change them."""
    for floats in (None, "bfloat16"):
        again = saved(tmp_path, NUMBERS, floats=floats).variables
        assert [(type(number), repr(number)) for number in again] == [
            (type(number), repr(number)) for number in NUMBERS
        ]
    again = saved(tmp_path, {"factor": 0.1, "x": jnp.ones(2, jnp.bfloat16)}).variables
    assert (again["factor"] * again["x"]).dtype == jnp.bfloat16


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_random_keys(kind, tmp_path):
    key = jax.random.key(7, impl=kind)
    again = saved(tmp_path, {"a": key, "b": jax.random.split(key, (2, 3))}).variables
    assert (again["a"].dtype, again["b"].shape) == (key.dtype, (2, 3))
    assert (jax.random.normal(again["a"], 3) == jax.random.normal(key, 3)).all()
    assert (again["b"] == jax.random.split(key, (2, 3))).all()


def test_nnx_with_dropout(tmp_path):
    model = nnx.Sequential(nnx.Linear(8, 4, rngs=nnx.Rngs(0)), nnx.Dropout(0.5, rngs=nnx.Rngs(1)))
    graph, state = nnx.split(model)
    small, x = nnc.compress(state), draw((3, 8), 0)

    def apply(state, x):
        return nnx.merge(graph, state)(x)

    nnc.save(tmp_path / "a.nnc", small)
    loaded, again, _ = nnc.load(tmp_path / "a.nnc", apply=apply, like=state)
    assert (loaded(again, x) == nnc.inject(apply)(small, x)).all()
    _, table, _ = contents(tmp_path / "a.nnc")
    assert {row["weight"]: row["type"] for row in table.rows}["layers/1/rngs/key"] == "key<fry>"


def test_an_equinox_module(tmp_path):
    """What the refusal advises works: functions come back from like=."""
    module = eqx.nn.Sequential(
        [eqx.nn.Linear(32, 32, key=jax.random.key(0)), eqx.nn.Lambda(jax.nn.relu), eqx.nn.Dropout(0.25)]
    )
    small = nnc.compress(module)
    with pytest.raises(
        nnc.InputError, match=r"layers/1/fn: the function relu, .*; save equinox.filter.*like=variables"
    ):
        nnc.save(tmp_path / "a.nnc", small)
    assert os.listdir(tmp_path) == []
    nnc.save(tmp_path / "a.nnc", eqx.filter(small, eqx.is_array_like))
    again = nnc.load(tmp_path / "a.nnc", apply=lambda v, x: x, like=module).variables
    assert again.layers[1].fn is module.layers[1].fn
    assert (again.layers[2].p, again.layers[2].inference) == (0.25, False)
    assert_same(eqx.filter(small, eqx.is_array), eqx.filter(again, eqx.is_array))


def test_what_no_file_can_hold_is_all_named(tmp_path):
    gone = jnp.ones(3)
    jax.jit(lambda x: x + 1, donate_argnums=0)(gone)
    small = nnc.compress({"kernel": jnp.ones((4, 4))})
    jax.jit(lambda scale: scale + 1, donate_argnums=0)(small["kernel"].scale)
    for variables, message in (
        (
            {"a": "x" * 100, "b": object(), "c": print},
            f"a: the text '{'x' * 20}', b: object, c: the function print, which",
        ),
        ({"a": np.array(["text"]), "b": np.zeros(2, "M8[D]")}, "a: <U4, b: datetime64[D], expected one of bool, int8"),
        ({"a": gone, "b": jnp.ones(2)}, "a: its array was donated to a program; copy what other trees share"),
        (small, "kernel/scale: its array was donated"),
        ({"a": jax.ShapeDtypeStruct((2,), jnp.float32)}, "a: a shape without numbers"),
        ({"a": 2**70}, "a: object, expected one of bool"),
    ):
        with pytest.raises(nnc.InputError, match=re.escape(message)):
            nnc.save(tmp_path / "a.nnc", variables)
    with pytest.raises(nnc.InputError, match="a: a value inside of jit or vmap, which has no numbers yet"):
        jax.eval_shape(lambda x: nnc.save(tmp_path / "a.nnc", {"a": x}), jnp.ones(2))
    assert os.listdir(tmp_path) == []


def test_keys_with_slashes(tmp_path):
    variables = {
        "a": {"b": jnp.ones(2)},
        "a/b": jnp.zeros(3),
        "mlp/~/linear": {"w": nnc.compress({"kernel": draw((9, 8), 0)})["kernel"]},
    }
    assert_same(variables, saved(tmp_path, variables).variables)
    boxed = nnx.State(variables)
    nnc.save(tmp_path / "a.nnc", boxed)
    assert_same(boxed, nnc.load(tmp_path / "a.nnc", like=boxed).variables)


class TestShared:
    def test_one_array_at_two_places(self, tmp_path):
        tied = draw((64, 64), 0)
        variables = {"a": tied, "b": {"c": tied, "d": [tied + 0]}, "e": np.arange(5), "f": np.arange(5)}
        again = saved(tmp_path, variables).variables
        assert_same(variables, again)
        assert again["a"] is again["b"]["c"]
        assert again["a"] is not again["b"]["d"][0]
        assert again["e"] is not again["f"]
        with opened(tmp_path / "model.nnc") as file:
            assert [path for path, _ in file.sections] == ["a", "b/d/0", "e", "f"]

    @pytest.mark.parametrize(
        "recipe", ["quantize:8", "cluster:4", "prune:0.5+quantize:8", "fake_quantize:4", "binarize"]
    )
    def test_it_stays_one_through_compression(self, recipe, tmp_path):
        tied, other = draw((64, 64), 0), draw((64, 64), 1)
        variables = {"embedding": {"kernel": tied}, "head": {"kernel": tied}, "other": {"kernel": other}}
        small = nnc.compress(variables, nnc.recipe(recipe))
        assert small["embedding"]["kernel"] is small["head"]["kernel"]
        size = saved(tmp_path, small).info and (tmp_path / "model.nnc").stat().st_size
        again = nnc.load(tmp_path / "model.nnc").variables
        assert_same(small, again)
        for one, two in zip(*(jax.tree.leaves(again[name]) for name in ("embedding", "head")), strict=True):
            assert one is two
        nnc.save(tmp_path / "alone.nnc", {name: small[name] for name in ("embedding", "other")})
        assert size < (tmp_path / "alone.nnc").stat().st_size + 500
        dense = nnc.decompress(again)
        assert (dense["head"]["kernel"] == nnc.decompress(small)["embedding"]["kernel"]).all()

    def test_what_differs_is_not_made_one(self):
        """Static ranges are those of each place's inputs."""
        tied = draw((4, 4), 0)

        def apply(v, x):
            return 100 * (x @ v["a"]["kernel"]) @ v["b"]["kernel"]

        variables = {"a": {"kernel": tied}, "b": {"kernel": tied}}
        small = nnc.compress(
            variables, nnc.quantize(ranges=nnc.calibration.abs_max), apply=apply, batches=[draw((8, 4), 1)]
        )
        assert small["a"]["kernel"].input_scale != small["b"]["kernel"].input_scale

    def test_donating_one_tree(self):
        """What the docstring of compress advises."""
        variables = {"kernel": draw((8, 8), 0), "bias": jnp.ones(8)}
        small = nnc.compress(variables)
        assert small["bias"] is variables["bias"]
        program = jax.jit(lambda v: jax.tree.map(lambda x: x + 1, v), donate_argnums=0)
        program(jax.tree.map(jnp.copy, small))
        assert not any(leaf.is_deleted() for leaf in jax.tree.leaves([variables, small]))

    def test_contents_counts_it_once(self, tmp_path):
        tied = draw((64, 64), 0)
        nnc.save(tmp_path / "a.nnc", {"a": tied, "b": tied, "c": 3})
        _, table, _ = contents(tmp_path / "a.nnc")
        first, second, number, total = table.rows
        assert (first["raw_bytes"], second["raw_bytes"], second["bytes"], second["coding"]) == (16384, 0, 0, "shared")
        assert (number["type"], number["shape"], number["raw_bytes"], total["raw_bytes"]) == ("int", "[]", 8, 16392)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        *(
            ({"array": {"same": place}}, "expected the place of an array before it")
            for place in (1, 2, -1, True, "0", None, 0.0)
        ),
        ({"array": {"same": 0, "shape": []}}, "expected the place of an array before it"),
        ({"number": {"same": 0}}, "b: float32[3], expected a single number"),
        ({"key": {"impl": "rbg", "data": {"same": 0}}}, "b: float32[3], no data of rbg keys"),
        ({"key": {"impl": "os", "data": {"same": 0}}}, "b: a random key described as"),
        ({"key": {"impl": "rbg"}}, "b: a random key described as"),
        ({"key": {"impl": "rbg", "data": []}}, "b: a random key described as"),
        ({"key": {"impl": ["rbg"], "data": {"same": 0}}}, "b: a random key described as"),
        ({"number": 3}, "b is described as"),
    ],
)
def test_files_that_are_refused(node, message, tmp_path):
    nnc.save(tmp_path / "a.nnc", {"a": np.ones(3, np.float32)})
    header, sections = files.split((tmp_path / "a.nnc").read_bytes())
    header["variables"]["dict"]["b"] = node
    assert message in refused(tmp_path / "a.nnc", files.joined(header, sections))
