"""The leaves that a method takes: selected, checked, and replaced."""

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax.errors import InputError
from nncompress_jax.tree import Where, named_leaves, selected
from nncompress_jax.types import Array
from nncompress_jax.weights.base import is_compressed
from nncompress_jax.weights.channel_pruned import ChannelPruned
from nncompress_jax.weights.low_rank import LowRank
from nncompress_jax.weights.sparse import Sparse, SparseGroups

Nests = Mapping[Any, str]
"""Types of which a method takes the parts, and the field that holds them: an array or a tuple of arrays."""

CHANNELS: Nests = {ChannelPruned: "values"}
FACTORS: Nests = {**CHANNELS, LowRank: "factors"}
VALUES_AND_FACTORS: Nests = {**FACTORS, Sparse: "values", SparseGroups: "values"}


class LeftAlone(UserWarning):
    """A weight that a method left as it was, and why."""


def replaced(variables: Any, where: Where, make: Callable[[str, Array], Any], *, nests: Nests = CHANNELS) -> Any:
    """The tree with something else in the places of the selected leaves.

    Args:
      variables: any pytree of arrays and compressed weights.
      where: which leaves, as in `tree.selected`.
      make: of (path, array) what takes its place.
      nests: compressed weights that keep their type, while `make` replaces what they hold.

    Raises:
      InputError: for leaves that are compressed otherwise, not float, or not finite, all named.
    """
    leaves = named_leaves(variables, is_compressed)
    chosen = set(selected(leaves, where))
    check([(path, leaf) for path, leaf in leaves if path in chosen], nests)

    def new(path: str, leaf: Any) -> Any:
        if not is_compressed(leaf):
            return make(path, jnp.asarray(leaf))
        field = _field(leaf, nests)
        parts = getattr(leaf, field)
        if isinstance(parts, tuple):
            inner: Any = tuple(new(f"{path}/{field}/{i}", part) for i, part in enumerate(parts))
        else:
            inner = new(f"{path}/{field}", parts)
        return dataclasses.replace(leaf, **{field: inner})

    results = [new(path, leaf) if path in chosen else leaf for path, leaf in leaves]
    return jax.tree.unflatten(jax.tree.structure(variables, is_leaf=is_compressed), results)


def leave_alone(path: str, reason: str) -> None:
    """Says that a leaf stays as it is."""
    warnings.warn(f"{path}: left as it is: {reason}", LeftAlone, stacklevel=3)


def check(leaves: Sequence[tuple[str, Any]], nests: Nests) -> None:
    """Refuses what no method can compress; Raises InputError with every such path in one line."""

    def refuse(problem: str, advice: str, is_bad: Callable[[Any], bool]) -> None:
        bad = [path for path, leaf in leaves if any(map(is_bad, _innermost(leaf, nests)))]
        if bad:
            raise InputError(f"{', '.join(bad)}: {problem}; {advice}")

    others = ", ".join(sorted(kind.__name__ for kind in nests))
    order = "prune_channels, factorize, prune, then what encodes"
    advice = f"start from nnc.decompress(variables), choose with where=, or chain: {order}"
    refuse(f"compressed already other than {others} of floats", advice, is_compressed)
    refuse("not floating point", "choose other leaves with where=", lambda leaf: not _is_float(leaf))
    refuse("no entries", "choose other leaves with where=", lambda leaf: not np.size(leaf))
    refuse("NaN or infinite values", "restore an earlier checkpoint", lambda leaf: not _is_finite(leaf))


def _field(leaf: Any, nests: Nests) -> str:
    return next(field for kind, field in nests.items() if isinstance(leaf, kind))


def _innermost(leaf: Any, nests: Nests) -> list[Any]:
    if not isinstance(leaf, tuple(nests)):
        return [leaf]
    parts = getattr(leaf, _field(leaf, nests))
    return [inner for part in (parts if isinstance(parts, tuple) else (parts,)) for inner in _innermost(part, nests)]


def _is_float(leaf: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.floating))


def _is_finite(leaf: Any) -> bool:
    """Traced values pass: nothing is known of them."""
    return isinstance(leaf, jax.core.Tracer) or bool(np.isfinite(np.asarray(leaf, np.float32)).all())
