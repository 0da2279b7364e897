"""Channels that may be multiplied, in networks that nobody wrote: whatever the numbers are, outputs stay."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.methods.selection import LeftAlone
from tests.coupling.test_random_programs import Network
from tests.zoo import ZOO


def equalized(apply, variables, x):
    """In float64, where rounding cannot hide a mistake; Returns how many leaves have changed, and the largest error."""
    with jax.enable_x64(True), warnings.catch_warnings():
        warnings.simplefilter("ignore", LeftAlone)
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), variables)
        x = jnp.asarray(x, jnp.float64)
        try:
            small = nnc.compress(wide, nnc.equalize(), apply=apply, batches=[x])
        except nnc.InputError:  # nothing can be equalized
            return 0, 0.0
        before, after = jax.jit(apply)(wide, x), jax.jit(apply)(small, x)
        changed = sum(bool((a != b).any()) for a, b in zip(*map(jax.tree.leaves, (wide, small)), strict=True))
        return changed, float(
            abs(after - before).max() / (abs(before).max() + 1e-6)
        )  # some are means of what was standardized


def test_random_networks():
    found = []
    for seed in range(10):
        network = Network(seed)
        x = np.random.default_rng(seed).standard_normal((2, 4, 4, 3))
        found.append(equalized(network, network.weights, x))
    assert max(error for _, error in found) < 1e-11
    assert sum(changed > 0 for changed, _ in found) > 4


@pytest.mark.parametrize("name", ["MobileNetV2", "ShuffleNet", "U-Net"])
def test_networks_as_people_write_them(name):
    specimen = ZOO[name]()
    changed, error = equalized(specimen.apply, specimen.variables, specimen.images)
    assert changed > 10
    assert error < 1e-11
