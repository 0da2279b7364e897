"""A weight type in a file of its own, as anybody may write one: all that the package does with types works with it."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.core import ShapedArray

import nncompress_jax as nnc
from nncompress_jax.methods.selection import replaced
from nncompress_jax.training import checkpoint, loop
from nncompress_jax.training.config import Config
from nncompress_jax.weights.base import CompressedWeight, dense, is_compressed
from nncompress_jax.weights.low_rank import LowRank
from nncompress_jax.weights.packed import check_codes, packed
from nncompress_jax.weights.sparse import Sparse
from tests.weights.cases import OTHERS, PRODUCTS, draw


class Ternary(CompressedWeight):
    """Signs and zeros, with one scale for each output channel.

    Attributes:
      signs: [..., O] -1, 0 or 1, four to a byte; the logical shape is theirs.
      scale: [O] float32.
      dtype_name: logical dtype.

    Source: Li et al. 2016, "Ternary Weight Networks", section 2.
    """

    TRAINS: ClassVar[tuple[str, ...]] = ("scale",)

    signs: Any
    scale: jax.Array
    dtype_name: str = eqx.field(static=True, default="float32")

    def aval(self) -> ShapedArray:
        return ShapedArray(self.signs.shape, jnp.dtype(self.dtype_name))

    def materialise(self) -> jax.Array:
        return (dense(self.signs) * self.scale).astype(self.dtype_name)

    def check_parts(self) -> str | None:
        wrong = check_codes(self.signs, "int8", most=None)
        return wrong or (None if self.scale.shape == self.signs.shape[-1:] else f"scale {list(self.scale.shape)}")


def ternary(where=None):
    """A method: weights below 0.7 of the mean magnitude become zero, as in section 2.3 of the paper."""

    def make(_, kernel):
        magnitude = jnp.abs(kernel)
        axes = tuple(range(kernel.ndim - 1))
        large = magnitude > 0.7 * magnitude.mean(axes)
        scale = (magnitude * large).sum(axes) / jnp.maximum(large.sum(axes), 1)
        return Ternary(packed((jnp.sign(kernel) * large).astype(jnp.int8), 2, lowest=-2), scale, kernel.dtype.name)

    return lambda variables, context: replaced(variables, where, make, makes=Ternary)


def by_hand(kernel):
    """The dense array that `ternary` stands for, in NumPy."""
    kernel = np.asarray(kernel)
    columns = kernel.reshape(-1, kernel.shape[-1])
    result = np.zeros_like(columns)
    for o, column in enumerate(columns.T):
        large = np.abs(column) > 0.7 * np.abs(column).mean()
        result[large, o] = np.sign(column[large]) * np.abs(column[large]).mean()
    return result.reshape(kernel.shape)


def compressed(kernel):
    return nnc.compress({"kernel": kernel}, ternary())["kernel"]


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_law_of_products(name):
    shape, inputs, function = PRODUCTS[name]
    kernel, x = draw(shape, 0), draw(inputs, 1)
    weight = compressed(kernel)
    assert type(weight) is Ternary
    expected = function(jnp.asarray(by_hand(kernel)), x)
    np.testing.assert_allclose(jax.jit(nnc.inject(function))(weight, x), expected, atol=2e-5, rtol=1e-5)


def test_the_law_of_other_operations():
    kernel = draw((4, 6), 2)
    for name, function in OTHERS.items():
        got = jax.tree.map(dense, nnc.inject(function)(compressed(kernel)), is_leaf=is_compressed)
        expected = function(jnp.asarray(by_hand(kernel)))
        for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5, err_msg=name)


def test_scan_and_gradients():
    weights = {"a": compressed(draw((8, 8), 4))}
    apply = nnc.inject(lambda w, x: jax.lax.scan(lambda x, _: (jnp.tanh(x @ w["a"]), None), x, None, length=2)[0].sum())
    x = draw((3, 8), 5)
    _, gradients = nnc.value_and_grad(apply)(weights, x)
    signs = np.asarray(dense(weights["a"].signs), np.float32)
    expected = jax.grad(lambda s: jnp.tanh(jnp.tanh(x @ (signs * s)) @ (signs * s)).sum())(weights["a"].scale)
    np.testing.assert_allclose(gradients["a"].scale, expected, rtol=1e-4)
    assert jax.tree.leaves(gradients["a"].signs) == []


def test_channels_go_and_what_is_left_is_ternary():
    weights = {"a": draw((4, 8), 0), "b": draw((8, 3), 1)}
    apply, x = lambda w, x: jax.nn.relu(x @ w["a"]) @ w["b"], draw((2, 4), 2)
    small = nnc.compress(weights, nnc.chain(nnc.prune_channels(keep=0.5), ternary(where="*")), apply=apply, batches=[x])
    assert small["a"].nesting == "ChannelPruned of Ternary"
    stays = np.sort(np.argsort(-np.abs(np.asarray(weights["a"])).sum(0))[:4])
    hidden = np.maximum(np.asarray(x) @ by_hand(weights["a"][:, stays]), 0)
    expected = hidden @ by_hand(weights["b"][stays])
    np.testing.assert_allclose(nnc.inject(apply)(small, x), expected, rtol=1e-5)
    row = nnc.explain(apply, small, x).rows()[0]
    assert (row["type"], row["shape"], row["density"]) == ("ChannelPruned of Ternary", "4 x 4", 0.5)


def test_a_file_holds_it(tmp_path):
    small, x = nnc.compress({"kernel": draw((16, 8), 0), "bias": jnp.ones(8)}, ternary()), draw((2, 16), 1)
    apply = lambda w, x: x @ w["kernel"] + w["bias"]  # noqa: E731
    nnc.save(tmp_path / "model.nnc", small)
    _, again, _ = nnc.load(tmp_path / "model.nnc", apply=apply)
    assert jax.tree.structure(again) == jax.tree.structure(small)
    assert all(map(np.array_equal, jax.tree.leaves(again), jax.tree.leaves(small)))
    (row,) = [row for row in nnc.explain(apply, small, x).rows() if row["path"] == "kernel"]
    assert (row["type"], row["bits"]) == ("Ternary", 8 * (16 * 2 + 8 * 4) / 128)


def test_a_run_trains_it_and_a_checkpoint_keeps_it(tiny_data, tmp_path):
    workdir = str(tmp_path / "run")
    config = Config(model="narrow", dataset="tiny", data_dir=tiny_data, workdir=workdir, epochs=1, batch_size=16)
    network = nnc.models.create("narrow", num_classes=4)
    variables = jax.jit(network.init)(jax.random.key(0), jnp.ones((1, 32, 32, 3)))
    before = nnc.compress(variables, ternary(where="*Conv_1/kernel"))
    run = loop.train(config, before)
    after = checkpoint.restore(run.workdir)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    old, new = (tree["params"]["Conv_1"]["kernel"] for tree in (before, after))
    assert np.array_equal(old.signs.parts, new.signs.parts)
    assert not np.array_equal(old.scale, new.scale)


def test_wrong_nestings_are_refused(tmp_path):
    weight = compressed(draw((4, 4), 0))
    with pytest.raises(nnc.InputError, match="kernel: a LowRank with a Ternary inside of LowRank"):
        nnc.save(tmp_path / "a.nnc", {"kernel": LowRank((weight, weight))})
    with pytest.raises(nnc.InputError, match="kernel: a Sparse with a Ternary inside of Sparse"):
        nnc.save(tmp_path / "a.nnc", {"kernel": Sparse(weight, jnp.arange(4, dtype=jnp.int32), (4, 4))})
    with pytest.raises(nnc.InputError, match="kernel: compressed already other than ChannelPruned of floats"):
        nnc.compress({"kernel": draw((8, 8), 0)}, nnc.chain(nnc.prune(sparsity=0.5), ternary()))
    with pytest.raises(nnc.InputError, match=r"kernel: a Ternary with scale \[3\], which no file can hold"):
        nnc.save(tmp_path / "a.nnc", {"kernel": Ternary(weight.signs, jnp.ones(3))})
    assert list(tmp_path.iterdir()) == []
