"""Any optax optimizer on compressed variables, and averages of them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nncompress_jax.errors import InputError
from nncompress_jax.leaves import imported_nnx
from nncompress_jax.weights.base import is_compressed
from nncompress_jax.weights.fake_quantized import prices
from nncompress_jax.weights.parts import (
    combine,
    complete,
    partition,
    preconditioned,
    projected,
    tracked,
    trains,
    with_leaves,
    zero_of,
)


def optimizer(transformation: Any) -> optax.GradientTransformationExtraArgs:
    """Makes an optax optimizer train compressed variables, in any loop that trains dense ones.

    The optimizer sees the parts that train alone: it keeps no state for integers and positions, and changes none of
    them. Gradients of codebooks are divided by how many entries share a value; weights that have bounds stay in them;
    input ranges that are tracked move with what the network saw, and prices of bits towards the rate that is asked
    for. Without compressed weights it does what the transformation does.

    Args:
      transformation: of optax, with everything in it that looks at gradients or parameters: clipping, schedules,
        `multi_transform`, `MultiSteps`. A mask of weight decay is `nnc.decays`.

    Returns:
      An optax transformation. Its `update` takes gradients of `nnc.grad` or of `jax.grad(..., allow_int=True)`, needs
      the parameters, and gives updates of their structure, which `optax.apply_updates` adds. Line searches take
      `value=`, `grad=` and `value_fn=` of the parameters, as optax has them.

    Raises:
      InputError: (in `update`) without parameters, and for gradients of another structure.

    Example:
      >>> import nncompress_jax as nnc
      >>> params = nnc.compress({"kernel": jnp.array([[1.0], [3.0]])}, nnc.prune(sparsity=0.5))
      >>> tx = optimizer(optax.adam(0.1))
      >>> state = tx.init(params)
      >>> loss = nnc.inject(lambda params: (params["kernel"] ** 2).sum())
      >>> updates, state = tx.update(nnc.grad(loss)(params), state, params)
      >>> nnc.decompress(optax.apply_updates(params, updates))["kernel"].round(3).tolist()
      [[0.0], [2.9000000953674316]]
    """
    if hasattr(transformation, "gradient_transformation"):  # MultiSteps
        transformation = transformation.gradient_transformation()
    inner = optax.with_extra_args_support(transformation)

    def init(params: Any) -> Any:
        return inner.init(_unboxed(partition(params)[0]))

    def update(gradients: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        if params is None:
            raise InputError("nnc.optimizer needs the parameters: update(gradients, state, params)")
        structure, (trained, fixed) = jax.tree.structure(params), partition(params)
        leaves, priced = jax.tree.leaves(params), prices(params)
        given = [
            -priced.steps[id(leaf)] if id(leaf) in priced.steps else gradient
            for leaf, gradient in zip(leaves, _leaves(structure, gradients, "gradients"), strict=True)
        ]
        at_work = jax.tree.unflatten(structure, [priced.now.get(id(leaf), leaf) for leaf in leaves])
        if "grad" in extra:
            extra["grad"] = _trained(params, _leaves(structure, extra["grad"], "grad"))
        if "value_fn" in extra:
            value_fn = extra["value_fn"]
            extra["value_fn"] = lambda parts, *args, **named: value_fn(combine(parts, fixed), *args, **named)
        updates, state = inner.update(preconditioned(at_work, _trained(params, given)), state, trained, **extra)
        steps = _leaves(structure, updates, "updates")
        steps = [
            -gradient if moves and gradient is not None else step
            for gradient, step, moves in zip(given, steps, tracked(params), strict=True)
        ]
        return _within_bounds(params, steps), state

    return optax.GradientTransformationExtraArgs(init, update)


def _trained(params: Any, leaves: Sequence[Any]) -> Any:
    """Gradients of what trains, and None in the places of all else."""
    return with_leaves(params, [leaf if does else None for leaf, does in zip(leaves, trains(params), strict=True)])


def _unboxed(tree: Any) -> Any:
    """Without NNX's boxes around compressed weights: NNX takes the state of an optimizer for one of arrays."""
    nnx = imported_nnx()
    if nnx is None or not any(map(is_compressed, jax.tree.leaves(tree, is_leaf=is_compressed))):
        return tree
    return jax.tree.map(
        lambda leaf: leaf.get_value() if isinstance(leaf, nnx.Variable) and is_compressed(leaf.get_value()) else leaf,
        tree,
        is_leaf=lambda x: isinstance(x, nnx.Variable),
    )


def ema(average: Any, variables: Any, decay: float | Any = 0.999) -> Any:
    """A moving average of variables, one step further: decay * average + (1 - decay) * variables.

    Args:
      average: variables, by which it begins, or what this function gave.
      variables: of the same structure, compressed or not; their integers are taken as they are.
      decay: in [0, 1].

    Returns:
      Variables of this structure and these dtypes.

    Raises:
      InputError: for trees of two structures.

    Example:
      >>> ema({"kernel": jnp.zeros(2)}, {"kernel": jnp.ones(2)}, decay=0.75)["kernel"].tolist()
      [0.25, 0.25]

    Source: Polyak and Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging".
    """
    leaves, structure = jax.tree.flatten(variables)
    moving = zip(trains(variables), tracked(variables), strict=True)

    def averaged(old: Any, new: Any, moves: bool) -> Any:
        return (decay * old + (1 - decay) * new).astype(new.dtype) if moves else new

    old = _leaves(structure, average, "the average")
    return jax.tree.unflatten(structure, map(averaged, old, leaves, map(any, moving)))


def _leaves(structure: Any, tree: Any, what: str) -> list[Any]:
    """Of a tree that may have None in the places of leaves; Raises InputError for another structure."""
    try:
        return structure.flatten_up_to(complete(tree))
    except (ValueError, TypeError, KeyError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"{what} have another structure than the parameters: {reason}") from error


def _within_bounds(params: Any, steps: Sequence[Any]) -> Any:
    """Updates of the structure of parameters: those that are there, as far as weights' bounds let them go, or zero."""
    leaves, structure = jax.tree.flatten(params)
    steps = [zero_of(leaf) if step is None else step for leaf, step in zip(leaves, steps, strict=True)]
    pairs = zip(leaves, steps, strict=True)
    updated = [leaf if step is None else optax.apply_updates(leaf, step) for leaf, step in pairs]
    bounded = jax.tree.leaves(projected(jax.tree.unflatten(structure, updated)))

    def step_of(leaf: Any, step: Any, new: Any, within: Any) -> Any:
        return step if within is new else jnp.where(within == new, step, within - leaf)

    return jax.tree.unflatten(structure, map(step_of, leaves, steps, updated, bounded))
