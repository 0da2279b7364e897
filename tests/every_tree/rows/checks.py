"""How rows are kept, and what their results are compared with."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import nncompress_jax as nnc
from nncompress_jax.weights.base import CompressedWeight
from tests.every_tree.network import Kind

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


def near(kind: Kind, one: Any, other: Any) -> None:
    assert one.dtype == other.dtype
    size = np.abs(wide(other)).max()
    np.testing.assert_allclose(wide(one), wide(other), rtol=0, atol=size * max(64 * eps(kind), 1e-5))


def same(one: Any, other: Any) -> None:
    for old, new in both(one, other):
        assert exact(old) == exact(new)


def plainly(kind: Kind) -> Any:
    """What the network gives, on arrays that jax takes."""

    def readable(leaf: Any) -> Any:
        return leaf.astype(leaf.dtype.newbyteorder("=")) if isinstance(leaf, np.ndarray) else leaf

    return kind.apply(jax.tree.map(readable, kind.variables), kind.x)
