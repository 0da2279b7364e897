"""Criteria by curvature: scores worked out in numpy, and what they prune."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.methods.channels.criteria import summed
from tests.methods.drawn import draw

W = draw(16, 4)
X = draw(64, 16, seed=1) * jnp.linspace(0.1, 3, 16)
TREE = {"kernel": W}
Y = np.arange(64) % 4


def apply(tree, x):
    return x @ tree["kernel"]


def scores_of(gradients):
    """w^2 h / 2, where a row of inputs meets these squared gradients of outputs [N, C]."""
    return np.asarray(W) ** 2 * (np.asarray(X).T ** 2 @ gradients / 64) / 2


def test_scores_are_those_of_the_paper():
    each = [X[i : i + 1] for i in range(64)]
    found = nnc.criteria.obd(apply, TREE, each, likelihood="gaussian")("kernel", W)
    np.testing.assert_allclose(found, scores_of(np.ones((64, 4))), rtol=1e-4)
    found = nnc.criteria.fisher(apply, TREE, each, [Y[i : i + 1] for i in range(64)])("kernel", W)
    np.testing.assert_allclose(found, scores_of((np.eye(4)[Y] - jax.nn.softmax(X @ W)) ** 2), rtol=1e-3)


def test_what_is_pruned_matters_least():
    """With inputs of several sizes the outputs change less than by magnitude."""
    errors = {}
    for name, criterion in {
        "obd": nnc.criteria.obd(apply, TREE, [X]),
        "fisher": nnc.criteria.fisher(apply, TREE, [X], [Y]),
        "magnitude": lambda path, weights: jnp.abs(weights),
    }.items():
        small = nnc.compress(TREE, nnc.prune(sparsity=0.5, criterion=criterion))
        errors[name] = float(jnp.square(X @ small["kernel"].materialise() - X @ W).sum())
    assert max(errors["obd"], errors["fisher"]) < 0.8 * errors["magnitude"]


def test_pruning_goes_on():
    small = nnc.compress(TREE, nnc.prune(sparsity=0.25))
    again = nnc.compress(small, nnc.prune(sparsity=0.5, criterion=nnc.criteria.obd(apply, small, [X])))
    assert again["kernel"].values.size == 32
    assert set(again["kernel"].positions.tolist()) < set(small["kernel"].positions.tolist())


def test_channels():
    """A channel that the network hardly uses goes first, however large its weights are."""
    tree = {"a": draw(6, 8), "b": draw(8, 3, seed=1) * jnp.linspace(3, 0.01, 8)[:, None]}
    run = lambda tree, x: jax.nn.relu(x @ tree["a"]) @ tree["b"]  # noqa: E731
    x = draw(64, 6, seed=2)
    criterion = summed(nnc.criteria.obd(run, tree, [x]))
    small = nnc.compress(tree, nnc.prune_channels(keep=0.5, criterion=criterion), apply=run, batches=[x])
    assert small["a"].channels[1].indices.max() < 6


def test_another_tree_is_refused():
    criterion = nnc.criteria.obd(apply, TREE, [X])
    with pytest.raises(
        nnc.InputError, match=r"other: \[16, 4\], and none where the criterion was computed; compute it"
    ):
        nnc.compress({"other": W}, nnc.prune(sparsity=0.5, criterion=criterion, where="other"))
    with pytest.raises(nnc.InputError, match=r"kernel: \[4, 4\], and one of \[16, 4\] where"):
        nnc.compress({"kernel": W[:4]}, nnc.prune(sparsity=0.5, criterion=criterion))
