"""One budget over everything: it is held by the file itself, the choice is the best, and the search goes on."""

import json
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.search import candidates, drop
from nncompress_jax.search.cutting import SHARES
from tests.methods.drawn import draw

X = draw(256, 24, seed=9)
WEIGHTS = {
    "a": {"kernel": draw(24, 48), "bias": draw(48, seed=1)},
    "b": {"kernel": 0.3 * draw(48, 32, seed=2)},
    "c": {"kernel": draw(32, 4, seed=3)},
}
WHOLE = 4 * (24 * 48 + 48 + 48 * 32 + 32 * 4)


def apply(weights, x):
    x = jax.nn.relu(x @ weights["a"]["kernel"] + weights["a"]["bias"])
    return jax.nn.relu(x @ weights["b"]["kernel"]) @ weights["c"]["kernel"]


KNOWN = Path(tempfile.mkdtemp()) / "known.jsonl"
"""What one test measured, the others need not."""


def small(**options):
    options, found = {"file": KNOWN} | options, []
    made = nnc.compress(WEIGHTS, nnc.auto(report=found.append, **options), apply=apply, batches=[X[:128], X[128:]])
    return made, found[0]


def saved(tree, folder):
    nnc.save(folder / "a.nnc", tree)
    return (folder / "a.nnc").stat().st_size


def error(tree):
    outputs = nnc.inject(apply)(tree, X)
    return float(jnp.square(outputs - apply(WEIGHTS, X)).mean())


@pytest.mark.filterwarnings("ignore::nncompress_jax.methods.steps.Clipped")
@pytest.mark.parametrize("rounding", ["nearest", "second_order"])
@pytest.mark.parametrize("budget", [0.3, 0.2, 2100])
def test_the_file_is_within_the_budget(budget, rounding, tmp_path):
    made, found = small(bytes=budget, rounding=rounding)
    size, most = saved(made, tmp_path), budget if budget > 1 else budget * WHOLE
    assert size == found.size_bytes
    assert 0.9 * (most - 512) < size <= most - 512
    assert found.share == pytest.approx(size / WHOLE)
    assert [row["weight"] for row in found.table.rows] == ["a/kernel", "b/kernel", "c/kernel"]
    assert f"{size:,} bytes" in found.table.title


def test_it_is_nearer_than_one_step_for_all(tmp_path):
    made, found = small(bytes=0.2, rounding="nearest", inputs=False)
    same = next(
        other
        for step in np.geomspace(0.05, 3, 40)
        if saved(other := nnc.compress(WEIGHTS, nnc.quantize(step=step, inputs=False)), tmp_path) <= found.size_bytes
    )
    assert error(made) < error(same)


def test_the_second_order_is_nearer():
    errors = [error(small(bytes=0.2, rounding=each, inputs=False)[0]) for each in ("second_order", "nearest")]
    assert errors[0] < 0.8 * errors[1]


