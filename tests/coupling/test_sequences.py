"""Channels of networks for sequences: what can be cut, and that the program costs what was announced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.tree import named_leaves
from tests.coupling.sequences import SEQUENCES


def zeroed(variables, found, keep):
    """The dense network with zeros wherever the other channels stand."""
    leaves = dict(named_leaves(variables))
    for member, name in ((member, group.name) for group in found.groups for member in group.members):
        there = np.append(keep[name], True)[member.channels]
        shape = [-1 if axis == member.axis else 1 for axis in range(leaves[member.path].ndim)]
        leaves[member.path] = jnp.where(there.reshape(shape), leaves[member.path], 0)
    return jax.tree.unflatten(jax.tree.structure(variables), [*leaves.values()])


@pytest.mark.parametrize("case", SEQUENCES)
def test_cut_is_zeroed_at_the_cost_announced(case):
    make, sizes = SEQUENCES[case]
    apply, weights, x = make()
    found = nnc.coupling(apply, weights, x)
    assert sorted((group.size for group in found.groups), reverse=True) == sizes
    whole = nnc.cost(apply, weights, x).macs
    assert found.macs({}) == whole
    for share in (0.25, 0.75, 0.5):
        keep = {
            group.name: np.random.default_rng(0).permutation(group.size) < max(1, share * group.size)
            for group in found.groups
        }
        cut = found.cut(weights, keep)
        assert found.macs(keep) == nnc.cost(apply, cut, x).macs < whole
    expected = jax.jit(apply)(zeroed(weights, found, keep), x)
    outputs = jax.jit(nnc.inject(apply))(cut, x)
    np.testing.assert_allclose(outputs, expected, atol=2e-6 * float(jnp.abs(expected).max()))


def test_macs_of_all_heads_by_hand():
    """Of Qwen3, where one of two shared heads and half of the gated layer stay."""
    make, _ = SEQUENCES["Qwen3"]
    apply, weights, ids = make()
    found = nnc.coupling(apply, weights, ids)
    keep = {group.name: np.arange(group.size) < group.size // 2 for group in found.groups}
    tokens, width, heads, each = 6, 12, 2, 6
    projections = width * (heads + 1 + 1) * each + heads * each * width
    attention = 2 * heads * tokens * each
    assert found.macs(keep) == tokens * (3 * (projections + attention + 3 * width * 10) + width * 9)


def test_products_of_the_whole_batch_are_rounded_as_cost_rounds():
    """What is computed once for all examples need not divide by their number."""
    weights = {"a": jnp.ones((3, 8)), "b": jnp.ones((8, 4)), "mix": jnp.ones((7, 3))}
    apply = lambda w, x: (w["mix"] @ jnp.tanh(x[:3] @ w["a"])) @ w["b"]  # noqa: E731
    found = nnc.coupling(apply, weights, jnp.ones((5, 3)))
    for kept in (3, 5, 8):
        keep = {found.groups[0].name: np.arange(8) < kept}
        assert found.macs(keep) == nnc.cost(apply, found.cut(weights, keep), jnp.ones((5, 3))).macs
