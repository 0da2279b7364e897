"""What enters normalizations: the same outputs, and the statistics that a walk through the network finds."""

import warnings

import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.tracing.entering import entering, leaves_of
from nncompress_jax.tree import named_leaves
from tests.normalized import NETWORKS


@pytest.mark.parametrize("name", NETWORKS)
def test_statistics_of_a_batch(name):
    """Of the first normalization, which no other changes."""
    apply, variables, x = NETWORKS[name]()
    network, leaves = entering(apply, variables, x), leaves_of(variables)
    (outputs,), statistics = network(leaves, x)
    np.testing.assert_allclose(outputs, apply(variables, x), rtol=1e-4, atol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        new = dict(named_leaves(nnc.batch_norm.reestimate(variables, apply, [x])))
    first, (stored, (mean, variance)) = network.found[0], (network.stored(leaves)[0], statistics[0])
    old = dict(named_leaves(variables))
    for path, one, other in zip((first.mean, first.variance), (mean, variance), stored, strict=True):
        np.testing.assert_allclose(one, np.ravel(new[path]), rtol=1e-4, atol=1e-5)
        assert (other == np.ravel(old[path])).all()
