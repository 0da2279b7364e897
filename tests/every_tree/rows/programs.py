"""What reads, runs or differentiates the program of a network."""

import contextlib
import html
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nncompress_jax as nnc
from nncompress_jax.weights.parts import complete
from tests.every_tree.network import WIDTH, Kind, network
from tests.every_tree.rows.checks import both, compressed, exact, is_compressed, near, plainly, row, same, wide


def calibrated(kind: Kind, rule: Any) -> float:
    """The range that the inputs of W have."""
    small = compressed(kind, nnc.quantize(ranges=rule))
    named = dict(zip(kind.weights, kind.paths, strict=True))
    leaves = jax.tree.leaves(small, is_leaf=is_compressed)
    order = [leaf for leaf in leaves if is_compressed(leaf)]
    first = sorted(named.items(), key=lambda each: by_leaf(kind)[each[0]])[0][0]
    return float(np.ravel(order[0 if first == "W" else 1].input_scale)[0]) * 127.5


def is_matrix(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray) and leaf.ndim > 1


def by_leaf(kind: Kind) -> dict[str, int]:
    """Places of W and V among the leaves: the tree is asked where numbers went that stand at these places."""
    leaves, structure = jax.tree.flatten(kind.variables)
    numbered = [np.full_like(leaf, n) if is_matrix(leaf) else leaf for n, leaf in enumerate(leaves)]
    parts = kind.parts(jax.tree.unflatten(structure, numbered))
    return {name: int(np.ravel(parts[name])[0]) for name in kind.weights}


@row
def calibration__abs_max(kind, folder):
    np.testing.assert_allclose(calibrated(kind, nnc.calibration.abs_max), abs(wide(kind.x)).max(), rtol=1e-6)


