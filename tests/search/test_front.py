"""Networks for several budgets, each reachable."""

import jax
import numpy as np
import pytest

import nncompress_jax as nnc
from tests.search.test_auto import WEIGHTS, WHOLE, X, apply, saved, small

LABELS = np.asarray(apply(WEIGHTS, X).argmax(-1))


def right(weights):
    return np.asarray(nnc.inject(apply)(weights, X).argmax(-1)) == LABELS


def of(**options):
    return nnc.front(apply, WEIGHTS, [X[:128], X[128:]], bytes=[0.2, 0.3, 0.01, 2500], rounding="nearest", **options)


def test_every_point_is_what_auto_makes(tmp_path):
    found = of(measure=right, title="three layers")
    assert [row["budget"] for row in found.table.rows] == pytest.approx([0.3, 2500 / WHOLE, 0.2])  # 0.01 cannot be
    for point, row in zip(found.points, found.table.rows, strict=True):
        made = nnc.compress(WEIGHTS, point.method, apply=apply, batches=[X[:128], X[128:]])
        other, _ = small(bytes=point.budget, rounding="nearest")
        jax.tree.map(np.testing.assert_array_equal, made, other)
        assert row["bytes"] == saved(made, tmp_path) <= point.budget * WHOLE
        assert row["accuracy"] == right(made).mean()
        assert sum(weight["loss"] for weight in point.weights.rows) == pytest.approx(row["loss"])
        picked = [{**row} for row in point.candidates.rows if row["chosen"]]
        assert [row | {"chosen": True} for row in point.weights.rows] == picked
        assert len(point.candidates.rows) == 24 * len(picked)
    losses = [row["loss"] for row in found.table.rows]
    assert losses == sorted(losses)


def test_without_a_measure_sizes_are_predicted(tmp_path):
    found = of()
    for point, row in zip(found.points, found.table.rows, strict=True):
        made = nnc.compress(WEIGHTS, point.method, apply=apply, batches=[X[:128], X[128:]])
        assert row["accuracy"] is None
        assert saved(made, tmp_path) == pytest.approx(row["bytes"], rel=0.05)


def test_budgets_that_cannot_be():
    with pytest.raises(nnc.InputError, match="bytes=.-1.: expected shares up to 1, or numbers of bytes"):
        nnc.front(apply, WEIGHTS, [X], bytes=[0.5, -1])
    with pytest.raises(nnc.InputError, match="bytes=0.02: with the coarsest steps a file has"):
        nnc.front(apply, WEIGHTS, [X], bytes=[0.01, 0.02], rounding="nearest")
