"""Variables as leaves with names, and the choice among them."""

import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from nncompress_jax.errors import InputError
from nncompress_jax.leaves import described

Where = str | Callable[[str], bool] | None
"""Which leaves: a pattern of their paths (`*` any text, `?` any character), a predicate on the path, or the default."""


def named_leaves(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[tuple[str, Any]]:
    """Leaves of a tree with their paths.

    Args:
      tree: any pytree.
      is_leaf: nodes that count as leaves.

    Returns:
      (path, leaf) in the tree's own order; the path's keys are joined by `/`, as `joined_keys` does. The boxes that NNX
      and linen put around an array are no part of it. A tree that is a single array has the path "array".

    Example:
      >>> named_leaves({"params": {"Conv_0": {"bias": 1.0, "kernel": 2.0}}})
      [('params/Conv_0/bias', 1.0), ('params/Conv_0/kernel', 2.0)]
    """
    leaves = keyed_leaves(tree, is_leaf)
    paths = joined_keys([keys for keys, _ in leaves])
    return [(path or "array" * (not keys), leaf) for path, (keys, leaf) in zip(paths, leaves, strict=True)]


def is_plain_tree(tree: Any, is_leaf: Callable[[Any], bool]) -> bool:
    """Whether a tree is of dicts with names, lists and tuples alone.

    Example:
      >>> is_plain_tree({"a": [1.0, None]}, callable), is_plain_tree({0: 1.0}, callable)
      (True, False)
    """
    if type(tree) is dict:
        return all(type(name) is str for name in tree) and all(is_plain_tree(each, is_leaf) for each in tree.values())
    if type(tree) in (list, tuple):
        return all(is_plain_tree(each, is_leaf) for each in tree)
    return tree is None or is_leaf(tree) or jax.tree_util.all_leaves([tree])


def keyed_leaves(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[tuple[tuple[str, ...], Any]]:
    """As `named_leaves`, with the keys of each path by themselves.

    Example:
      >>> keyed_leaves({"linear/~": [1.0]})
      [(('linear/~', '0'), 1.0)]
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf)
    boxed = jax.tree_util.GetAttrKey("value")
    unboxed = [(path[:-1] if path[-1:] == (boxed,) else path, leaf) for path, leaf in leaves]
    return [(tuple(jax.tree_util.keystr((key,), simple=True) for key in path), leaf) for path, leaf in unboxed]


def joined_keys(paths: Sequence[tuple[str, ...]]) -> list[str]:
    """Keys of all leaves of a tree as texts, no two the same.

    Args:
      paths: the keys of each leaf.

    Returns:
      Keys joined by `/`. Where two leaves would have the same text, a `/` inside of a key is `%2F`, and `%` is `%25`.

    Example:
      >>> joined_keys([("a/b",), ("a", "c")]), joined_keys([("a/b",), ("a", "b")])
      (['a/b', 'a/c'], ['a%2Fb', 'a/b'])
    """
    plain = ["/".join(keys) for keys in paths]
    return plain if len(set(plain)) == len(plain) else ["/".join(map(escaped, keys)) for keys in paths]


def rebuilt(structure: Any, leaves: Iterable[Any]) -> Any:
    """A tree of other leaves.

    Args:
      structure: of jax.
      leaves: compressed weights among them, which nodes of a user's own types may not take.

    Raises:
      InputError: where a node fails at what it is made of.
    """
    try:
        return jax.tree.unflatten(structure, leaves)
    except Exception as error:
        raise InputError(
            "a node of the variables casts or checks its fields when it is made, and takes no compressed weights there "
            f"({type(error).__name__}); choose weights outside of it with where=, or hold its fields in a dict"
        ) from error


def escaped(key: str) -> str:
    """A key without `/`, of which `urllib.parse.unquote` makes the key again."""
    return key.replace("%", "%25").replace("/", "%2F")


def stored_bytes(tree: Any) -> int:
    """Bytes of all arrays in a tree, of the parts where a weight is compressed; functions and texts have none.

    Example:
      >>> stored_bytes({"kernel": jnp.ones((2, 3)), "codes": jnp.ones(4, jnp.int8)})
      28
    """
    shapes = [described(leaf) for leaf in jax.tree.leaves(tree)]
    return sum(math.prod(shape.shape) * shape.dtype.itemsize for shape in shapes if shape is not None)


NAMES = ("kernel", "w", "weight")
EMBEDDINGS = ("embedding", "embeddings")
"""What flax, Haiku and Equinox call the weights of layers, and tables of rows."""

VECTORS = (
    *("bias", "b", "scale", "offset", "gamma", "beta", "mean", "var", "running_mean", "running_var"),
    *("average", "hidden", "counter", "moving_mean", "moving_variance", "cached_key", "cached_value"),
)
STATISTICS = ("batch_stats", "cache", "intermediates", "mean_ema", "var_ema", "ema")
"""What they call leaves that are added, multiplied entry by entry, or kept of the data; and what holds such leaves."""


def selected(
    leaves: Iterable[tuple[str, Any]], where: Where = None, uses: Mapping[str, Sequence[Any]] | None = None
) -> list[str]:
    """Paths of the leaves that a compression method takes.

    Args:
      leaves: (path, leaf), of `named_leaves`.
      where: by default float leaves that multiply data in a convolution or dot product, and tables of which rows are
        looked up, with at least 1,024 entries; as the program says, or else by their names (`NAMES`, `EMBEDDINGS`),
        and those of at least two axes and 1,024 entries; never `VECTORS` and what stands under `STATISTICS`.
      uses: of `Context`.

    Raises:
      InputError: where nothing is selected.

    Example:
      >>> leaves = [("Dense_0/bias", jnp.ones(4)), ("Dense_0/kernel", jnp.ones((3, 4)))]
      >>> selected(leaves), selected(leaves, "*bias")
      (['Dense_0/kernel'], ['Dense_0/bias'])
    """
    leaves = list(leaves)
    if where is None:
        paths = [path for path, leaf in leaves if _is_weight(path, leaf, uses)]
    elif isinstance(where, str):
        paths = [path for path, _ in leaves if fnmatch.fnmatchcase(path, where)]
    else:
        paths = [path for path, _ in leaves if where(path)]
    if not paths:
        some = ", ".join(path for path, _ in leaves[:4]) or "no leaves"
        what = "by default none is taken" if where is None else f"where={where!r} matches none"
        raise InputError(
            f"{what} of {len(leaves)} leaves ({some}{', ...' if len(leaves) > 4 else ''}); choose with where="
        )
    return paths


def _is_weight(path: str, leaf: Any, uses: Mapping[str, Sequence[Any]] | None) -> bool:
    *around, name = path.split("/")
    if not hasattr(leaf, "dtype") or not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return False
    if name in VECTORS or not set(STATISTICS).isdisjoint(around):
        return False
    if name == "kernel":
        return True
    is_named = leaf.ndim > 1 and name in (*NAMES, *EMBEDDINGS)
    is_matrix = sum(size > 1 for size in leaf.shape) > 1
    if uses is None:
        return is_named or (is_matrix and leaf.size >= 1024)
    multiplies = any(not {"input", "window"}.isdisjoint(use.roles) for use in uses.get(path, ()))
    return is_named or (is_matrix and (multiplies or (path in uses and leaf.size >= 1024)))
