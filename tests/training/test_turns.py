"""Compressing and training in turns, within one run."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.commands.initial import initial_variables
from nncompress_jax.commands.turns import stages, turns_of
from nncompress_jax.training import checkpoint, loop
from nncompress_jax.training.config import Config
from nncompress_jax.weights.base import is_compressed

CONFIG = Config(model="narrow", dataset="tiny", epochs=1, batch_size=16, learning_rate=0.01)


@pytest.fixture(scope="module")
def trained(tiny_data, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("turns") / "run")
    loop.train(dataclasses.replace(CONFIG, data_dir=tiny_data, workdir=folder))
    return folder


@pytest.fixture
def configured(trained, tiny_data, tmp_path):
    def made(recipe, name="run", **options):
        changed = {"init": trained, "recipe": recipe, "workdir": str(tmp_path / name), "data_dir": tiny_data, **options}
        return dataclasses.replace(CONFIG, **changed)

    return made


def run(config):
    return loop.train(config, initial_variables(config), turns=turns_of(config))


def sparsities(variables):
    weights = [leaf for leaf in jax.tree.leaves(variables, is_leaf=is_compressed) if is_compressed(leaf)]
    return [1 - leaf.density for leaf in weights]


def test_words():
    assert [(s.epoch, s.text, s.restarts) for s in stages("prune:0.5/prune:0.75+cluster:4/dense", 3)] == [
        (0, "prune:0.5", True),
        (3, "prune:0.75+cluster:4", True),
        (6, "dense", True),
    ]
    gradual = stages("prune_global:0.9@cubic/dense", 9)
    assert [s.epoch for s in gradual] == [0, 1, 2, 3, 4, 5, 9]
    assert [s.restarts for s in gradual] == [True, *[False] * 5, True]
    numbers = [float(s.text.partition(":")[2]) for s in gradual[:6]]
    np.testing.assert_allclose(numbers, 0.9 - 0.9 * (1 - np.arange(1, 7) / 6) ** 3, rtol=1e-5)


def test_dense_sparse_dense_equals_runs_by_hand(configured):
    """Weights, statistics and momentum of two runs, the second of which begins with what the first ended with."""
    config = configured("prune:0.5/dense")
    whole = run(config)
    assert whole.progress.total_steps == 8
    assert whole.progress.is_finished
    first = run(configured("prune:0.5", "first"))
    middle = checkpoint.restore(first.workdir)
    assert set(np.round(sparsities(middle), 2)) == {0.5}
    after = checkpoint.restore(whole.workdir)
    assert not sparsities(after)
    before, weights = (jax.tree.leaves(nnc.decompress(tree)["params"]) for tree in (middle, after))
    regrown = [(old == 0) & (new != 0) for old, new in zip(before, weights, strict=True) if old.ndim > 1]
    assert all(places.mean() > 0.3 for places in regrown)
    rates = [json.loads(line)["learning_rate"] for line in (whole.workdir / "metrics.jsonl").read_text().splitlines()]
    assert rates[0] == rates[1]  # the schedule restarts


@pytest.mark.parametrize("recipe", ["prune:0.5/prune:0.75/dense", "prune:0.8@cubic/cluster:4"])
def test_goes_on_where_it_stopped(recipe, configured, tmp_path):
    """From a checkpoint of each turn, between and within epochs: the same bits as in one go."""
    config = configured(recipe, "whole", epochs=2, checkpoint_steps=3, keep_last=50)
    whole = run(config)
    expected = checkpoint.restore(whole.workdir)
    steps = sorted(int(folder.name) for folder in (whole.workdir / "checkpoints").iterdir() if folder.name.isdigit())
    for last in (steps[0], steps[len(steps) // 2], 8, steps[-2]):
        cut = tmp_path / f"cut{last}"
        shutil.copytree(whole.workdir, cut)
        for step in steps:
            if step > last:
                shutil.rmtree(cut / "checkpoints" / str(step))
        again = run(dataclasses.replace(config, workdir=str(cut)))
        found = checkpoint.restore(again.workdir)
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_gradual_schedule_keeps_what_the_optimizer_knows(configured, monkeypatch):
    """Sparsity rises before each epoch; the learning rate runs on; momentum of dense parts stays."""
    config = configured("prune:0.8@cubic", epochs=3)
    seen = []
    turned = loop.turned

    def watched(state, turn, begun):
        new = turned(state, turn, begun)
        states = jax.device_get((state.opt_state, new.opt_state))
        seen.append((sparsities(state.variables), sparsities(new.variables), *states))
        return new

    monkeypatch.setattr(loop, "turned", watched)
    result = run(config)
    assert len(seen) == 1
    before, after, old, new = seen[0]
    assert set(np.round(before, 2)) == {0.7}
    assert set(np.round(after, 2)) == {0.8}
    momenta = [dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (old, new)]
    biases = [path for path in momenta[0] if "bias" in str(path)]
    assert biases
    for path in biases:
        np.testing.assert_array_equal(momenta[0][path], momenta[1][path])
        assert np.abs(momenta[1][path]).max() > 0
    lines = (result.workdir / "metrics.jsonl").read_text().splitlines()
    rates = [json.loads(line)["learning_rate"] for line in lines]
    assert len(rates) == 3
    assert rates[2] < rates[1] < rates[0]
    assert set(np.round(sparsities(checkpoint.restore(result.workdir)), 2)) == {0.8}


@pytest.mark.parametrize(
    "recipe", ["cluster:4@cubic", "prune:0.5@linear", "prune:x@cubic", "prune:0.5@cubic+cluster:4"]
)
def test_refusals(recipe, configured):
    with pytest.raises(nnc.InputError, match="expected a"):
        initial_variables(configured(recipe))
