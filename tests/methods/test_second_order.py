"""The solver, beside Optimal Brain Quantization written down in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncompress_jax import InputError
from nncompress_jax.methods import second_order
from nncompress_jax.methods.second_order import inverse_factor, least_squares, problem_of, spread
from nncompress_jax.tracing.grams import Gram
from tests.methods.obq import damped, obq


def squares_of(random, size, rows):
    inputs = random.standard_normal((rows, size)) @ random.standard_normal((size, size))
    return damped(inputs.T @ inputs)


def halves(column, parts, constants):
    return jnp.round(2 * column) / 2


def smaller(column, parts, constants):
    return column * parts


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 4))
def test_codes_are_those_of_obq(seed, size, outputs):
    random = np.random.default_rng(seed)
    squares, weights = squares_of(random, size, 12), random.standard_normal((outputs, size))
    with jax.enable_x64(True):
        found = spread(
            jnp.asarray(weights[None]),
            jnp.asarray(inverse_factor(squares[None])),
            jnp.ones((1, outputs, size), bool),
            halves,
            None,
        )
    wanted = obq(weights.T, squares, lambda row, _: np.round(2 * row) / 2).T
    assert np.array_equal(np.asarray(found[0]), wanted)


@pytest.mark.parametrize("size", [7, 128, 200])  # one block, a whole one, two
def test_float32_is_as_float64_and_as_obq(size):
    random = np.random.default_rng(size)
    inputs = random.standard_normal((4 * size, size))
    squares, weights, parts = damped(inputs.T @ inputs), random.standard_normal((3, size)), random.uniform(size=size)
    there = random.uniform(size=(3, size)) > 0.2
    wanted = obq(weights.T, squares, lambda row, j: np.where(there.T[j], row * parts[j], 0)).T
    arguments = [weights[None], inverse_factor(squares[None]), there[None]]
    for x64, error in ((False, 1e-4), (True, 1e-10)):
        with jax.enable_x64(x64):
            dtype = jnp.float64 if x64 else jnp.float32
            given = [jnp.asarray(x, None if x.dtype == bool else dtype) for x in arguments]
            found = spread(*given, smaller, jnp.asarray(parts[None, None], dtype))
        assert found.dtype == dtype
        np.testing.assert_allclose(found[0], wanted, rtol=error, atol=error)


def test_of_inputs_that_have_nothing_in_common_the_nearest_is_taken():
    weights = np.random.default_rng(0).standard_normal((1, 5, 300)).astype(np.float32)
    factor = np.diag(np.random.default_rng(1).uniform(0.5, 2, 300)).astype(np.float32)
    found = spread(jnp.asarray(weights), jnp.asarray(factor[None]), jnp.ones(weights.shape, bool), halves, None)
    assert np.array_equal(np.asarray(found), np.round(2 * weights) / 2)


def test_least_squares_are_those_of_numpy():
    random = np.random.default_rng(0)
    inputs, target = random.standard_normal((40, 6)), random.standard_normal((3, 6))
    kept = random.uniform(size=(3, 6)) > 0.4
    found = least_squares(*(jnp.asarray(x[None], jnp.float32) for x in (target, inputs.T @ inputs, kept)))
    for row, wanted, there in zip(np.asarray(found[0]), target, kept, strict=True):
        own = np.linalg.lstsq(inputs[:, there], inputs @ wanted, rcond=None)[0]
        np.testing.assert_allclose(row[there], own, rtol=1e-4, atol=1e-5)
        assert not row[~there].any()


def gram_of(inputs, reference, outputs):
    size = inputs.shape[1]
    places = np.arange(size * outputs).reshape(1, size, outputs).transpose(0, 2, 1)
    return Gram(places, (inputs.T @ inputs)[None], (inputs.T @ reference)[None], len(inputs))


def test_the_target_has_the_outputs_of_the_reference():
    random = np.random.default_rng(0)
    reference = random.standard_normal((500, 5))
    inputs = reference + 0.3 * random.standard_normal((500, 5))
    leaf = random.standard_normal((5, 3)).astype(np.float32)
    problem = problem_of("kernel", leaf, gram_of(inputs, reference, 3))
    ridge = np.sqrt(0.01 * np.square(inputs).sum() / 5)  # towards the weights as they are
    stacked = np.concatenate([inputs, ridge * np.eye(5)])
    wanted = np.linalg.lstsq(stacked, np.concatenate([reference @ leaf, ridge * leaf]), rcond=None)[0]
    np.testing.assert_allclose(problem.entries(problem.target, leaf), wanted, rtol=1e-5, atol=1e-5)
    error = stacked @ (wanted - leaf)
    np.testing.assert_allclose(problem.losses(problem.columns(leaf))[0], np.square(error).sum(0), rtol=1e-4)


def test_damping_grows_until_there_is_a_factor():
    squares = np.array([[[1.0, 1.5], [1.5, 1.0]]])  # as rounding errors may leave it: of no inputs at all
    damping, factor = second_order._factored(squares)
    assert damping.item() == 1.0
    np.testing.assert_allclose(factor[0].T @ factor[0] @ (squares[0] + np.eye(2)), np.eye(2), atol=1e-12)


def test_too_few_rows_are_refused():
    inputs = np.ones((3, 40))
    message = "a/kernel: its outputs are sums over 40 inputs, and the batches have 3 rows of them; give 5 at least"
    with pytest.raises(InputError, match=message):
        problem_of("a/kernel", np.ones((40, 2), np.float32), gram_of(inputs, inputs, 2))
