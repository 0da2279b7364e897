"""The leaves that a method takes: selected, checked, and replaced."""

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax.bars import tracked
from nncompress_jax.errors import InputError
from nncompress_jax.inputs import arguments
from nncompress_jax.leaves import described, is_donated, native
from nncompress_jax.tree import Where, named_leaves, rebuilt, selected
from nncompress_jax.types import Apply, Array, Context
from nncompress_jax.weights.base import FLOATS, CompressedWeight, is_compressed
from nncompress_jax.weights.channel_pruned import conforming
from nncompress_jax.weights.dicts import TYPES

NOTHING = Context()
"""What is known of a network without its function."""


class LeftAlone(UserWarning):
    """A weight that a method left as it was, and why."""


class Larger(UserWarning):
    """A weight that takes more bytes than before, and how many."""


def replaced(
    variables: Any, where: Where, make: Callable[[str, Array], Any], *, makes: type, context: Context = NOTHING
) -> Any:
    """The tree with something else in the places of the selected leaves.

    Args:
      variables: any pytree of arrays and compressed weights.
      where: which leaves, as in `tree.selected`.
      make: of (path, array) what takes its place.
      makes: the type that it is. Leaves whose type may hold it stay, while `make` replaces what they hold.
      context: of the method; what the network does with a leaf decides by default whether it is selected.

    Raises:
      InputError: for leaves that are compressed otherwise, or not finite, all named; and for those that are not float
        or have no entries, if they were asked for: by default they stay, with a warning.
    """
    leaves = named_leaves(variables, is_compressed)
    chosen = taken(variables, where, makes=makes, context=context)

    results = [
        inner_replaced(path, leaf, make) if path in chosen else native(leaf)
        for path, leaf in tracked(leaves, "compressing")
    ]
    results = _shared_again([leaf for _, leaf in leaves], results)
    return rebuilt(jax.tree.structure(variables, is_leaf=is_compressed), results)


def inner_replaced(path: str, leaf: Any, make: Callable[[str, Array], Any]) -> Any:
    """An array, or a weight with the arrays that it holds at last, replaced by what `make` gives for (path, array)."""
    if not is_compressed(leaf):
        return make(path, jnp.asarray(native(leaf)))
    return with_held(path, leaf, functools.partial(inner_replaced, make=make))


def with_held(path: str, weight: CompressedWeight, make: Callable[[str, Any], Any]) -> Any:
    """A weight with something else in the places of what it holds, by `make` of (path, part)."""
    (field,) = weight.HELD
    parts = getattr(weight, field)
    if isinstance(parts, tuple):
        inner: Any = tuple(make(f"{path}/{field}/{i}", part) for i, part in enumerate(parts))
    else:
        inner = make(f"{path}/{field}", parts)
    return dataclasses.replace(weight, **{field: inner})


def inside(variables: Any, change: Callable[[str, Any], Any]) -> Any:
    """The tree with every leaf, and every weight inside of another, replaced by what `change` gives for (path, it)."""

    def changed(path: str, leaf: Any) -> Any:
        new = change(path, leaf)
        return with_held(path, new, changed) if new is leaf and is_compressed(new) and new.HELD else new

    leaves = named_leaves(variables, is_compressed)
    structure = jax.tree.structure(variables, is_leaf=is_compressed)
    results = [changed(path, leaf) for path, leaf in leaves]
    return rebuilt(structure, _shared_again([leaf for _, leaf in leaves], results))


def taken(variables: Any, where: Where, *, makes: type, context: Context = NOTHING) -> set[str]:
    """Paths of the leaves that `replaced` takes; it raises as that does."""
    leaves = named_leaves(variables, is_compressed)
    chosen = set(selected(leaves, where, context.uses() if where is None else None))
    if where is None:
        chosen -= _unfit([(path, leaf) for path, leaf in leaves if path in chosen])
    check([(path, leaf) for path, leaf in leaves if path in chosen], makes)
    return chosen


def network(context: Context, method: str) -> tuple[Apply, list[tuple[Any, ...]]]:
    """The network and its batches, each as apply's further arguments; Raises InputError where one is missing."""
    if context.apply is None or not context.batches:
        raise InputError(f"{method} needs apply= and batches=: compress(variables, method, apply=, batches=)")
    return context.apply, [arguments(batch) for batch in context.batches]


