"""The diagonal Fisher information, beside per-example gradients in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.tracing.fisher import fisher
from tests.methods.drawn import draw

W, B = draw(5, 3), draw(3, seed=1)
X = draw(24, 5, seed=2)
WEIGHTS = {"w": W, "b": B, "count": jnp.zeros(2, jnp.int32)}


def apply(weights, x):
    return x @ weights["w"] + weights["b"]


def shares():
    logits = np.asarray(X, np.float64) @ np.asarray(W, np.float64) + np.asarray(B)
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    return exponents / exponents.sum(1, keepdims=True)


def of_outputs(gradients):
    """Squared gradients with respect to outputs [N, C] -> means of those with respect to the weights."""
    return {"w": np.asarray(X, np.float64).T ** 2 @ gradients / len(X), "b": gradients.mean(0)}


def assert_near(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for path, values in expected.items():
        np.testing.assert_allclose(found[path], values, **tolerance)


def test_one_example_at_a_time_is_exact():
    labels = np.arange(24) % 3
    expected = of_outputs((np.eye(3)[labels] - shares()) ** 2)
    found = fisher(apply, WEIGHTS, [X[:10], X[10:]], labels=[labels[:10], labels[10:]], piece=1)
    assert_near(found, expected, rtol=1e-4)


def test_outputs_of_normal_distributions():
    assert_near(fisher(apply, WEIGHTS, [X], likelihood="gaussian", piece=1), of_outputs(np.ones((24, 3))), rtol=1e-4)
    means = np.asarray(draw(24, 3, seed=3))
    errors = means - (np.asarray(X) @ np.asarray(W) + np.asarray(B))
    found = fisher(apply, WEIGHTS, [X], labels=[means], likelihood="gaussian", piece=1)
    assert_near(found, of_outputs(errors**2), rtol=1e-4)


@pytest.mark.parametrize("given", [False, True])
def test_pieces_estimate_it(given):
    """Of 800 squares, each as far from its mean as a square of normal numbers: 5 % for one standard deviation."""
    labels = [np.arange(24) % 3] * 200 if given else None
    each = (np.eye(3)[labels[0]] - shares()) ** 2 if given else shares() * (1 - shares())
    found = fisher(apply, WEIGHTS, [X] * 200, labels=labels, piece=7)
    ratios = np.concatenate([(found[path] / expected).ravel() for path, expected in of_outputs(each).items()])
    assert np.abs(ratios - 1).max() < 0.2
    assert abs(ratios.mean() - 1) < 0.05


def test_the_seed_decides():
    one, again, other = (fisher(apply, WEIGHTS, [X], seed=seed)["w"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_tokens_and_compressed_weights():
    """[N, T, C]: an example is all of its tokens."""
    tokens, labels = X.reshape(8, 3, 5), np.arange(24).reshape(8, 3) % 3
    small = nnc.compress({"w": W}, nnc.prune(sparsity=0.4, where="w"))
    run = lambda weights, x: x @ weights["w"]  # noqa: E731
    found = fisher(run, small, [tokens], labels=[labels], piece=1)

    def log_likelihood(w, x, y):
        return (jax.nn.log_softmax(x @ w) * jax.nn.one_hot(y, 3)).sum()

    kernel = small["w"].materialise()
    expected = np.mean([jax.grad(log_likelihood)(kernel, x, y) ** 2 for x, y in zip(tokens, labels, strict=True)], 0)
    assert found.keys() == {"w/values"}
    np.testing.assert_allclose(found["w/values"], expected.ravel()[small["w"].positions], rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batches": []}, "no batches: expected inputs of the network"),
        ({"labels": [np.zeros(3, int)]}, r"labels of \[3\] examples for batches of \[24\]; expected an array for each"),
        ({"likelihood": "cauchy"}, "likelihood='cauchy': expected 'categorical' or 'gaussian'"),
        ({"piece": 0}, "piece=0: expected one example"),
        (
            {"apply": lambda v, x: (x @ v["w"]).sum()},
            r"outputs float32\[\] of 16 examples: expected one array \[N, ..., C\]",
        ),
        ({"apply": lambda v, x: (x @ v["w"],)}, "outputs tuple of 16 examples"),
    ],
)
def test_in_one_line(options, words):
    with pytest.raises(nnc.InputError, match=words) as error:
        fisher(**{"apply": apply, "variables": WEIGHTS, "batches": [X]} | options)
    assert "\n" not in str(error.value)
