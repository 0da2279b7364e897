"""Pruning: what stays, and how much of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.methods.prune import random
from nncompress_jax.methods.selection import Larger, LeftAlone
from tests.methods.drawn import compressed, draw


@pytest.mark.filterwarnings("ignore::nncompress_jax.methods.selection.Larger")
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_magnitude_pruning_keeps_the_largest(sparsity):
    kernel = draw(3, 3, 16, 16)
    weight = compressed(kernel, nnc.prune(sparsity=sparsity))
    kept = np.asarray(weight.materialise()) != 0
    assert kept.sum() == weight.values.size == kernel.size - round(sparsity * kernel.size)
    np.testing.assert_array_equal(weight.materialise()[kept], kernel[kept])
    if sparsity:
        assert np.abs(kernel[kept]).min() >= np.abs(kernel[~kept]).max()


@pytest.mark.filterwarnings("ignore::nncompress_jax.methods.selection.Larger")
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_pruning_goes_on_where_it_stopped(scope):
    tree = {"a": {"kernel": draw(32, 32)}, "b": {"kernel": draw(32, 32, seed=1)}}
    at_once = nnc.compress(tree, nnc.prune(sparsity=0.8, scope=scope))
    in_steps = nnc.compress(tree, nnc.chain(*(nnc.prune(sparsity=share, scope=scope) for share in (0.5, 0.8))))
    jax.tree.map(np.testing.assert_array_equal, in_steps, at_once)


@pytest.mark.filterwarnings("ignore::nncompress_jax.methods.selection.Larger")
def test_global_pruning_takes_from_the_weakest_layer():
    tree = {"strong": {"kernel": 10 * draw(32, 32)}, "weak": {"kernel": draw(32, 32, seed=1)}}
    small = nnc.compress(tree, nnc.prune(sparsity=0.4, scope="global"))
    sizes = {name: small[name]["kernel"].values.size for name in tree}
    assert sum(sizes.values()) == 2048 - round(0.4 * 2048)
    assert sizes["strong"] > 2 * sizes["weak"]


def test_a_pattern_keeps_so_many_of_each_group():
    kernel = draw(3, 3, 16, 8)
    weight = compressed(kernel, nnc.prune(pattern=(2, 4)))
    groups = np.asarray(weight.materialise()).reshape(3, 3, 4, 4, 8)
    assert ((groups != 0).sum(3) == 2).all()
    largest = np.sort(np.abs(np.asarray(kernel)).reshape(3, 3, 4, 4, 8), axis=3)[:, :, :, 2:]
    np.testing.assert_array_equal(np.sort(np.abs(groups), axis=3)[:, :, :, 2:], largest)
    assert weight.nbytes == kernel.nbytes // 2 + kernel.size // 2 // 4
    with pytest.warns(LeftAlone, match="kernel: left as it is: 3 input channels, expected a multiple of 4"):
        assert compressed(draw(3, 3, 3, 8), nnc.prune(pattern=(2, 4))).shape == (3, 3, 3, 8)


def test_random_pruning_is_the_seeds():
    first, again, other = (
        compressed(draw(16, 16), nnc.prune(sparsity=0.5, criterion=random(jax.random.key(k)))) for k in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.positions, again.positions)
    assert (first.positions != other.positions).any()


RANDOM = np.random.default_rng(0)
SHAPES = {"a": (30, 20), "b": (7, 11), "c": (50, 9)}
TIES = {
    "mostly zeros": lambda shape: np.where(RANDOM.random(shape) < 0.9, 0, RANDOM.standard_normal(shape)),
    "signs": lambda shape: RANDOM.choice([-1.0, 1.0], shape),
    "bfloat16": lambda shape: np.asarray(jnp.asarray(RANDOM.standard_normal(shape), jnp.bfloat16), np.float32),
}


@pytest.mark.filterwarnings("ignore::nncompress_jax.methods.selection.Larger")
@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("sparsity", [0.5, 0.8])
@pytest.mark.parametrize("kind", TIES)
def test_exactly_the_share_goes(kind, sparsity, scope):
    """Equal scores are no way around the share; none goes that is above one that stays."""
    weights = {name: {"kernel": jnp.asarray(TIES[kind](shape), jnp.float32)} for name, shape in SHAPES.items()}
    small = nnc.compress(weights, nnc.prune(sparsity=sparsity, scope=scope))
    counts = {name: layer["kernel"].positions.size for name, layer in small.items()}
    sizes = {name: np.prod(shape) for name, shape in SHAPES.items()}
    if scope == "global":
        total = sum(sizes.values())
        assert sum(counts.values()) == total - round(sparsity * total)
    else:
        assert counts == {name: size - round(sparsity * size) for name, size in sizes.items()}
    kept, gone = [], []
    for name, layer in small.items():
        flat, there = np.abs(np.ravel(weights[name]["kernel"])), np.zeros(sizes[name], bool)
        there[layer["kernel"].positions] = True
        kept.append(flat[there])
        gone.append(flat[~there])
        assert scope == "global" or kept[-1].min() >= gone[-1].max()
    assert scope == "layer" or np.concatenate(kept).min() >= np.concatenate(gone).max()


def test_a_weight_that_grows_is_named():
    """Of 8 floats 6 stay, with a position each: 48 bytes for 32."""
    with pytest.warns(Larger, match="kernel: takes 48 bytes, 1.50 times what it took"):
        nnc.compress({"kernel": jnp.arange(8.0).reshape(2, 4)}, nnc.prune(sparsity=0.25))


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_nothing_that_can_be_pruned(scope):
    variables = {"kernel": jnp.ones((4, 4), jnp.complex64)}
    with pytest.warns(LeftAlone, match="kernel: left as it is: complex64"):
        assert nnc.compress(variables, nnc.prune(sparsity=0.5, scope=scope))["kernel"] is variables["kernel"]
