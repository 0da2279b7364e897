"""Which parts of compressed variables train, and derivatives with respect to them."""

import contextlib
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from nncompress_jax.errors import InputError
from nncompress_jax.inputs import is_array, of_arrays
from nncompress_jax.leaves import is_key
from nncompress_jax.tree import named_leaves
from nncompress_jax.weights.base import is_compressed


def decaying(tree: Any, dense: Callable[[Any], bool]) -> Any:
    """Which leaves weight decay reaches: of compressed weights the fields that decay, of others what `dense` says.

    Args:
      tree: arrays and compressed weights; None where an array does not train.
      dense: of an array that is a leaf of its own.
    """
    return jax.tree.map(
        lambda leaf: _marked(leaf, "DECAYS") if is_compressed(leaf) else dense(leaf),
        tree,
        is_leaf=is_compressed,
    )


def split(tree: Any) -> tuple[Any, Any]:
    """(what trains, what does not): two trees of the structure, each with None in the places of the other's arrays.

    Every dense float array trains, and of compressed weights the fields that their types list.

    Example:
      >>> from nncompress_jax.methods.cluster import cluster
      >>> from nncompress_jax.types import Context
      >>> weights = cluster()({"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)}, Context())
      >>> [leaf.shape for leaf in jax.tree.leaves(split(weights)[0])]
      [(4,), (16,)]
    """
    leaves, structure = jax.tree.flatten(tree)
    marks = trains(tree)
    both = [
        [leaf if mark is here else None for leaf, mark in zip(leaves, marks, strict=True)] for here in (True, False)
    ]
    trained, fixed = (jax.tree.unflatten(structure, half) for half in both)
    return trained, fixed


def joined(trained: Any, fixed: Any) -> Any:
    """The tree that `split` was given."""
    return eqx.combine(trained, fixed)


def preconditioned(tree: Any, gradients: Any) -> Any:
    """Gradients of `value_and_grad` as training takes them: of a size that suits the learning rate of dense weights."""
    return jax.tree.map(
        lambda leaf, gradient: leaf.preconditioned(gradient) if is_compressed(leaf) else gradient,
        tree,
        gradients,
        is_leaf=lambda x: x is None or is_compressed(x),
    )


def projected(tree: Any) -> Any:
    """What training goes on with after an update: weights that have bounds are brought back into them."""
    return jax.tree.map(
        lambda leaf: leaf.projected() if is_compressed(leaf) else leaf,
        tree,
        is_leaf=is_compressed,
    )


def updated_ranges(variables: Any, observed: Mapping[str, Any]) -> Any:
    """Variables whose weights track the range of their inputs, with that range moved by what one batch showed.

    Args:
      variables: any tree; other leaves stay.
      observed: of `nnc.observe(apply, largest_magnitude)`.
    """
    leaves = named_leaves(variables, is_compressed)
    moved = [
        leaf.update_ranges(observed[path]) if is_compressed(leaf) and path in observed else leaf
        for path, leaf in leaves
    ]
    return jax.tree.unflatten(jax.tree.structure(variables, is_leaf=is_compressed), moved)


def value_and_grad(function: Callable[..., Any], *, has_aux: bool = False) -> Callable[..., Any]:
    """As `jax.value_and_grad`, with respect to the parts of the first argument that train.

    Args:
      function: of (variables, ...) to a scalar, for instance a loss of `inject(apply)`.
      has_aux: whether it returns (scalar, more).

    Returns:
      A function of the same arguments, to the value and the gradients: these have the structure of the variables, with
      None in the places of arrays that do not train, and are fit for optax beside `split(variables)[0]`. Where a node
      of the variables looks at what it is made of, and takes no None, dense arrays that do not train have zeros.

    Raises:
      InputError: (when called) where nothing trains, because all is integers.

    Example:
      >>> from nncompress_jax.tracing.injection import inject
      >>> from nncompress_jax.methods.prune import prune
      >>> from nncompress_jax.types import Context
      >>> weights = prune(sparsity=0.5)({"kernel": jnp.array([[1.0], [3.0]])}, Context())
      >>> apply = inject(lambda weights, x: (x @ weights["kernel"]).sum())
      >>> value, gradients = value_and_grad(apply)(weights, jnp.array([[1.0, 2.0]]))
      >>> value.item(), gradients["kernel"].values.tolist(), gradients["kernel"].positions
      (6.0, [2.0], None)
    """

    def differentiated(variables: Any, *args: Any, **kwargs: Any) -> Any:
        of_arrays_alone, arrays = of_arrays(function, variables)
        trained = {place: arrays.pop(place) for place, does in enumerate(trains(variables)) if does}
        if not trained:
            kinds = sorted({type(leaf).__name__ for leaf in jax.tree.leaves(variables, is_leaf=is_compressed)})
            raise InputError(
                f"nothing here trains (found {', '.join(kinds)}): integers have no gradient; "
                "start from nnc.fake_quantize, or leave some weights dense"
            )

        def of_trained(trained: Mapping[int, Any]) -> Any:
            return of_arrays_alone({**arrays, **trained}, *args, **kwargs)

        value, gradients = jax.value_and_grad(of_trained, has_aux=has_aux)(trained)
        return value, _in_places(gradients, variables)

    return differentiated


def trains(tree: Any) -> list[bool]:
    """Of each leaf, in order, whether training changes it."""
    return jax.tree.leaves([_marked(leaf, "TRAINS") for leaf in jax.tree.leaves(tree, is_leaf=is_compressed)])


def _in_places(gradients: Mapping[int, Any], variables: Any) -> Any:
    """Gradients, by the places of their leaves, in the structure of variables."""
    weights, structure = jax.tree.flatten(variables, is_leaf=is_compressed)
    number = itertools.count()

    def given(weight: Any) -> Any:
        return jax.tree.map(lambda _: gradients.get(next(number)), weight)

    found = [given(weight) for weight in weights]
    with contextlib.suppress(Exception):  # of a user's constructor
        tree = jax.tree.unflatten(structure, found)
        if len(jax.tree.leaves(tree)) == len(gradients):
            return tree
    zeros = [_zeros(weight) if gradient is None else gradient for weight, gradient in zip(weights, found, strict=True)]
    return jax.tree.unflatten(structure, zeros)


def _zeros(leaf: Any) -> Any:
    return jnp.zeros_like(leaf) if is_array(leaf) and not is_key(leaf) else None


def _marked(leaf: Any, kind: str) -> Any:
    """The leaf with True for the float arrays in the fields that its type lists, at any depth; and for a dense one."""
    if not is_compressed(leaf):
        return is_array(leaf) and bool(jnp.issubdtype(leaf.dtype, jnp.inexact))
    parts, structure = jax.tree_util.tree_flatten_with_path(leaf, lambda x: x is not leaf and is_compressed(x))
    listed = getattr(type(leaf), kind)
    filled = [
        _marked(part, kind) if path[0].name in listed else jax.tree.map(lambda _: False, part) for path, part in parts
    ]
    return jax.tree.unflatten(structure, filled)
