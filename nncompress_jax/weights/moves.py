"""Operations that move the entries of a weight, or read some of them: what comes out stays compressed.

Parts of the weight's shape move as the weight does, parts that its entries share as arrays that broadcast to it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nncompress_jax.axes.movements import Placing, Reading, Reshaping
from nncompress_jax.axes.places import repeated
from nncompress_jax.axes.primitives import NAME, PVARY
from nncompress_jax.axes.rules import axis_rule
from nncompress_jax.weights.base import CompressedWeight, Rule, bind, is_compressed, registered

Values = Sequence[Any]


def placed(primitive: Any, values: Values, params: dict[str, Any]) -> Any:
    """Transposed, sliced, split and the like."""
    (weight,), rule = values, axis_rule(primitive.name, params, [values[0].shape])
    results = [weight.moved(Placing(weight.shape, rule.places(0, i))) for i in range(len(rule.results))]
    if isinstance(results[0], str) or not primitive.multiple_results:
        return results[0]
    return results


def reshape(primitive: Any, values: Values, params: dict[str, Any]) -> Any:
    """Parts that a merged or split run of axes shares stay one; others are repeated along the run."""
    (weight,) = values
    return weight.moved(Reshaping(weight.shape, params["new_sizes"])) if weight.size else "of no entries"


def read(primitive: Any, values: Values, params: dict[str, Any]) -> Any:
    """Rows, layers and the like, at places that only the running program knows."""
    weight, *starts = values
    if not is_compressed(weight) or any(map(is_compressed, starts)):
        return "at places that a weight says"
    reading = Reading(weight.shape, primitive, starts, params)
    result = weight.moved(reading)
    if isinstance(result, str) or not reading.fills:
        return result
    outside, fill = reading.outside()
    return result.filled(outside, fill) if is_compressed(result) else jnp.where(outside, fill, result)


def joined(primitive: Any, values: Values, params: dict[str, Any]) -> Any:
    """Weights alike, one behind the other."""
    first = values[0]
    if not is_compressed(first) or not first.WHOLE or any(type(value) is not type(first) for value in values):
        return "of different types, or of parts that do not move with their entries"
    rule = axis_rule(primitive.name, params, [value.shape for value in values])
    places = rule.places()
    behind = {axis for axis, picked in zip(places.axes, places.picked, strict=True) if picked is not None}
    new = {}
    for field in dataclasses.fields(first):
        parts = [getattr(value, field.name) for value in values]
        static = field.metadata.get("static") or all(part is None for part in parts)
        if static and all(part == parts[0] for part in parts):
            new[field.name] = parts[0]
        elif static or field.name not in (*first.WHOLE, *first.SHARED) or any(part is None for part in parts):
            return f"of weights with a {field.name} of their own"
        elif field.name in first.WHOLE:
            new[field.name] = bind(primitive, parts, params)
        else:
            new[field.name] = primitive.bind(*_alike(parts, values, behind), **params)
    return type(first)(**new)


def _alike(parts: Values, weights: Values, behind: set[int | None]) -> list[Any]:
    """Shared parts with as many places along each axis as the others; all, along that on which they are joined."""
    sizes = [{part.shape[axis] for part in parts} for axis in range(parts[0].ndim)]
    few = [min(each - {1}, default=1) if len(each - {1}) < 2 else None for each in sizes]
    alike = []
    for part, weight in zip(parts, weights, strict=True):
        full = [weight.shape[axis] if axis in behind or size is None else size for axis, size in enumerate(few)]
        alike.append(jnp.broadcast_to(repeated(part, full), full))
    return alike


def passed(primitive: Any, values: Values, params: dict[str, Any]) -> Any:
    """Each part on its own: copies, barriers, what stops gradients."""
    if not primitive.multiple_results:
        return jax.tree.map(lambda part: primitive.bind(part, **params), values[0])
    parts, structure = jax.tree.flatten(list(values))
    return jax.tree.unflatten(structure, primitive.bind(*parts, **params))


def constrained(primitive: Any, values: Values, params: dict[str, Any]) -> Any:
    """What is of the weight's shape lies on the devices as the weight would."""
    (weight,) = values
    parts = {name: getattr(weight, name) for name in weight.WHOLE}
    arrays = {name: part for name, part in parts.items() if part is not None and not is_compressed(part)}
    return dataclasses.replace(weight, **{name: primitive.bind(part, **params) for name, part in arrays.items()})


RULES: dict[str, Rule] = {
    **dict.fromkeys(("transpose", "squeeze", "broadcast_in_dim", "slice", "tile", "rev", "split", "unstack"), placed),
    "reshape": reshape,
    **dict.fromkeys(("gather", "dynamic_slice"), read),
    **dict.fromkeys(("concatenate", "stack"), joined),
    **dict.fromkeys(("stop_gradient", "optimization_barrier", "copy"), passed),
    "sharding_constraint": constrained,
}


def register() -> None:
    """Makes these the rules of every weight that has none of its own."""
    for name, rule in RULES.items():
        primitive = getattr(lax, f"{name}_p", None)  # not all are of the oldest jax
        if primitive is not None:
            registered(primitive, CompressedWeight, rule)
    for primitive in (NAME, PVARY):
        registered(primitive, CompressedWeight, passed)
