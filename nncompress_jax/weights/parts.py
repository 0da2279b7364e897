"""Which parts of compressed variables train, and derivatives with respect to them."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from nncompress_jax.errors import InputError
from nncompress_jax.leaves import described
from nncompress_jax.tree import named_leaves
from nncompress_jax.weights.base import is_compressed


def trainable(tree: Any) -> Any:
    """Which leaves training may change: every dense float array, and of compressed weights the fields that train.

    Args:
      tree: arrays and compressed weights.

    Returns:
      The same structure, with True and False in the places of arrays.

    Example:
      >>> from nncompress_jax.methods.cluster import cluster
      >>> from nncompress_jax.types import Context
      >>> weights = cluster()({"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)}, Context())
      >>> jax.tree.leaves(trainable(weights))
      [True, True, False]
    """
    return jax.tree.map(lambda leaf: _marked(leaf, "TRAINS"), tree, is_leaf=is_compressed)


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
    """(what trains, what does not): two trees of the structure, each with None in the places of the other's arrays."""
    return eqx.partition(tree, trainable(tree))


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
      None in the places of arrays that do not train, and are fit for optax beside `split(variables)[0]`.

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
        trained, fixed = split(variables)
        if not jax.tree.leaves(trained):
            kinds = sorted({type(leaf).__name__ for leaf in jax.tree.leaves(variables, is_leaf=is_compressed)})
            raise InputError(
                f"nothing here trains (found {', '.join(kinds)}): integers have no gradient; "
                "start from nnc.fake_quantize, or leave some weights dense"
            )
        return jax.value_and_grad(lambda trained: function(joined(trained, fixed), *args, **kwargs), has_aux=has_aux)(
            trained
        )

    return differentiated


def _marked(leaf: Any, kind: str) -> Any:
    """The leaf with True for the float arrays in the fields that its type lists, at any depth; and for a dense one."""
    if not is_compressed(leaf):
        shape = described(leaf)
        return shape is not None and bool(jnp.issubdtype(shape.dtype, jnp.inexact))
    parts, structure = jax.tree_util.tree_flatten_with_path(leaf, lambda x: x is not leaf and is_compressed(x))
    listed = getattr(type(leaf), kind)
    filled = [
        _marked(part, kind) if path[0].name in listed else jax.tree.map(lambda _: False, part) for path, part in parts
    ]
    return jax.tree.unflatten(structure, filled)
