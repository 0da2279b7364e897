"""Programs in files that nobody should have written: refused in one line, before anything is built."""

import functools

import jax.numpy as jnp
import pytest

import nncompress_jax as nnc
from tests.fuzz import files

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
