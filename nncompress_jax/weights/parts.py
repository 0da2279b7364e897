"""Which parts of compressed variables train, and derivatives with respect to them."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from nncompress_jax.errors import InputError
from nncompress_jax.inputs import is_array, of_arrays
from nncompress_jax.leaves import is_key
from nncompress_jax.weights.base import CompressedWeight, is_compressed
from nncompress_jax.weights.incomplete import Incomplete

Fields = Callable[[CompressedWeight], Sequence[str]]
"""Of a type of weights, names of fields."""


def decays(tree: Any, dense: Callable[[Any], bool] = lambda leaf: True) -> Any:
    """Which leaves weight decay reaches: a mask for optax, as in `optax.adamw(1e-3, mask=nnc.decays)`.

    Of compressed weights, these are the parts that stand for weights. Codebooks, learned scales and weights of signs
    do not decay.

    Args:
      tree: arrays and compressed weights; None where an array does not train.
      dense: of a float array that is a leaf of its own; by default they all decay, as in optax.

    Returns:
      The tree with True and False in the places of its arrays.

    Example:
      >>> from nncompress_jax.methods.cluster import cluster
      >>> from nncompress_jax.types import Context
      >>> mask = decays(cluster()({"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)}, Context()))
      >>> mask["bias"], mask["kernel"].codebook
      (True, False)
    """
    marks = _marks(tree, lambda weight: weight.DECAYS, lambda leaf: _is_float(leaf) and dense(leaf))
    return jax.tree.unflatten(jax.tree.structure(tree), marks)


def partition(tree: Any) -> tuple[Any, Any]:
    """(what trains, what does not): two trees of the structure, each with None in the places of the other's arrays.

    Every dense float array trains, and of compressed weights the parts that their types list: values of sparse weights,
    codebooks, factors, weights that train through their quantization.

    Args:
      tree: arrays and compressed weights.

    Returns:
      Two trees for `combine`. The first has the structure of the gradients of `nnc.grad`.

    Example:
      >>> from nncompress_jax.methods.cluster import cluster
      >>> from nncompress_jax.types import Context
      >>> weights = cluster()({"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)}, Context())
      >>> [leaf.shape for leaf in jax.tree.leaves(partition(weights)[0])]
      [(4,), (16,)]
    """
    pairs = list(zip(jax.tree.leaves(tree), trains(tree), strict=True))
    trained, fixed = ([leaf if mark is here else None for leaf, mark in pairs] for here in (True, False))
    return with_leaves(tree, trained), with_leaves(tree, fixed)


def with_leaves(tree: Any, leaves: Sequence[Any]) -> Any:
    """A tree of its structure with other leaves, None among them; Raises InputError where a node takes none."""
    weights, structure = jax.tree.flatten(tree, is_leaf=is_compressed)
    left = iter(leaves)
    filled = [_incomplete(jax.tree.map(lambda _: next(left), weight), weight) for weight in weights]
    with contextlib.suppress(Exception):  # of a user's constructor
        made = jax.tree.unflatten(structure, filled)
        if len(jax.tree.leaves(made)) == sum(leaf is not None for leaf in leaves):
            return made
    raise InputError(
        "a node of the variables casts or checks its fields when it is made, and takes no None there; "
        "hold its fields in a dict"
    )


def combine(trained: Any, fixed: Any) -> Any:
    """The tree that `partition` was given.

    Example:
      >>> weights = {"kernel": jnp.ones(2), "steps": jnp.zeros(1, jnp.int32)}
      >>> trained, fixed = partition(weights)
      >>> combine({"kernel": trained["kernel"] + 1, "steps": None}, fixed)["kernel"].tolist()
      [2.0, 2.0]
    """
    return eqx.combine(complete(trained), complete(fixed))


def _incomplete(weight: Any, whole: Any) -> Any:
    """A weight of which arrays became None, marked so if there are any; other leaves as they are."""
    if not is_compressed(weight) or len(jax.tree.leaves(weight)) == len(jax.tree.leaves(whole)):
        return weight
    return _named(weight, Incomplete)


def complete(tree: Any) -> Any:
    """The tree without such marks."""
    return jax.tree.map(
        lambda leaf: _named(leaf, str) if is_compressed(leaf) else leaf,
        tree,
        is_leaf=lambda x: x is None or is_compressed(x),
    )


def _named(weight: Any, kind: Callable[[str], str]) -> Any:
    """With names of this kind, in weights inside of it, too."""
    inner = jax.tree.map(
        lambda part: _named(part, kind) if is_compressed(part) else part,
        weight,
        is_leaf=lambda x: x is not weight and is_compressed(x),
    )
    return dataclasses.replace(inner, dtype_name=kind(inner.dtype_name)) if hasattr(inner, "dtype_name") else inner


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


def value_and_grad(function: Callable[..., Any], *, has_aux: bool = False) -> Callable[..., Any]:
    """As `jax.value_and_grad`, with respect to the parts of the first argument that train.

    Args:
      function: of (variables, ...) to a scalar, for instance a loss of `inject(apply)`.
      has_aux: whether it returns (scalar, more).

    Returns:
      A function of the same arguments, to the value and the gradients, which `nnc.optimizer` takes: these have the
      structure of the variables, with None in the places of arrays that do not train. Where a node of the variables
      looks at what it is made of, and takes no None, dense arrays that do not train have zeros. In the place of an
      input range that training tracks stands the step that it takes down.

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
        marks = enumerate(zip(trains(variables), tracked(variables), strict=True))
        trained = {place: arrays.pop(place) for place, mark in marks if any(mark)}
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


def grad(function: Callable[..., Any], *, has_aux: bool = False) -> Callable[..., Any]:
    """As `value_and_grad`, without the value.

    Args:
      function: as there.
      has_aux: whether it returns (scalar, more).

    Returns:
      A function of the same arguments, to the gradients, or (gradients, more).

    Raises:
      InputError: as `value_and_grad` does.

    Example:
      >>> grad(lambda weights: (weights["kernel"] ** 2).sum())({"kernel": jnp.array([1.0, 3.0])})["kernel"].tolist()
      [2.0, 6.0]
    """

    def differentiated(variables: Any, *args: Any, **kwargs: Any) -> Any:
        value, gradients = value_and_grad(function, has_aux=has_aux)(variables, *args, **kwargs)
        return (gradients, value[1]) if has_aux else gradients

    return differentiated


def trains(tree: Any) -> list[bool]:
    """Of each leaf, in order, whether gradient descent changes it."""
    return _marks(tree, lambda weight: weight.TRAINS, _is_float)


def tracked(tree: Any) -> list[bool]:
    """Of each leaf, in order, whether training moves it with what it sees."""
    return _marks(tree, lambda weight: weight.tracked_parts, lambda leaf: False, inside=lambda weight: weight.TRAINS)


def _marks(tree: Any, listed: Fields, dense: Callable[[Any], bool], inside: Fields | None = None) -> list[bool]:
    """Of each leaf, in order, whether it is a float in a field that is listed, or `dense` says so; weights inside of
    weights are asked themselves, in fields that `inside` lists, by default the same."""
    leaves = jax.tree.leaves(tree, is_leaf=is_compressed)
    marks = [_of_parts(leaf, listed, inside or listed) if is_compressed(leaf) else [dense(leaf)] for leaf in leaves]
    return [mark for each in marks for mark in each]


def _of_parts(weight: CompressedWeight, listed: Fields, inside: Fields) -> list[bool]:
    parts, _ = jax.tree_util.tree_flatten_with_path(weight, lambda x: x is not weight and is_compressed(x))
    marks: list[bool] = []
    for (field, *_), part in parts:
        if not is_compressed(part):
            marks.append(_is_float(part) and field.name in listed(weight))
        elif field.name in inside(weight):
            marks += _of_parts(part, listed, inside)
        else:
            marks += [False] * len(jax.tree.leaves(part))
    return marks


def _is_float(leaf: Any) -> bool:
    return is_array(leaf) and bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


def _in_places(gradients: Mapping[int, Any], variables: Any) -> Any:
    """Gradients, by the places of their leaves, in the structure of variables."""
    leaves = jax.tree.leaves(variables)
    found = [gradients.get(place) for place in range(len(leaves))]
    with contextlib.suppress(InputError):
        return with_leaves(variables, found)
    dense = [
        not is_compressed(leaf)
        for leaf in jax.tree.leaves(variables, is_leaf=is_compressed)
        for _ in jax.tree.leaves(leaf)
    ]
    places = zip(leaves, found, dense, strict=True)
    return with_leaves(variables, [zero_of(leaf) if own and x is None else x for leaf, x, own in places])


def zero_of(leaf: Any) -> Any:
    """Zeros like an array; None for what is none."""
    return jnp.zeros_like(leaf) if is_array(leaf) and not is_key(leaf) else None
