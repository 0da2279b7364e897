"""Pruning in which what stays makes up for what goes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from tests.methods.drawn import draw
from tests.methods.obq import damped
from tests.methods.test_in_sequence import error, mixed, mlp


def dense(weights, x):
    return x @ weights["kernel"]


def test_one_entry_goes_as_the_optimal_brain_surgeon_has_it():
    weights, x = {"kernel": draw(6, 1)}, mixed(80, 6)
    method = nnc.prune(where="*", sparsity=1 / 6, compensate=True)
    found = nnc.compress(weights, method, apply=dense, batches=[x])["kernel"].materialise()[:, 0]
    w, inverse = np.asarray(weights["kernel"], np.float64)[:, 0], np.linalg.inv(damped(np.asarray(x.T @ x, np.float64)))
    goes = np.argmin(w**2 / np.diag(inverse))
    np.testing.assert_allclose(found, w - w[goes] / inverse[goes, goes] * inverse[goes], rtol=1e-4, atol=1e-5)
    assert found[goes] == 0


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_counts_are_those_of_the_criterion_and_outputs_are_closer(scope):
    weights, options = {"up": draw(12, 16), "down": draw(16, 4, seed=7)}, {"apply": mlp, "batches": [mixed(400, 12)]}
    plain, best = (
        nnc.compress(weights, nnc.prune(where="*", sparsity=0.7, scope=scope, compensate=each), **options)
        for each in (False, True)
    )
    assert [best[path].values.size for path in weights] == [plain[path].values.size for path in weights]
    test = mixed(100, 12, seed=30)
    assert error(mlp, best, weights, test) < 0.4 * error(mlp, plain, weights, test)


@pytest.mark.parametrize("pattern", [(2, 4), (1, 4)])
def test_n_of_m(pattern):
    weights, options = {"up": draw(12, 16), "down": draw(16, 4, seed=7)}, {"apply": mlp, "batches": [mixed(400, 12)]}
    plain, best = (
        nnc.compress(weights, nnc.prune(where="*", pattern=pattern, compensate=each), **options)
        for each in (False, True)
    )
    for path in weights:
        kept = np.asarray(best[path].materialise()) != 0
        assert (kept.reshape(-1, pattern[1], kept.shape[1]).sum(1) == pattern[0]).all()
    test = mixed(100, 12, seed=30)
    assert error(mlp, best, weights, test) < 0.6 * error(mlp, plain, weights, test)


def test_inputs_that_never_come_are_pruned_first():
    x = mixed(100, 8).at[:, 3].set(0)
    small = nnc.compress(
        {"kernel": draw(8, 5)}, nnc.prune(where="*", sparsity=1 / 8, compensate=True), apply=dense, batches=[x]
    )
    kept = np.asarray(small["kernel"].materialise()) != 0
    assert kept.sum(1).tolist() == [5, 5, 5, 0, 5, 5, 5, 5]


def test_of_a_depthwise_kernel_each_channel_has_its_own_inputs():
    def apply(weights, x):
        return jax.lax.conv_general_dilated(
            x, weights["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=4
        )

    weights, x = {"kernel": draw(3, 3, 1, 4)}, mixed(400, 4).reshape(4, 10, 10, 4)
    plain, best = (
        nnc.compress(weights, nnc.prune(where="*", sparsity=0.5, compensate=each), apply=apply, batches=[x])
        for each in (False, True)
    )
    assert error(apply, best, weights, x) < 0.7 * error(apply, plain, weights, x)
    assert jnp.count_nonzero(best["kernel"].materialise()) == 18
