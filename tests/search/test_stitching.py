"""What stands around the weights: statistics that follow the weights, and short vectors."""

import jax
import jax.numpy as jnp
import numpy as np

import nncompress_jax as nnc
from nncompress_jax.search.reference import Reference
from nncompress_jax.search.stitching import Stitching, estimated, file_bytes, shortened
from nncompress_jax.types import Context
from tests.methods.drawn import draw

X = draw(512, 16, seed=1)
TREE = {
    "w": draw(16, 32),
    "mean": 0.1 * draw(32, seed=3),
    "var": jnp.full(32, 9.0, jnp.float32),
    "v": draw(32, 4, seed=2),
}


def apply(tree, x):
    x = (x @ tree["w"] - tree["mean"]) / jnp.sqrt(tree["var"] + 1e-3)
    return jax.nn.relu(x) @ tree["v"]


REFERENCE = Reference(TREE, Context(apply, [X[:256], X[256:]]))


def test_a_network_that_did_not_change_keeps_its_statistics():
    same = estimated(TREE, REFERENCE)
    jax.tree.map(np.testing.assert_array_equal, same, TREE)


def test_statistics_move_with_the_weights():
    """Weights of twice the size: variances grow by four, wherever they were before."""
    twice = estimated(TREE | {"w": 2 * TREE["w"]}, REFERENCE)
    np.testing.assert_allclose(twice["var"], 36, rtol=2e-3)
    means = np.asarray(X @ TREE["w"]).mean(0)  # of the batches; twice that, less that, is the move
    np.testing.assert_allclose(twice["mean"], TREE["mean"] + means, atol=1e-4)


def test_statistics_stay_where_outputs_come_no_nearer():
    """The mean is what was changed: moved after the weights, which did not change, it would stay as it is."""
    other = TREE | {"v": TREE["v"] + 1}
    jax.tree.map(np.testing.assert_array_equal, estimated(other, REFERENCE), other)


def test_other_floats_are_short():
    made = Stitching("nearest")(REFERENCE, {"w": 0.1, "v": 0.1})
    assert made["mean"].dtype == jnp.float32
    np.testing.assert_array_equal(made["mean"], made["mean"].astype(jnp.bfloat16).astype(jnp.float32))
    long = Stitching("nearest", short=False)(REFERENCE, {"w": 0.1, "v": 0.1})
    assert file_bytes(made) < file_bytes(long)
    assert shortened(long["w"]) is long["w"]
    outputs = [nnc.inject(apply)(tree, X) for tree in (made, long, TREE)]
    assert np.abs(outputs[0] - outputs[1]).max() < 0.02 * np.abs(outputs[2]).max()


def test_what_is_left_of_floats_is_short():
    """The vectors of cut channels, too; codes inside of them are what they were."""
    cut = nnc.compress(TREE, nnc.prune_channels(keep=0.5), apply=apply, batches=REFERENCE.context.batches)
    small = nnc.compress(cut, nnc.quantize(where="[wv]"))
    made = Stitching("nearest").folded(small, REFERENCE.context)
    variances = nnc.decompress(made)["var"]
    np.testing.assert_array_equal(variances, variances.astype(jnp.bfloat16).astype(jnp.float32))
    jax.tree.map(np.testing.assert_array_equal, made["w"], small["w"])
    np.testing.assert_allclose(nnc.inject(apply)(made, X), nnc.inject(apply)(small, X), atol=0.05)


def test_channels_that_are_gone():
    small = nnc.compress(TREE, nnc.prune_channels(keep=0.5), apply=apply, batches=REFERENCE.context.batches)
    found = nnc.decompress(estimated(small, REFERENCE))
    there = np.asarray(found["var"]) > 0
    assert there.sum() in (16, 32)
