"""What a network is called with: batches, the arguments that each stands for, and how many examples these hold."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.export import is_symbolic_dim

from nncompress_jax.errors import InputError
from nncompress_jax.leaves import described, is_key, native


def listed(batches: Any) -> tuple[Any, ...]:
    """Batches, one after the other.

    Args:
      batches: any iterable of them.

    Raises:
      InputError: for one array or dict, whose rows or keys would be taken for batches.

    Example:
      >>> listed(jnp.ones((8, 3)))
      Traceback (most recent call last):
      nncompress_jax.errors.InputError: batches= is one array of shape [8, 3]; expected a list: batches=[array]
    """
    if hasattr(batches, "shape"):
        raise InputError(f"batches= is one array of shape {list(batches.shape)}; expected a list: batches=[array]")
    if isinstance(batches, Mapping | str) or not isinstance(batches, Iterable):
        kind = type(batches).__name__
        raise InputError(f"batches= is one {kind}; expected a list of batches: batches=[{kind}]")
    return tuple(batches)


def arguments(batch: Any) -> tuple[Any, ...]:
    """Arguments of a network, behind the variables, that a batch stands for: a tuple of them, or the only one.

    Example:
      >>> arguments((1, 2)), arguments({"tokens": 1}), arguments([1, 2])
      ((1, 2), ({'tokens': 1},), ([1, 2],))
    """
    return batch if type(batch) is tuple else (batch,)


def examples_in(inputs: Any, batch_size: int | None = None) -> int:
    """How many examples a network is called with.

    Args:
      inputs: arguments of all kinds.
      batch_size: the number, where it is known.

    Returns:
      The length of the first array that has a leading axis and is no random key; 1, where there is none.

    Raises:
      InputError: for a number below one.

    Example:
      >>> examples_in((None, jax.random.key(0), {"tokens": jnp.ones((8, 3))})), examples_in((2.0,))
      (8, 1)
    """
    if batch_size is None:
        arrays = [leaf for leaf in jax.tree.leaves(inputs) if is_array(leaf) and leaf.ndim]
        data = [leaf for leaf in arrays if not _is_either_key(leaf)] or [leaf for leaf in arrays if _is_words(leaf)]
        batch_size = data[0].shape[0] if data else 1
    if isinstance(batch_size, int | np.integer):
        if batch_size < 1:
            raise InputError(f"a batch of {batch_size} examples: expected one at least; give batch_size=")
    elif not is_symbolic_dim(batch_size):
        raise InputError(f"batch_size={batch_size!r}: expected a whole number of examples")
    return batch_size  # type: ignore[return-value]


def pieces(inputs: Any, size: int) -> list[tuple[int, Any]]:
    """Arguments of a network with at most so many examples each.

    Args:
      inputs: arguments of all kinds; arrays whose first axis has the length of `examples_in` are divided along it.
      size: examples of a piece.

    Returns:
      (examples, arguments) of each piece.

    Example:
      >>> [(count, x.tolist()) for count, (x, _) in pieces((jnp.arange(5), None), 2)]
      [(2, [0, 1]), (2, [2, 3]), (1, [4])]
    """
    examples = examples_in(inputs)

    def part(leaf: Any, first: int) -> Any:
        divided = is_array(leaf) and not _is_either_key(leaf) and leaf.ndim and leaf.shape[0] == examples
        return leaf[first : first + size] if divided else leaf

    starts = range(0, examples, size)
    return [
        (min(size, examples - first), jax.tree.map(functools.partial(part, first=first), inputs)) for first in starts
    ]


def is_array(leaf: Any) -> bool:
    """Whether it is an array that jax takes, or stands for one: what else a function takes it takes as it is."""
    is_one = isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct)
    return is_one and (is_key(leaf) or described(leaf) is not None)


def of_arrays(
    function: Callable[..., Any],
    tree: Any,
    *,
    is_leaf: Callable[[Any], bool] | None = None,
    stand_in: Callable[[Any], Any] = native,
) -> tuple[Callable[..., Any], dict[int, Any]]:
    """A function whose first argument is a tree, as one of the arrays in it alone.

    Args:
      function: of (tree, ...).
      tree: what is no array in it stays as it is; its nodes are made of what they are for.
      is_leaf: as of `jax.tree.flatten`.
      stand_in: of a leaf, what the function sees in its place.

    Returns:
      The function of (arrays, ...), and the arrays, by their places among the leaves.

    Example:
      >>> function, arrays = of_arrays(lambda tree, x: tree["f"](tree["w"] * x), {"f": abs, "w": np.ones(2)})
      >>> arrays, function(arrays, -3)
      ({1: array([1., 1.])}, array([3., 3.]))
    """
    leaves, structure = jax.tree.flatten(tree, is_leaf=is_leaf)
    leaves = [stand_in(leaf) for leaf in leaves]

    def of(arrays: Mapping[int, Any], *args: Any, **kwargs: Any) -> Any:
        filled = [arrays.get(place, leaf) for place, leaf in enumerate(leaves)]
        return function(jax.tree.unflatten(structure, filled), *args, **kwargs)

    return of, {place: leaf for place, leaf in enumerate(leaves) if is_array(leaf)}


def compiled(function: Callable[..., Any], tree: Any) -> Callable[..., Any]:
    """A function of (tree, ...) as one of its further arguments, compiled once for all of them.

    Args:
      function: of (tree, ...).
      tree: as of `of_arrays`.

    Example:
      >>> double = compiled(lambda tree, x: tree["f"](tree["w"] * x), {"f": abs, "w": np.float32(2)})
      >>> double(-3).item()
      6.0
    """
    function, arrays = of_arrays(function, tree)
    return functools.partial(eqx.filter_jit(function), arrays)


def shapes_of(tree: Any) -> Any:
    """Arguments with shapes in the places of arrays, for messages; of nodes of other types their names."""
    if type(tree) in (list, tuple):
        return type(tree)(map(shapes_of, tree))
    if isinstance(tree, Mapping):
        return {name: shapes_of(child) for name, child in tree.items()}
    if is_array(tree):
        return tuple(tree.shape)
    return tree if tree is None or isinstance(tree, bool | int | float | complex | str) else type(tree).__name__


def _is_either_key(leaf: Any) -> bool:
    """Of either style: the old one has nothing but its shape to be known by."""
    return is_key(leaf) or (_is_words(leaf) and leaf.shape in ((2,), (4,)))


def _is_words(leaf: Any) -> bool:
    return bool(leaf.dtype == jnp.uint32)