def exchanged(variables: Any, leaves: Mapping[str, Any]) -> Any:
    """The tree with other leaves at some paths; numbers become arrays of the type and the channels of the leaf."""

    def new(path: str, leaf: Any) -> Any:
        other = leaves.get(path, leaf)
        if other is leaf or not isinstance(other, np.ndarray):
            return other
        return conforming(jnp.asarray(other, jax.dtypes.canonicalize_dtype(native(leaf).dtype)), leaf)

    old = named_leaves(variables, is_compressed)
    return rebuilt(jax.tree.structure(variables, is_leaf=is_compressed), [new(path, leaf) for path, leaf in old])


def _unfit(leaves: Sequence[tuple[str, Any]]) -> set[str]:
    """Leaves that no method can take, whatever they hold."""
    unfit = set()
    for path, leaf in leaves:
        reason = "no entries" if not math.prod(leaf.shape) else "a scalar" if not leaf.shape else ""
        if reason := reason or ("" if _is_taken(leaf) else f"{leaf.dtype}"):
            leave_alone(path, reason)
            unfit.add(path)
    return unfit


def leave_alone(path: str, reason: str) -> None:
    """Says that a leaf stays as it is."""
    warnings.warn(f"{path}: left as it is: {reason}", LeftAlone, stacklevel=3)


def warn_larger(path: str, now: int, before: int) -> None:
    """Says that a leaf has grown."""
    message = f"{path}: takes {now:,} bytes, {now / before:.2f} times what it took; more sparsity would make it smaller"
    warnings.warn(message, Larger, stacklevel=3)


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
    refuse("floats of 8 bits or less", f"cast them to one of {', '.join(FLOATS)}", lambda leaf: not _is_taken(leaf))
    refuse("shapes without numbers", "give arrays", lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    refuse("donated to a program", "copy what trees share before: jax.tree.map(jnp.copy, variables)", is_donated)
    refuse("no entries", "choose other leaves with where=", lambda leaf: not np.size(leaf))
    refuse("NaN or infinite values", "restore an earlier checkpoint", lambda leaf: not _is_finite(leaf))


def _shared_again(leaves: Sequence[Any], results: Sequence[Any]) -> list[Any]:
    """What was one leaf at several places is one again, where the same became of it there."""
    first: dict[int, Any] = {}
    earlier = [first.setdefault(id(leaf), result) for leaf, result in zip(leaves, results, strict=True)]
    return [one if _is_same(one, other) else other for one, other in zip(earlier, results, strict=True)]


def _is_same(one: Any, other: Any) -> bool:
    """Whether two results are equal to the last bit; of traced values nothing is known."""
    parts, others = jax.tree.leaves(one), jax.tree.leaves(other)
    structures: list[Any] = [jax.tree.structure(result) for result in (one, other)]
    if one is other or structures[0] != structures[1]:
        return one is other
    if any(isinstance(part, jax.core.Tracer) for part in parts):
        return False
    pairs = [(np.asarray(part), np.asarray(another)) for part, another in zip(parts, others, strict=True)]
    return all(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)


def _may_hold(kind: type[CompressedWeight], other: type) -> bool:
    return issubclass(other, kind.HOLDS) and kind is not other


def _innermost(leaf: Any, makes: type) -> list[Any]:
    if not is_compressed(leaf) or not _may_hold(type(leaf), makes):
        return [leaf]
    return [inner for part in leaf.held() for inner in _innermost(part, makes)]


def _is_float(leaf: Any) -> bool:
    shape = described(leaf)
    return shape is not None and bool(jnp.issubdtype(shape.dtype, jnp.floating))


def _is_taken(leaf: Any) -> bool:
    shape = described(leaf)
    return shape is not None and shape.dtype.name in FLOATS


def _is_finite(leaf: Any) -> bool:
    """Traced values pass: nothing is known of them."""
    return isinstance(leaf, jax.core.Tracer) or bool(np.isfinite(np.asarray(leaf, np.float32)).all())
