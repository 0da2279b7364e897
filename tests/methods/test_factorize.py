"""Low rank: found where it is, the best of its rank, within its budget."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.methods.selection import LeftAlone
from tests.methods.drawn import compressed, draw


@pytest.mark.parametrize("kind", ["spatial", "tucker", "cp"])
def test_low_rank_is_found_where_it_is(kind):
    kernel = jnp.einsum("hr,wr,ir,or->hwio", *(draw(size, 2, seed=size) for size in (3, 4, 16, 24)))
    weight = compressed(kernel, nnc.factorize(rank=2, kind=kind))
    assert jnp.linalg.norm(weight.materialise() - kernel) < (0.02 if kind == "cp" else 1e-4) * jnp.linalg.norm(kernel)


@pytest.mark.parametrize("kind", ["spatial", "tucker", "cp"])
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_budget_of_operations(kind, share):
    def apply(weights, x):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, weights["kernel"], (1, 1), "SAME", dimension_numbers=dimensions)

    weights, images = {"kernel": draw(3, 3, 32, 48)}, jnp.ones((1, 8, 8, 32))
    small = nnc.compress(weights, nnc.factorize(macs=share, kind=kind))
    whole, chain = (nnc.cost(nnc.inject(apply), tree, images).macs for tree in (weights, small))
    assert 0.85 * share * whole < chain <= share * whole
    np.testing.assert_allclose(
        nnc.inject(apply)(small, draw(1, 8, 8, 32)),
        apply(nnc.decompress(small), draw(1, 8, 8, 32)),
        atol=1e-3,
    )


def test_the_pair_is_the_best_of_its_rank():
    kernel = draw(3, 3, 8, 8)
    values = np.linalg.svd(np.asarray(kernel).transpose(0, 2, 1, 3).reshape(24, 24), compute_uv=False)
    weight = compressed(kernel, nnc.factorize(rank=6))
    np.testing.assert_allclose(
        jnp.linalg.norm(weight.materialise() - kernel), np.sqrt((values[6:] ** 2).sum()), rtol=1e-4
    )
    energy = 1 - (values[6:] ** 2).sum() / (values**2).sum()
    assert compressed(kernel, nnc.factorize(energy=energy - 1e-4)).factors[0].shape[-1] == 6


def test_what_would_not_be_cheaper_is_left_alone():
    with pytest.warns(LeftAlone, match=r"kernel: left as it is: its chain would take 1\.\d+ times"):
        assert compressed(draw(8, 8), nnc.factorize(rank=6)).shape == (8, 8)
    with pytest.warns(LeftAlone, match="depthwise"):
        compressed(draw(3, 3, 1, 8), nnc.factorize(rank=1))
    with pytest.warns(LeftAlone, match="relative error of 0"):
        compressed(draw(64, 64), nnc.factorize(rank=2, most_error=0.1))