def test_it_is_the_same_again():
    one, other = (small(bytes=0.25, file=None)[0] for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_what_is_too_small_is_named_with_what_is_possible():
    with pytest.raises(nnc.InputError, match="bytes=0.01: with the coarsest steps a file has ") as error:
        small(bytes=0.01, macs=1, rounding="nearest")
    least = int(str(error.value).split("has ")[1].split(" bytes")[0].replace(",", ""))
    assert small(bytes=least, macs=1, rounding="nearest")[1].size_bytes + 512 == least
    with pytest.raises(nnc.InputError):
        small(bytes=least - 1, macs=1, rounding="nearest")


def test_what_is_too_small_for_any_cut_is_named():
    with pytest.raises(
        nnc.InputError, match="0.01: with the coarsest steps and 0.04 of the multiply-accumulates a file"
    ):
        small(bytes=0.01, rounding="nearest")


def test_it_goes_on_where_it_stopped(tmp_path, monkeypatch):
    """The second search looks at no ladder of the first; a third, of other weights, at all."""
    file, sizes, sized = tmp_path / "found.jsonl", [], candidates.stored_size

    def counted(weight):
        sizes.append(weight)
        if len(sizes) == candidates.RUNGS + 3:
            raise KeyboardInterrupt
        return sized(weight)

    monkeypatch.setattr(candidates, "stored_size", counted)
    with pytest.raises(KeyboardInterrupt):
        small(bytes=0.25, macs=1, rounding="nearest", file=file)
    assert len([json.loads(line) for line in file.read_text().splitlines()]) == 1
    resumed, _ = small(bytes=0.25, macs=1, rounding="nearest", file=file)
    assert len(sizes) == 3 * candidates.RUNGS + 3
    lines = file.read_text()
    again, _ = small(bytes=0.25, macs=1, rounding="nearest", file=file)
    assert (len(sizes), file.read_text()) == (3 * candidates.RUNGS + 3, lines)
    fresh, _ = small(bytes=0.25, macs=1, rounding="nearest", file=None)
    for other in (again, fresh):
        jax.tree.map(np.testing.assert_array_equal, resumed, other)


def test_channels_go_first():
    made, found = small(macs=0.5, bytes=0.15)
    assert nnc.cost(apply, made, X).macs == pytest.approx(0.5 * nnc.cost(apply, WEIGHTS, X).macs, rel=0.1)
    assert found.size_bytes <= 0.15 * WHOLE
    assert made["a"]["kernel"].nesting == "ChannelPruned of Quantized"
    alone, found = small(macs=0.5)
    assert alone["a"]["kernel"].nesting == "ChannelPruned"
    assert found.table.rows == []


SAME = np.repeat(np.arange(24), 6)
WIDE = {"a": draw(24, 24)[:, SAME], "b": draw(24, 24, seed=1)[SAME][:, SAME] / 6, "c": draw(24, 4, seed=2)[SAME] / 6}
NOISE = 0.02 * draw(144, 144, seed=7)
WIDE = {name: leaf * (1 + NOISE[: leaf.shape[0], : leaf.shape[1]]) for name, leaf in WIDE.items()}
"""Of six channels one is nearly enough."""


def wide(weights, x):
    return jax.nn.relu(jax.nn.relu(x @ weights["a"]) @ weights["b"]) @ weights["c"]


@pytest.mark.parametrize(("budget", "expected"), [(0.5, 1.0), (0.1, 0.25), (0.04, 0.12)])
def test_as_many_channels_go_as_serve_the_budget(budget, expected):
    """With the next share that could be tried outputs are further from what they were."""
    x = draw(2048, 24, seed=3)

    def distance(**options):
        found = []
        method = nnc.auto(bytes=budget, rounding="nearest", file=KNOWN, report=found.append, **options)
        made = nnc.compress(WIDE, method, apply=wide, batches=[x])
        return float(jnp.square(nnc.inject(wide)(made, x) - wide(WIDE, x)).sum()), found[0].macs

    least, macs = distance()
    assert macs == expected
    place = SHARES.index(macs)
    for share in (macs, SHARES[place + 1], *SHARES[place - 1 : place]):
        assert distance(macs=share) >= (least, share)


def test_channels_go_for_a_drop_too():
    x, inputs = draw(2048, 24, seed=3), draw(2000, 24, seed=11)
    options = {"max_drop": 0.3, "examples": (inputs, np.asarray(wide(WIDE, inputs).argmax(-1))), "rounding": "nearest"}
    found = []
    for macs in (None, 1):
        method = nnc.auto(**options, macs=macs, file=KNOWN, report=found.append)
        nnc.compress(WIDE, method, apply=wide, batches=[x])
    cut, whole = found
    assert cut.macs < whole.macs == 1
    assert cut.size_bytes < 0.7 * whole.size_bytes
    assert cut.drop.mean < cut.drop.most <= 0.3


def test_channels_stay_where_weights_are_named_and_where_none_can_go():
    _, found = small(bytes=0.4, where="b/*", rounding="nearest")
    assert (found.macs, [row["weight"] for row in found.table.rows]) == (1.0, ["b/kernel"])
    found = []
    method = nnc.auto(bytes=0.1, rounding="nearest", report=found.append)
    nnc.compress({"w": draw(64, 64)}, method, apply=lambda v, x: x @ v["w"], batches=[draw(256, 64)])
    assert found[0].macs == 1.0


def test_the_drop_is_held():
    inputs = draw(2000, 24, seed=11)
    labels = np.asarray(apply(WEIGHTS, inputs).argmax(-1))
    made, found = small(max_drop=0.05, examples=(inputs, labels), rounding="nearest")
    right = np.asarray(nnc.inject(apply)(made, inputs).argmax(-1)) == labels
    assert found.drop.mean == pytest.approx(1 - right.mean(), abs=0.002)
    assert found.drop.mean < found.drop.most <= 0.05
    _, strict = small(max_drop=0.02, measure=drop.measure_of(apply, inputs, labels), rounding="nearest")
    assert strict.size_bytes > found.size_bytes
    with pytest.raises(nnc.InputError, match="max_drop=0.001: with the finest steps .* give more examples"):
        small(max_drop=0.001, examples=(inputs[:100], labels[:100]), rounding="nearest")


@pytest.mark.parametrize(("before", "after"), [(0.9, 0.86), (0.9, 0.9), (0.6, 0.62)])
def test_the_bounds_of_a_drop_hold(before, after):
    """Of 2,000 draws of 400 examples about a twentieth are beyond each bound."""
    random, beyond = np.random.default_rng(0), np.zeros(2)
    for _ in range(2000):
        chance = random.random(400)
        one, other = chance < before, np.where(random.random(400) < 0.9, chance, random.random(400)) < after
        found = drop.paired(one, other)
        expected = before - after
        beyond += [found.least > expected, found.most < expected]
    assert (beyond / 2000 < 0.065).all()
    assert (beyond / 2000 > 0.02).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "auto takes a budget: bytes=, macs= or max_drop="),
        ({"bytes": 0}, "bytes=0: expected a share up to 1, or a number of bytes"),
        ({"macs": 2}, "macs=2: expected a share, more than 0 and up to 1"),
        ({"max_drop": 0.01}, r"max_drop= needs examples=\(inputs, labels\), or measure="),
        ({"max_drop": 2, "measure": len}, "max_drop=2: expected a share of the examples"),
        ({"bytes": 0.1, "max_drop": 0.01, "measure": len}, "both say how small the file is"),
        ({"max_drop": 0.01, "measure": len, "examples": (1, 2)}, "both say what is measured"),
        ({"bytes": 0.1, "rounding": "up"}, "rounding='up': expected"),
        ({"max_drop": 0.1, "examples": (X, np.zeros(3))}, r"labels \[3\] for 256 examples; expected a class for each"),
        ({"max_drop": 0.1, "measure": lambda v: 0.9}, "measure gave a number: expected an entry for each example"),
    ],
)
def test_in_one_line(options, words):
    with pytest.raises(nnc.InputError, match=words) as error:
        small(**options)
    assert "\n" not in str(error.value)


def test_without_a_network():
    with pytest.raises(nnc.InputError, match="auto needs apply= and batches="):
        nnc.compress(WEIGHTS, nnc.auto(bytes=0.1))