@row
def calibration__percentile(kind, folder):
    bins = abs(wide(kind.x)).max() / 2048
    middle = np.sort(abs(wide(kind.x)).ravel())[kind.x.size // 2]
    assert abs(calibrated(kind, nnc.calibration.percentile(0.5)) - middle) < 8 * bins


@row
def calibration__mean_squared_error(kind, folder):
    """No other of its hundred ranges serves the inputs better."""
    values = abs(wide(kind.x)).ravel()

    def error(largest: float) -> float:
        step = largest / 127.5
        return ((np.minimum(np.round(values / step), 127) * step - values) ** 2).sum()

    found = calibrated(kind, nnc.calibration.mean_squared_error)
    assert error(found) <= 1.01 * min(error(share * values.max()) for share in np.linspace(0.5, 1, 51))


@row
def calibration__input_scales(kind, folder):
    scales = nnc.calibration.input_scales(kind.apply, kind.variables, [kind.x], kind.paths, nnc.calibration.abs_max)
    assert sorted(scales) == sorted(kind.paths)
    np.testing.assert_allclose(np.ravel(scales[kind.paths[0]])[0] * 127.5, abs(wide(kind.x)).max(), rtol=1e-6)


@row
def cost(kind, folder):
    total = nnc.cost(kind.apply, kind.variables, kind.x)
    types = jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct
    leaves = [leaf for leaf in jax.tree.leaves(kind.variables) if isinstance(leaf, types)]
    numeric = [leaf for leaf in leaves if not isinstance(leaf, np.ndarray) or leaf.dtype.kind not in "UMO"]
    parts = kind.parts(kind.variables)
    assert total.macs == sum(parts[name].size for name in kind.weights)
    assert total.parameters == sum(leaf.size for leaf in numeric)
    assert total.resident_bytes == sum(leaf.size * stored_size(leaf) for leaf in numeric)


def stored_size(leaf: Any) -> int:
    return 8 if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf.dtype.itemsize


@row
def explain(kind, folder):
    rows = nnc.explain(kind.apply, compressed(kind, nnc.quantize()), kind.x).weights
    assert sorted(row.path for row in rows) == sorted(kind.paths)
    assert {(row.type, row.runs, row.shape[-2:]) for row in rows} == {("Quantized", "compressed", (WIDTH, WIDTH))}
    plain = nnc.explain(kind.apply, kind.variables, kind.x).weights
    assert sorted((row.path, row.type) for row in plain) == sorted((path, "dense") for path in kind.paths)


@row
def report(kind, folder):
    file = folder / "a.html"
    nnc.report(file, kind.apply, compressed(kind, nnc.quantize()), kind.x)
    text = file.read_text()
    assert all(f">{html.escape(path)}</td>" in text for path in kind.paths)
    file.unlink()


@row
def int8_report(kind, folder):
    rows = nnc.int8_report(kind.apply, compressed(kind, nnc.quantize()), kind.x).rows
    assert sorted((row.path, row.types) for row in rows) == sorted(
        (path, "int8 x int8 -> int32") for path in kind.paths
    )


@row
def inject(kind, folder):
    for method in (nnc.quantize(bits=4, inputs=False), nnc.prune(sparsity=0.5)):
        small = compressed(kind, method)
        near(kind, nnc.inject(kind.apply)(small, kind.x), kind.apply(nnc.decompress(small), kind.x))
    near(kind, nnc.inject(kind.apply, fast=True)(kind.variables, kind.x), plainly(kind))
    near(kind, nnc.inject(kind.apply)(kind.variables, kind.x), plainly(kind))


@row
def observe(kind, folder):
    outputs, seen = nnc.observe(kind.apply)(kind.variables, kind.x)
    assert set(seen) == set(kind.paths)
    assert (wide(seen[kind.paths[0]][0].value).reshape(-1, WIDTH)[:4] == wide(kind.x)).all()
    near(kind, outputs, plainly(kind))


@row
def value_and_grad(kind, folder):
    small = compressed(kind, nnc.prune(sparsity=0.5))

    def loss(tree: Any, x: Any) -> Any:
        return (kind.apply(tree, x) ** 2).mean()

    value, gradients = nnc.value_and_grad(nnc.inject(loss))(small, kind.x)
    near(kind, value, loss(nnc.decompress(small), kind.x))
    if set(kind.parts(kind.variables)) != {*"WbVc"}:
        return
    dense = {name: jnp.asarray(array) for name, array in kind.parts(nnc.decompress(small)).items()}
    expected = jax.grad(lambda parts: (network(parts, kind.x) ** 2).mean())(dense)
    leaves, structure = jax.tree.flatten(small, is_leaf=is_compressed)
    given = structure.flatten_up_to(gradients)
    found = kind.parts(jax.tree.unflatten(structure, [whole(*pair) for pair in zip(leaves, given, strict=True)]))
    for name, array in found.items():
        mask = wide(dense[name]) != 0 if name in "WV" else 1
        near(kind, array, (wide(expected[name]) * mask).astype(array.dtype))


def whole(leaf: Any, gradient: Any) -> Any:
    """A gradient at the places of its weight; where there is none, the leaf."""
    if not is_compressed(leaf):
        return leaf if gradient is None else gradient
    flat = np.zeros(np.prod(leaf.shape), np.asarray(gradient.values).dtype)
    flat[np.asarray(leaf.positions)] = gradient.values
    return jnp.asarray(flat.reshape(leaf.shape))


@row
def models__fitting(kind, folder):
    """None of these is one of the library's networks."""
    nnc.models.fitting(nnc.models.create("vgg11"), kind.variables)


@row
def grad(kind, folder):
    small = compressed(kind, nnc.prune(sparsity=0.5))
    loss = nnc.inject(lambda tree, x: (kind.apply(tree, x) ** 2).mean())
    same(nnc.grad(loss)(small, kind.x), nnc.value_and_grad(loss)(small, kind.x)[1])


def halves(small: Any) -> Any:
    """What trains, and what does not; or None, where a node takes no None."""
    with contextlib.suppress(nnc.InputError):
        return nnc.partition(small)
    with pytest.raises(nnc.InputError, match="takes no None there"):
        nnc.partition(small)
    return None


@row
def partition(kind, folder):
    small = compressed(kind, nnc.prune(sparsity=0.5))
    for trained, fixed in filter(None, [halves(small)]):
        assert len(jax.tree.leaves(trained)) + len(jax.tree.leaves(fixed)) == len(jax.tree.leaves(small))
        assert all(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in jax.tree.leaves(trained))


@row
def combine(kind, folder):
    small = compressed(kind, nnc.prune(sparsity=0.5))
    for trained, fixed in filter(None, [halves(small)]):
        same(nnc.combine(trained, fixed), small)


@row
def decays(kind, folder):
    """Codebooks do not; dense floats do."""
    small = compressed(kind, nnc.cluster(bits=2))
    leaves = jax.tree.leaves(small, is_leaf=is_compressed)
    structure = jax.tree.structure(small, is_leaf=is_compressed)
    if halves(small) is None:
        return
    for leaf, mask in zip(leaves, structure.flatten_up_to(nnc.decays(small)), strict=True):
        if is_compressed(leaf):
            assert not any(jax.tree.leaves(mask))
        else:
            assert mask == (isinstance(leaf, jax.Array | np.ndarray) and jnp.issubdtype(leaf.dtype, jnp.inexact))


def close(one: Any, other: Any) -> None:
    np.testing.assert_allclose(*(np.asarray(x).astype(np.complex128) for x in (one, other)), rtol=0.1, atol=1e-6)


@row
def ema(kind, folder):
    small = compressed(kind, nnc.prune(sparsity=0.5))
    average = nnc.ema(small, small, decay=0.5)
    for old, new in both(small, average):
        if hasattr(old, "dtype") and jnp.issubdtype(old.dtype, jnp.inexact):
            assert new.dtype in (old.dtype, jax.dtypes.canonicalize_dtype(old.dtype))
            close(new, old)
        else:
            assert exact(old) == exact(new)


@row
def optimizer(kind, folder):
    """A step of gradient descent: floats move by their gradients, all else stays."""
    small = compressed(kind, nnc.prune(sparsity=0.5))
    if halves(small) is None:
        return
    tx = nnc.optimizer(optax.sgd(0.5))
    gradients = nnc.grad(nnc.inject(lambda tree, x: (kind.apply(tree, x) ** 2).mean()))(small, kind.x)
    updates, _ = tx.update(gradients, tx.init(small), small)
    structure = jax.tree.structure(small)
    given = map(structure.flatten_up_to, (complete(gradients), updates))
    for old, gradient, update in zip(jax.tree.leaves(small), *given, strict=True):
        if gradient is not None:
            close(update, -0.5 * gradient)
        elif update is not None:
            assert update.dtype == old.dtype
            assert not wide(update).any()


@row
def early_exit(kind, folder):
    """All go to the first of two exits, or to the second."""

    def network(tree: Any, x: Any) -> Any:
        logits = kind.apply(tree, x).reshape(len(x), -1)
        return logits, 2 * logits

    for threshold, number in ((0.0, 0), (2.0, 1)):
        answers = nnc.early_exit(network, kind.variables, threshold)(kind.x)
        logits = (1 + number) * np.asarray(plainly(kind))
        logits = logits.reshape(len(kind.x), -1).astype(answers.logits.dtype)
        if np.isnan(wide(logits)).any():
            assert np.isnan(wide(answers.logits)).all() == np.isnan(wide(logits)).all()
        else:
            assert answers.exits.tolist() == [number] * len(kind.x)
            near(kind, answers.logits, logits)


@row
def exit_macs(kind, folder):
    """Of a second exit that costs nothing more: what `cost` counts."""

    def network(tree: Any, x: Any) -> Any:
        return (result := kind.apply(tree, x)), 2 * result

    assert nnc.exit_macs(network, kind.variables, kind.x) == 2 * [nnc.cost(kind.apply, kind.variables, kind.x).macs]
