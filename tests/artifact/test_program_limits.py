"""What a program in a file holds beside its operations, what it takes, and what cannot be written."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import nncompress_jax as nnc
from nncompress_jax.artifact.contents import contents
from tests.artifact.test_programs import same, saved


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
