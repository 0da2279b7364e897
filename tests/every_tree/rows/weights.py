"""Methods that make weights smaller, one by one."""

import functools
import warnings
from typing import Any

import jax
import numpy as np

import nncompress_jax as nnc
from tests.every_tree.network import Kind
from tests.every_tree.rows.checks import both, compressed, eps, is_compressed, kept, pairs, row, wide


def within_half_a_step(kind: Kind, small: Any, most: float, steps: float = 0.5) -> None:
    for before, after in pairs(kind, small):
        step = abs(before).max(-2, keepdims=True) / most
        assert (abs(after - before) <= steps * step * (1 + 1e-5) + eps(kind) * abs(before)).all()
        assert (after != before).any()


def pruned(kind: Kind, small: Any, sparsity: float) -> None:
    for before, after in pairs(kind, small):
        gone = after == 0
        assert gone.sum() == round(sparsity * before.size)
        assert (after[~gone] == before[~gone]).all()
        assert abs(before[gone]).max() <= abs(before[~gone]).min()


@row
def compress(kind, folder):
    """By default: 8 bits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = nnc.compress(kind.variables)
    types = [type(leaf).__name__ for leaf in jax.tree.leaves(small, is_leaf=is_compressed) if is_compressed(leaf)]
    assert types == ["Quantized"] * len(kind.weights)
    kept(kind, nnc.decompress(small))


@row
def quantize(kind, folder):
    within_half_a_step(kind, compressed(kind, nnc.quantize()), 127.5)


@row
def quantize_of_4_bits(kind, folder):
    within_half_a_step(kind, compressed(kind, nnc.quantize(bits=4)), 7.5)


@row
def quantize_of_3_bits(kind, folder):
    within_half_a_step(kind, compressed(kind, nnc.quantize(bits=3)), 3.5)


@row
def quantize_of_2_bits_in_groups(kind, folder):
    within_half_a_step(kind, compressed(kind, nnc.quantize(bits=2, group=8)), 1.5)


@row
def quantize_of_a_step(kind, folder):
    for before, after in pairs(kind, compressed(kind, nnc.quantize(step=0.5))):
        codes = np.clip(np.rint(before / 0.5), -127, 127)
        assert (abs(after - codes * 0.5) <= eps(kind) * abs(before)).all()


@row
def quantize_of_a_rate(kind, folder):
    """Of entropy: at most so many bits an entry, and less than half a step from each."""
    for before, after in pairs(kind, compressed(kind, nnc.quantize(rate=2.0))):
        values, counts = np.unique(after, return_counts=True)
        assert counts @ np.log2(after.size / counts) <= 2 * after.size
        assert abs(after - before).max() <= 0.51 * np.diff(values).min() * (1 + eps(kind))


@row
def quantize_of_a_zero_point(kind, folder):
    for before, after in pairs(kind, compressed(kind, nnc.quantize(symmetric=False))):
        step = (before.max(-2, keepdims=True) - before.min(-2, keepdims=True)) / 255
        assert (abs(after - before) <= step * (1 + 1e-5) + eps(kind) * abs(before)).all()


@row
def prune(kind, folder):
    pruned(kind, compressed(kind, nnc.prune(sparsity=0.75)), 0.75)


def pruned_by(kind: Kind, criterion: Any) -> None:
    """Of half of the entries."""
    for before, after in pairs(kind, compressed(kind, nnc.prune(sparsity=0.5, criterion=criterion))):
        assert (after == 0).sum() == before.size // 2
        assert (after[after != 0] == before[after != 0]).all()


@row
def criteria__obd(kind, folder):
    pruned_by(kind, nnc.criteria.obd(kind.apply, kind.variables, [kind.x]))


@row
def criteria__fisher(kind, folder):
    pruned_by(kind, nnc.criteria.fisher(kind.apply, kind.variables, [kind.x], [np.arange(4)]))


@row
def auto(kind, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = nnc.auto(bytes=0.5, rounding="nearest")
        small = nnc.compress(kind.variables, made, apply=kind.apply, batches=[kind.x])
    for before, after in pairs(kind, small):  # half of 16 bits leaves fewer than half of 32
        assert abs(before - after).max() < abs(before).max() / (50 if eps(kind) < 1e-6 else 16)


@row
def front(kind, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = nnc.front(kind.apply, kind.variables, [kind.x], bytes=[0.6, 0.5], rounding="nearest")
    assert [round(row["budget"], 1) for row in found.table.rows] == [0.6, 0.5]


@row
def prune_of_a_pattern(kind, folder):
    for before, after in pairs(kind, compressed(kind, nnc.prune(pattern=(2, 4)))):
        fours = after.reshape(*after.shape[:-2], -1, 4, after.shape[-1])
        assert ((fours != 0).sum(-2) == 2).all()
        assert (after[after != 0] == before[after != 0]).all()


@row
def prune_of_all_together(kind, folder):
    (*all_pairs,) = pairs(kind, compressed(kind, nnc.prune(sparsity=0.6, scope="global")))
    before, after = (np.concatenate([pair[n].ravel() for pair in all_pairs]) for n in (0, 1))
    assert (after == 0).sum() == round(0.6 * after.size)
    assert abs(before[after == 0]).max() <= abs(before[after != 0]).min()


@row
def ternarize(kind, folder):
    """Three values, of which the outer ones are means."""
    for before, after in pairs(kind, compressed(kind, nnc.ternarize())):
        assert len(np.unique(after)) <= 3
        for side in (after > 0, after < 0):
            if side.any():
                assert abs(before[side].mean() - after[side][0]) <= (1e-5 + eps(kind)) * abs(before).max()


@row
def mixed_bits(kind, folder):
    """No more bits than there may be, and with all of them the weights that `quantize` makes."""
    for before, after in pairs(kind, compressed(kind, nnc.mixed_bits(bits=3))):
        assert abs(after - before).max() <= abs(before).max() * (0.5 + eps(kind))
    most, expected = (compressed(kind, method) for method in (nnc.mixed_bits(bits=8), nnc.quantize()))
    for (_, one), (_, other) in zip(pairs(kind, most), pairs(kind, expected), strict=True):
        np.testing.assert_array_equal(one, other)


@row
def hash_weights(kind, folder):
    """As many values as were asked for, each with both signs."""
    for before, after in pairs(kind, compressed(kind, nnc.hash_weights(share=0.25))):
        assert len(np.unique(abs(after))) <= -(-before.size // 4)
        assert abs(after).max() <= abs(before).max() * (1 + eps(kind))


@row
def cluster(kind, folder):
    """Each is the nearest of the values, and each value the mean of those that it stands for."""
    for before, after in pairs(kind, compressed(kind, nnc.cluster(bits=3))):
        values = np.unique(after)
        assert len(values) <= 8
        assert (abs(after - before) <= abs(before[..., None] - values).min(-1) + eps(kind) * abs(before).max()).all()
        for value in values:
            assert abs(before[after == value].mean() - value) <= 1e-5 * abs(before).max() + eps(kind) * abs(value)


@row
def binarize(kind, folder):
    for before, after in pairs(kind, compressed(kind, nnc.binarize())):
        means = abs(before).mean(-2, keepdims=True)
        assert (abs(after - np.where(before >= 0, means, -means)) <= (1e-5 + eps(kind)) * means).all()


@row
def factorize(kind, folder):
    """As near as the singular values allow."""
    is_stacked = np.ndim(kind.parts(kind.variables)["W"]) > 2
    if is_stacked:
        small = compressed(kind, nnc.factorize(rank=4), left=kind.paths)
        return kept(kind, small)
    for before, after in pairs(kind, compressed(kind, nnc.factorize(rank=4))):
        singular = np.linalg.svd(before, compute_uv=False)
        error, least = np.linalg.norm(after - before), np.sqrt((singular[4:] ** 2).sum())
        rounding = 8 * eps(kind) * np.linalg.norm(before)
        assert least * (1 - 1e-5) - rounding <= error <= least * (1 + 1e-5) + rounding
    return None


@row
def fake_quantize(kind, folder):
    within_half_a_step(kind, compressed(kind, nnc.fake_quantize()), 127.5)


@row
def convert(kind, folder):
    trained = compressed(kind, nnc.fake_quantize(bits=4))
    small = nnc.convert(trained)
    within_half_a_step(kind, small, 7.5)
    for (_, before), (_, after) in zip(pairs(kind, trained), pairs(kind, small), strict=True):
        assert (before == after).all()
    assert all(one is other for one, other in both(kind.variables, nnc.convert(kind.variables)))


@row
def chain(kind, folder):
    """A half goes, the rest moves by half a step at most."""
    for before, after in pairs(kind, compressed(kind, nnc.prune(sparsity=0.5), nnc.quantize(axes=()))):
        middle = np.sort(abs(before).ravel())[before.size // 2]
        assert (after[abs(before) < middle] == 0).all()
        step = abs(before).max() / 127.5
        stays = abs(before) > middle
        assert (abs(after - before)[stays] <= step / 2 * (1 + 1e-5) + eps(kind) * abs(before[stays])).all()


@row
def recipe(kind, folder):
    for before, after in pairs(kind, compressed(kind, nnc.recipe("prune:0.5+cluster:2"))):
        assert (after == 0).sum() == before.size // 2
        assert len(np.unique(after)) <= 5


@row
def decompress(kind, folder):
    """What is dense stays the object that it is."""
    assert all(one is other for one, other in both(kind.variables, nnc.decompress(kind.variables)))


def closer(kind: Kind, method: Any, **second: Any) -> None:
    """Outputs come closer to those of the network as it was."""
    small = [compressed(kind, method(**options)) for options in ({}, second)]
    before, *after = (jax.tree.leaves(nnc.inject(kind.apply)(tree, kind.x)) for tree in (kind.variables, *small))
    errors = [sum(np.square(wide(x) - wide(y)).sum() for x, y in zip(before, each, strict=True)) for each in after]
    assert errors[1] < 0.8 * errors[0], errors


@row
def quantize_of_the_second_order(kind, folder):
    closer(kind, functools.partial(nnc.quantize, bits=4, inputs=False), rounding="second_order")


@row
def cluster_of_the_second_order(kind, folder):
    closer(kind, functools.partial(nnc.cluster, bits=8), rounding="second_order")


@row
def binarize_of_the_second_order(kind, folder):
    closer(kind, nnc.binarize, rounding="second_order")


@row
def prune_of_the_second_order(kind, folder):
    closer(kind, functools.partial(nnc.prune, sparsity=0.5), compensate=True)


@row
def factorize_of_the_second_order(kind, folder):
    if np.ndim(kind.parts(kind.variables)["W"]) > 2:
        compressed(kind, nnc.factorize(rank=8, compensate=True), left=kind.paths)
    else:
        closer(kind, functools.partial(nnc.factorize, rank=8), compensate=True)
