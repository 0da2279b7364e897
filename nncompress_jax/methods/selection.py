"""The leaves that a method takes: selected, checked, and replaced."""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax.errors import InputError
from nncompress_jax.tree import Where, named_leaves, selected
from nncompress_jax.types import Array
from nncompress_jax.weights.base import CompressedWeight, is_compressed
from nncompress_jax.weights.dicts import TYPES


class LeftAlone(UserWarning):
    """A weight that a method left as it was, and why."""


def replaced(variables: Any, where: Where, make: Callable[[str, Array], Any], *, makes: type) -> Any:
    """The tree with something else in the places of the selected leaves.

    Args:
      variables: any pytree of arrays and compressed weights.
      where: which leaves, as in `tree.selected`.
      make: of (path, array) what takes its place.
      makes: the type that it is. Leaves whose type may hold it stay, while `make` replaces what they hold.

    Raises:
      InputError: for leaves that are compressed otherwise, not float, or not finite, all named.
    """
    leaves = named_leaves(variables, is_compressed)
    chosen = set(selected(leaves, where))
    check([(path, leaf) for path, leaf in leaves if path in chosen], makes)

    def new(path: str, leaf: Any) -> Any:
        if not is_compressed(leaf):
            return make(path, jnp.asarray(leaf))
        (field,) = leaf.HELD
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


def check(leaves: Sequence[tuple[str, Any]], makes: type) -> None:
    """Refuses what no method can compress; Raises InputError with every such path in one line."""

    def refuse(problem: str, advice: str, is_bad: Callable[[Any], bool]) -> None:
        bad = [path for path, leaf in leaves if any(map(is_bad, _innermost(leaf, makes)))]
        if bad:
            raise InputError(f"{', '.join(bad)}: {problem}; {advice}")

    others = ", ".join(sorted({kind.__name__ for kind in TYPES.values() if _may_hold(kind, makes)}))
    order = "prune_channels, factorize, prune, then what encodes"
    advice = f"start from nnc.decompress(variables), choose with where=, or chain: {order}"
    refuse(f"compressed already other than {others} of floats", advice, is_compressed)
    refuse("not floating point", "choose other leaves with where=", lambda leaf: not _is_float(leaf))
    refuse("no entries", "choose other leaves with where=", lambda leaf: not np.size(leaf))
    refuse("NaN or infinite values", "restore an earlier checkpoint", lambda leaf: not _is_finite(leaf))


def _may_hold(kind: type[CompressedWeight], other: type) -> bool:
    return issubclass(other, kind.HOLDS) and kind is not other


def _innermost(leaf: Any, makes: type) -> list[Any]:
    if not is_compressed(leaf) or not _may_hold(type(leaf), makes):
        return [leaf]
    return [inner for part in leaf.held() for inner in _innermost(part, makes)]


def _is_float(leaf: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.floating))


def _is_finite(leaf: Any) -> bool:
    """Traced values pass: nothing is known of them."""
    return isinstance(leaf, jax.core.Tracer) or bool(np.isfinite(np.asarray(leaf, np.float32)).all())
