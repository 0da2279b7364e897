"""Second-order methods on weights that are chains of factors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.weights.low_rank import LowRank
from tests import zoo
from tests.methods.drawn import draw
from tests.methods.obq import rounded_layer
from tests.methods.test_in_sequence import mixed

FACTORS = nnc.factorize(macs=0.6)


def test_factors_are_solved_for_one_after_the_other():
    """Each on what the factors before it leave, as layers are."""
    first, last, x, step = draw(6, 4), draw(4, 3, seed=7), mixed(60, 6), 0.5
    weights = {"up": draw(6, 6, seed=5), "chain": LowRank((first, last))}
    small = nnc.compress(
        weights,
        nnc.quantize(where="chain", step=step, rounding="second_order"),
        apply=lambda w, x: (x @ w["up"]) @ w["chain"],
        batches=[x[:30], x[30:]],
    )
    y = x @ weights["up"]
    a = rounded_layer(first, y, y, step)
    b = rounded_layer(last, y @ a, y @ first, step)
    found = [factor.materialise() for factor in small["chain"].factors]
    assert np.array_equal(found[0], a)
    assert np.array_equal(found[1], b)
    assert small["up"] is weights["up"]


@pytest.mark.filterwarnings("ignore:.*the nearest that can be reached")
@pytest.mark.parametrize(
    ("first", "plain", "second"),
    [
        (FACTORS, nnc.quantize(bits=3), nnc.quantize(bits=3, rounding="second_order")),
        (FACTORS, nnc.prune(sparsity=0.5), nnc.prune(sparsity=0.5, compensate=True)),
        (
            nnc.chain(nnc.prune_channels(macs=0.7), FACTORS),
            nnc.cluster(bits=2),
            nnc.cluster(bits=2, rounding="second_order"),
        ),
    ],
    ids=["bits", "zeros", "clusters of cut weights"],
)
def test_factors_of_convolutions(first, plain, second):
    """Pairs and chains over windows, of whole and of cut weights."""
    network = zoo.ZOO["VGG"]()
    apply, images = network.apply, jnp.asarray(np.random.default_rng(3).standard_normal((64, 16, 16, 3)), jnp.float32)
    factors = nnc.compress(network.variables, first, apply=apply, batches=[images])
    expected = jax.jit(nnc.inject(apply))(factors, images)
    errors = []
    for method in (plain, second):
        small = nnc.compress(factors, method, apply=apply, batches=[images])
        errors.append(float(jnp.square(jax.jit(nnc.inject(apply))(small, images) - expected).mean()))
    assert errors[1] < 0.8 * errors[0]
