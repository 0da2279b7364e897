"""Training on compressed weights: the types hold, what must not move does not, and runs are resumed as they were."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.training import checkpoint, loop
from nncompress_jax.training.config import Config
from nncompress_jax.tree import named_leaves
from nncompress_jax.weights.base import dense, is_compressed
from nncompress_jax.weights.structure import check_same, structure, with_structure

RECIPES = {
    "quantize:4": {"codes", "scale"},
    "fake_binarize": set(),
    "prune:0.9+cluster:4": {"positions", "codes"},
}
"""What does not move in training, by the name of the part."""


@pytest.fixture(scope="module")
def start(tiny_data, tmp_path_factory):
    config = Config(model="vgg11", dataset="tiny", data_dir=tiny_data, epochs=1, batch_size=16, learning_rate=0.01)
    return loop.train(dataclasses.replace(config, workdir=str(tmp_path_factory.mktemp("start") / "run"))), config


def compressed(start, recipe):
    run, _ = start
    variables = checkpoint.restore(run.workdir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)
        return nnc.compress(variables, nnc.recipe(recipe))


def parts(variables):
    return {path: np.asarray(leaf) for path, leaf in named_leaves(variables)}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_run_on_compressed_weights(start, recipe, tmp_path):
    _, config = start
    before = compressed(start, recipe)
    run = loop.train(dataclasses.replace(config, workdir=str(tmp_path / "run")), before)
    after = checkpoint.restore(run.workdir)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    check_same(structure(after), structure(before))
    old, new = parts(before), parts(after)
    assert old.keys() == new.keys()
    inside = [path for path, leaf in named_leaves(before, is_compressed) if is_compressed(leaf)]
    for path in old:
        within = [weight for weight in inside if path.startswith(f"{weight}/")]
        name = {part for part in path.split("/") if part in {"codes", "positions", "scale"}}
        held = bool(within and name & RECIPES[recipe])
        assert np.array_equal(old[path], new[path]) == held, path


def test_goes_on_where_it_stopped(start, tmp_path):
    """One epoch and then the second, or both at once: the same bits."""
    _, config = start
    recipe = "factorize:0.5+fake_quantize:4"
    config = dataclasses.replace(config, epochs=2)
    whole = loop.train(dataclasses.replace(config, workdir=str(tmp_path / "whole")), compressed(start, recipe))
    assert whole.progress.is_finished
    shutil.copytree(whole.workdir, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / str(whole.progress.steps))
    cut = loop.train(dataclasses.replace(config, workdir=str(tmp_path / "cut")), compressed(start, recipe))
    jax.tree.map(np.testing.assert_array_equal, checkpoint.restore(whole.workdir), checkpoint.restore(cut.workdir))
    other = compressed(start, "factorize:0.5+fake_quantize:2")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / str(cut.progress.steps))
    with pytest.raises(nnc.InputError, match="Conv_0/kernel: stored as .*bits=4.*expected .*bits=2"):
        loop.train(dataclasses.replace(config, workdir=str(tmp_path / "cut")), other)


def test_tracked_ranges_move(start, tmp_path):
    _, config = start
    network, variables = nnc.models.create("vgg11", num_classes=4), checkpoint.restore(start[0].workdir)
    method = nnc.fake_quantize(ranges=nnc.calibration.abs_max, tracked=True)
    batches = [jnp.ones((4, 32, 32, 3)), -jnp.ones((4, 32, 32, 3))]
    before = nnc.compress(variables, method, apply=network.apply, batches=batches)
    run = loop.train(dataclasses.replace(config, workdir=str(tmp_path / "run")), before)
    ranges = [parts(tree)["params/Conv_3/kernel/input_step"] for tree in (before, checkpoint.restore(run.workdir))]
    assert ranges[0] != ranges[1]
    assert 0.5 < ranges[1] / ranges[0] < 2


EVERY = {
    "quantize:2": nnc.quantize(bits=2, group=8, where="*"),
    "zero points": nnc.quantize(symmetric=False),
    "fake": nnc.fake_quantize(bits=2, learned_steps=True),
    "binary": nnc.binarize(inputs="sign"),
    "fake binary": nnc.binarize(train=True, scaled=False),
    "clusters by channel": nnc.cluster(bits=2, by_channel=True),
    "pattern": nnc.chain(nnc.prune(pattern=(2, 4)), nnc.quantize()),
    "sparse clusters": nnc.recipe("prune:0.5+cluster:3"),
    "low rank": nnc.recipe("factorize:0.5+quantize:4"),
}


@pytest.mark.parametrize("name", EVERY)
def test_structure_as_data(name):
    """Types and static parts come back from JSON; the arrays fill them; another static part is refused."""
    variables = {"kernel": jnp.asarray(np.random.default_rng(0).standard_normal((16, 16)), jnp.float32)}
    small = nnc.compress(variables, EVERY[name])
    described = structure(small)
    built = with_structure(jax.eval_shape(lambda: variables), described)
    assert jax.tree.structure(built) == jax.tree.structure(small)
    again = jax.tree.unflatten(jax.tree.structure(built), jax.tree.leaves(small))
    np.testing.assert_array_equal(dense(again["kernel"]), dense(small["kernel"]))
    check_same(structure(again), described)
    with pytest.raises(nnc.InputError, match="kernel: stored as a dense array, expected"):
        check_same({}, described)
    with pytest.raises(nnc.InputError, match="'Pickle' is no compressed weight"):
        with_structure(variables, {"kernel": described["kernel"] | {"type": "Pickle"}})


def test_recipes_in_words():
    for text, words in {
        "prune:0.9+shrink": "unknown step 'shrink' in recipe 'prune:0.9+shrink'; choose of quantize",
        "cluster:four": "'cluster:four' in recipe 'cluster:four': expected a number, as in cluster:4",
        "quantize:3.5": "expected a whole number of bits",
    }.items():
        with pytest.raises(nnc.InputError) as error:
            nnc.recipe(text)
        assert words in str(error.value)
