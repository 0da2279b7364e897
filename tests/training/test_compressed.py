"""Training on compressed weights: the types hold, what must not move does not, and runs are resumed as they were."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.training import checkpoint, loop
from nncompress_jax.training.config import Config
from nncompress_jax.training.structure import check_same, structure, with_structure
from nncompress_jax.tree import named_leaves
from nncompress_jax.weights.base import dense

CONFIG = Config(model="narrow_deep", dataset="tiny", epochs=2, batch_size=16, learning_rate=0.01)
IMAGES = jax.random.normal(jax.random.key(1), (4, 32, 32, 3))


SHALLOW = dataclasses.replace(CONFIG, model="narrow")


def initialized(config):
    network = nnc.models.create(config.model, num_classes=4, initialization="he")
    return network, jax.jit(network.init)(jax.random.key(0), IMAGES)


@pytest.fixture(scope="module")
def variables():
    return initialized(CONFIG)[1]


@pytest.fixture(scope="module")
def shallow():
    """A network of fewer layers, and its variables."""
    return initialized(SHALLOW)


def parts(variables):
    return {path: np.asarray(leaf) for path, leaf in named_leaves(variables)}


MOVES = {
    "Conv_0/kernel": (nnc.quantize(bits=4, where="*Conv_0/kernel"), {"codes": False, "scale": False}),
    "Conv_1/kernel": (
        nnc.fake_quantize(bits=4, learned_scales=True, where="*Conv_1/kernel"),
        {"weight": True, "scale": True},
    ),
    "Conv_2/kernel": (nnc.binarize(train=True, where="*Conv_2/kernel"), {"weight": True}),
    "Conv_3/kernel": (
        nnc.chain(nnc.prune(sparsity=0.9, where="*Conv_3/kernel"), nnc.cluster(bits=4, where="*Conv_3/kernel")),
        {"values/codebook": True, "values/codes": False, "positions": False},
    ),
    "Conv_4/kernel": (nnc.prune(pattern=(2, 4), where="*Conv_4/kernel"), {"values": True, "positions": False}),
    "Conv_5/kernel": (nnc.factorize(macs=0.2, where="*Conv_5/kernel"), {"factors/0": True, "factors/1": True}),
    "Dense_0/kernel": (lambda variables, context: variables, {"": True}),
}
"""Of one network: how each weight is compressed, and which of its parts training moves."""


def test_channels_that_are_cut_stay_cut(shallow, tiny_data, tmp_path):
    network, variables = shallow
    method = nnc.chain(nnc.prune_channels(macs=0.2), nnc.fake_quantize(bits=4, where="*Conv_1/kernel"))
    before = nnc.compress(variables, method, apply=network.apply, batches=[IMAGES])
    config = dataclasses.replace(SHALLOW, data_dir=tiny_data, workdir=str(tmp_path / "run"), epochs=1)
    after = checkpoint.restore(loop.train(config, before).workdir)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    check_same(structure(after), structure(before))
    old, new = parts(before), parts(after)
    moved = {path for path in old if not np.array_equal(old[path], new[path])}
    assert {"params/Conv_2/kernel/values", "params/Conv_1/kernel/values/weight"} < moved
    assert {"params/BatchNorm_2/scale/values", "batch_stats/BatchNorm_2/mean/values"} < moved
    last = before["params"]["Conv_3"]["kernel"].channels
    assert after["params"]["Conv_3"]["kernel"].channels == last
    assert last[-1] is not None


def test_a_run_moves_what_trains_and_holds_the_rest(variables, tiny_data, tmp_path):
    before = nnc.compress(variables, nnc.chain(*(method for method, _ in MOVES.values())))
    run = loop.train(dataclasses.replace(CONFIG, data_dir=tiny_data, workdir=str(tmp_path / "run"), epochs=1), before)
    after = checkpoint.restore(run.workdir)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    check_same(structure(after), structure(before))
    old, new = parts(before), parts(after)
    assert old.keys() == new.keys()
    for weight, (_, moves) in MOVES.items():
        for part, moved in moves.items():
            path = next(path for path in old if path.startswith(f"params/{weight}/{part}".rstrip("/")))
            assert np.array_equal(old[path], new[path]) != moved, path


def test_goes_on_where_it_stopped(shallow, tiny_data, tmp_path):
    """Two epochs at once, or cut after the first: the same bits; ranges that are tracked moved with what was seen."""
    network, variables = shallow
    config = dataclasses.replace(SHALLOW, data_dir=tiny_data)

    def compressed(bits):
        def where(path):
            return path.endswith(("Conv_0/kernel", "Conv_1/kernel", "Dense_0/kernel"))

        first = nnc.factorize(macs=0.3, where="*Conv_1/kernel")
        trained = nnc.fake_quantize(bits=bits, ranges=nnc.calibration.abs_max, tracked=True, where=where)
        return nnc.compress(variables, nnc.chain(first, trained), apply=network.apply, batches=[IMAGES])

    small = compressed(4)
    whole = loop.train(dataclasses.replace(config, workdir=str(tmp_path / "whole")), small)
    assert whole.progress.is_finished
    shutil.copytree(whole.workdir, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / str(whole.progress.steps))
    cut = loop.train(dataclasses.replace(config, workdir=str(tmp_path / "cut")), small)
    jax.tree.map(np.testing.assert_array_equal, checkpoint.restore(whole.workdir), checkpoint.restore(cut.workdir))

    for path in ("params/Conv_0/kernel/input_scale", "params/Conv_1/kernel/factors/0/input_scale"):
        before, after = parts(small)[path], parts(checkpoint.restore(cut.workdir))[path]
        assert before != after
        assert 0.5 < after / before < 2

    shutil.rmtree(tmp_path / "cut" / "checkpoints" / str(cut.progress.steps))
    with pytest.raises(nnc.InputError, match="Conv_0/kernel: stored as .*bits=4.*expected .*bits=2"):
        loop.train(dataclasses.replace(config, workdir=str(tmp_path / "cut")), compressed(2))


EVERY = {
    "quantize:2": nnc.quantize(bits=2, group=8, where="*"),
    "zero points": nnc.quantize(symmetric=False),
    "fake": nnc.fake_quantize(bits=2, learned_scales=True),
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


@pytest.mark.parametrize("method", [nnc.fake_quantize(bits=4), nnc.fake_quantize(bits=4, learned_scales=True)])
def test_a_checkpoint_of_an_earlier_version(method):
    """Fields that a type has since then are what they are by default, and only so."""
    small = nnc.compress({"kernel": jnp.ones((16, 16))}, method)
    described = structure(small)
    old = json.loads(json.dumps(described))
    for kind, name in (("static", "channels"), ("static", "rate"), ("parts", "price")):
        del old["kernel"][kind][name]
    check_same(old, described)
    other = json.loads(json.dumps(described))
    other["kernel"]["static"]["rate"] = 1.0
    with pytest.raises(nnc.InputError, match="stored as FakeQuantized.*rate=0.0.*expected FakeQuantized.*rate=1.0"):
        check_same(described, other)
    with pytest.raises(nnc.InputError, match="stored as FakeQuantized.*expected FakeQuantized"):
        check_same(old, other)


def test_recipes_in_words():
    for text, words in {
        "prune:0.9+shrink": "unknown step 'shrink' in recipe 'prune:0.9+shrink'; choose of quantize",
        "cluster:four": "'cluster:four' in recipe 'cluster:four': expected a number, as in cluster:4",
        "quantize:3.5": "expected a whole number",
    }.items():
        with pytest.raises(nnc.InputError) as error:
            nnc.recipe(text)
        assert words in str(error.value)
