"""Every public function as a row: called on a tree, its result checked by numpy or by the plain network."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import nncompress_jax as nnc
from nncompress_jax.weights.base import CompressedWeight
from tests.every_tree.kinds import WIDTH, Kind, network

ROWS: dict[str, Callable[[Kind, Path], None]] = {}


def row(function):
    ROWS[function.__name__.replace("__", ".").replace("_of_", ", ")] = function
    return function


def is_compressed(leaf: Any) -> bool:
    return isinstance(leaf, CompressedWeight)


def exact(leaf: Any) -> Any:
    """What can be compared: of arrays the type, the shape and the bits."""
    if hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if isinstance(leaf, jax.Array | np.ndarray | np.generic):
        array = np.asarray(leaf)
        native = array.astype(array.dtype.newbyteorder("="))
        return str(native.dtype), native.shape, native.tolist() if native.dtype == object else native.tobytes()
    return leaf


def both(one: Any, other: Any) -> list[tuple[Any, Any]]:
    """Leaves of two trees of one structure."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    return list(zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def wide(array: Any) -> np.ndarray:
    return np.asarray(array).astype(np.float64)


def eps(kind: Kind) -> float:
    return float(jnp.finfo(kind.parts(kind.variables)["W"].dtype).eps)


def compressed(kind: Kind, *methods: Any, left: tuple[str, ...] | None = None) -> Any:
    """The result, which took W and V, left all else as it was, and named what it could not take."""
    small = cut(kind, *methods, left=left)
    kept(kind, nnc.decompress(small))
    return small


def cut(kind: Kind, *methods: Any, left: tuple[str, ...] | None = None) -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        small = nnc.compress(kind.variables, nnc.chain(*methods), apply=kind.apply, batches=[kind.x])
    expected = kind.left if left is None else left
    assert {str(each.message).split(":")[0] for each in caught if "takes" not in str(each.message)} == set(expected)
    return small


def kept(kind: Kind, dense: Any) -> None:
    """The same tree but for the numbers of W and V."""
    weights = {np.shape(array) for array in (kind.parts(kind.variables)[name] for name in kind.weights)}
    for old, new in both(kind.variables, dense):
        is_float = hasattr(old, "dtype") and jnp.issubdtype(old.dtype, jnp.floating)
        if is_float and old.shape in weights and old.dtype.itemsize > 1:
            assert new.shape == old.shape
            assert new.dtype == jax.dtypes.canonicalize_dtype(old.dtype.newbyteorder("="))
        else:
            assert exact(new) == exact(old)


def pairs(kind: Kind, small: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """W and V before and after, [..., inputs, outputs] float64."""
    before, after = kind.parts(kind.variables), kind.parts(nnc.decompress(small))
    return [(wide(before[name]), wide(after[name])) for name in kind.weights]


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
def quantize_of_2_bits_in_groups(kind, folder):
    within_half_a_step(kind, compressed(kind, nnc.quantize(bits=2, group=8)), 1.5)


@row
def quantize_of_a_zero_point(kind, folder):
    for before, after in pairs(kind, compressed(kind, nnc.quantize(symmetric=False))):
        step = (before.max(-2, keepdims=True) - before.min(-2, keepdims=True)) / 255
        assert (abs(after - before) <= step * (1 + 1e-5) + eps(kind) * abs(before)).all()


@row
def prune(kind, folder):
    pruned(kind, compressed(kind, nnc.prune(sparsity=0.75)), 0.75)


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
def coupling(kind, folder):
    found = nnc.coupling(kind.apply, kind.variables, kind.x)
    if not kind.group:
        assert not found.groups
        return
    (group,) = found.groups
    assert (group.name, group.size, len(group.members)) == (kind.group, WIDTH, 3)
    assert {member.path for member in group.members} >= set(kind.paths)
    assert found.macs({group.name: np.arange(WIDTH) < 8}) == 2 * WIDTH * 8


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
def int8_report(kind, folder):
    rows = nnc.int8_report(kind.apply, compressed(kind, nnc.quantize()), kind.x).rows
    assert sorted((row.path, row.types) for row in rows) == sorted(
        (path, "int8 x int8 -> int32") for path in kind.paths
    )


def near(kind: Kind, one: Any, other: Any) -> None:
    assert one.dtype == other.dtype
    size = np.abs(wide(other)).max()
    np.testing.assert_allclose(wide(one), wide(other), rtol=0, atol=size * max(64 * eps(kind), 1e-5))


def plainly(kind: Kind) -> Any:
    """What the network gives, on arrays that jax takes."""

    def readable(leaf: Any) -> Any:
        return leaf.astype(leaf.dtype.newbyteorder("=")) if isinstance(leaf, np.ndarray) else leaf

    return kind.apply(jax.tree.map(readable, kind.variables), kind.x)


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


def same(one: Any, other: Any) -> None:
    for old, new in both(one, other):
        assert exact(old) == exact(new)


@row
def save(kind, folder):
    nnc.save(folder / "a.nnc", kind.variables)
    same(kind.variables, nnc.load(folder / "a.nnc", like=kind.variables).variables)


@row
def load(kind, folder):
    small = compressed(kind, nnc.quantize())
    nnc.save(folder / "a.nnc", small)
    apply, again, _ = nnc.load(folder / "a.nnc", like=kind.variables, apply=kind.apply)
    same(small, again)
    assert (wide(apply(again, kind.x)) == wide(nnc.inject(kind.apply)(small, kind.x))).all()


@row
def save_safetensors(kind, folder):
    """Read by the library that the format comes from."""
    import safetensors

    nnc.save_safetensors(folder / "a.safetensors", kind.variables)
    held = dict(safetensors.deserialize((folder / "a.safetensors").read_bytes()))
    parts = [exact_array(leaf) for leaf in jax.tree.leaves(kind.variables)]
    assert sorted((tuple(each["shape"]), bytes(each["data"])) for each in held.values()) == sorted(
        (part.shape, part.tobytes()) for part in parts
    )


def exact_array(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    return array.astype(array.dtype.newbyteorder("<"))


@row
def load_safetensors(kind, folder):
    nnc.save_safetensors(folder / "a.safetensors", kind.variables)
    again = nnc.load_safetensors(folder / "a.safetensors", like=kind.variables)
    same(jax.tree.map(lambda leaf: leaf if hasattr(leaf, "dtype") else np.asarray(leaf), kind.variables), again)


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
