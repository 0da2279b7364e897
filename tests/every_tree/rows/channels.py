"""Methods that take channels away."""

from typing import Any

import jax
import numpy as np

import nncompress_jax as nnc
from tests.every_tree.network import WIDTH, Kind
from tests.every_tree.rows.checks import cut, row, wide


def half(kind: Kind, **options: Any) -> tuple[Any, np.ndarray]:
    """Without half of the hidden channels; and which are there."""
    small = cut(kind, nnc.prune_channels(keep=0.5, **options), left=())
    before, after = kind.parts(kind.variables), kind.parts(nnc.decompress(small))
    there = wide(after["W"]).any(0)
    assert there.sum() == WIDTH // 2
    for name, axis in (("W", 1), ("b", 0), ("V", 0)):
        old, new = (np.moveaxis(wide(array), axis, 0) for array in (before[name], after[name]))
        assert (new[there] == old[there]).all()
        assert not new[~there].any()
    return small, there


def largest(scores: np.ndarray) -> set[int]:
    return set(np.argsort(-scores)[: WIDTH // 2].tolist())


@row
def prune_channels(kind, folder):
    _, there = half(kind)
    assert set(np.flatnonzero(there)) == largest(abs(wide(kind.parts(kind.variables)["W"])).sum(0))


@row
def remove_unused_channels(kind, folder):
    """Nothing is unused until V multiplies half of the hidden channels by zero."""
    method = nnc.remove_unused_channels()
    assert same(kind, cut(kind, method, left=()), kind.variables)
    sparse, _ = half(kind)
    again = nnc.compress(nnc.decompress(sparse), method, apply=kind.apply, batches=[kind.x])
    assert jax.tree.structure(again) == jax.tree.structure(sparse)
    assert same(kind, again, sparse)


def same(kind: Kind, one: Any, other: Any) -> bool:
    """Whether numbers are the same."""
    parts = [kind.parts(nnc.decompress(each)) for each in (one, other)]
    return all((wide(parts[0][name]) == wide(parts[1][name])).all() for name in parts[0])


@row
def criteria__l1(kind, folder):
    _, there = half(kind, criterion=nnc.criteria.l1)
    assert set(np.flatnonzero(there)) == largest(abs(wide(kind.parts(kind.variables)["W"])).sum(0))


@row
def criteria__l2(kind, folder):
    _, there = half(kind, criterion=nnc.criteria.l2)
    assert set(np.flatnonzero(there)) == largest((wide(kind.parts(kind.variables)["W"]) ** 2).sum(0))


@row
def criteria__geometric_median(kind, folder):
    _, there = half(kind, criterion=nnc.criteria.geometric_median)
    filters = wide(kind.parts(kind.variables)["W"]).T
    assert set(np.flatnonzero(there)) == largest(np.linalg.norm(filters[:, None] - filters, axis=-1).sum(0))


@row
def criteria__random(kind, folder):
    _, there = half(kind, criterion=nnc.criteria.random(jax.random.key(0)))
    _, others = half(kind, criterion=nnc.criteria.random(jax.random.key(1)))
    assert (there != others).any()


@row
def criteria__batch_norm_scale(kind, folder):
    """No normalization is here."""
    half(kind, criterion=nnc.criteria.batch_norm_scale)


@row
def criteria__taylor(kind, folder):
    """The loss is the sum of the outputs: of a hidden channel, what it hands on times its row of V, summed."""
    criterion = nnc.criteria.taylor(lambda outputs, labels: outputs.sum(), [(kind.x, np.zeros(4))])
    _, there = half(kind, criterion=criterion)
    parts = {name: wide(array) for name, array in kind.parts(kind.variables).items()}
    hidden = np.maximum(wide(kind.x) @ parts["W"] + parts["b"], 0)
    assert set(np.flatnonzero(there)) == largest(abs(hidden * parts["V"].sum(1)).mean(0))


@row
def criteria__reconstruction(kind, folder):
    half(kind, criterion=nnc.criteria.reconstruction([kind.x], samples=64))


@row
def criteria__summed(kind, folder):
    _, there = half(kind, criterion=nnc.criteria.summed(lambda path, weights: abs(weights)))
    assert set(np.flatnonzero(there)) == largest(abs(wide(kind.parts(kind.variables)["W"])).sum(0))


@row
def shrink(kind, folder):
    small, there = half(kind)
    before = {name: wide(array) for name, array in kind.parts(kind.variables).items()}
    narrow = nnc.shrink(small)
    assert jax.tree.structure(narrow) == jax.tree.structure(kind.variables)
    after = {name: wide(array) for name, array in kind.parts(narrow).items()}
    assert after["W"].tolist() == before["W"][:, there].tolist()
    assert after["b"].tolist() == before["b"][there].tolist()
    assert after["V"].tolist() == before["V"][there].tolist()
    assert after["c"].tolist() == before["c"].tolist()


@row
def sensitivity(kind, folder):
    """Measured by the sum of magnitudes of W, of which the least column goes first."""

    def measure(tree: Any) -> float:
        return float(abs(wide(kind.parts(tree)["W"])).sum())

    table = nnc.sensitivity(kind.apply, kind.variables, measure, batches=[kind.x], rates=[0.5])
    sums = np.sort(abs(wide(kind.parts(kind.variables)["W"])).sum(0))
    assert [(r["group"], r["channels"], r["kept"]) for r in table.rows] == [(kind.group, 32, 32), (kind.group, 32, 16)]
    np.testing.assert_allclose([r["accuracy"] for r in table.rows], [sums.sum(), sums[16:].sum()], rtol=1e-6)


@row
def coupling(kind, folder):
    found = nnc.coupling(kind.apply, kind.variables, kind.x)
    if not kind.group:
        assert not found.groups
        return
    (group,) = found.groups
    assert (group.name, group.size, len(group.members)) == (kind.group, WIDTH, 3)
    assert {member.path for member in group.members} >= set(kind.paths)
    assert found.macs({group.name: np.arange(WIDTH) < 8}) == 2 * WIDTH * 8
