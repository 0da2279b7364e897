"""Compressed weights in the serializations of others: `jax.export` and `flax.serialization`."""

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import flax.serialization
import jax
from jax.export import register_pytree_node_serialization
from jax.tree_util import PyTreeDef, default_registry

from nncompress_jax.errors import InputError
from nncompress_jax.weights.dicts import part_from_dict, part_to_dict
from nncompress_jax.weights.incomplete import is_incomplete


def register(kind: type[Any]) -> None:
    """Makes a type of weights known to both; of types of one name, the first stays the one of `jax.export`."""
    name = f"nncompress_jax.{kind.FILE_NAME or kind.__name__}"

    def from_children(aux_data: Any, children: Sequence[Any]) -> Any:
        return kind(**dict(zip(_parts(kind), children, strict=True)), **kind.static_from_dict(aux_data))

    flax.serialization.register_serialization_state(kind, to_state, from_state)
    with contextlib.suppress(ValueError):
        register_pytree_node_serialization(
            kind,
            serialized_name=name,
            serialize_auxdata=lambda static: json.dumps(_holding(kind, static).static_to_dict()).encode(),
            deserialize_auxdata=json.loads,
            from_children=from_children,
        )


def to_state(weight: Any) -> Any:
    """Of dicts, lists and arrays: as in `.nnc` files, the type and what is static included."""
    return part_to_dict(weight, lambda array, _: array)


def from_state(target: Any, state: Any) -> Any:
    """The weight that `to_state` was given.

    Args:
      target: the weight in its place.
      state: of `to_state`.

    Raises:
      InputError: for anything else, and for weights of another shape or dtype.
    """
    if not isinstance(state, dict) or "type" not in state:
        raise InputError(f"{_named(target)}: the state holds no compressed weight; nnc.decompress the variables first")
    weight = part_from_dict(type(target).__name__, state, lambda array: array)
    if is_incomplete(target):
        return _as_parts(target, weight)
    if wrong := weight.check():
        raise InputError(f"{_named(target)}: the state is damaged: {wrong}")
    if (weight.shape, weight.dtype) != (target.shape, target.dtype):
        raise InputError(f"{_named(target)}: the state holds {_named(weight)}; compress the variables as they were")
    return weight


def _as_parts(target: Any, weight: Any) -> Any:
    """Of a gradient, or the state of an optimizer: the parts that the target has."""
    structure, old, new = jax.tree.structure(target), jax.tree.leaves(target), jax.tree.leaves(weight)
    kinds = [[(tuple(part.shape), part.dtype) for part in parts] for parts in (old, new)]
    if type(weight) is not type(target) or kinds[0] != kinds[1]:
        raise InputError(
            f"{type(target).__name__}: the state holds parts {[list(shape) for shape, _ in kinds[1]]} of "
            f"{type(weight).__name__}, expected {[list(shape) for shape, _ in kinds[0]]}"
        )
    return jax.tree.unflatten(structure, new)


def _named(weight: Any) -> str:
    return f"{weight.nesting} {weight.dtype} {list(weight.shape)}"


def _parts(kind: type[Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if not field.metadata.get("static")]


def _holding(kind: type[Any], static: Any) -> Any:
    """A weight with these static fields, as equinox packs them, and nothing in the others."""
    leaf, count = jax.tree.structure(0), len(_parts(kind))
    structure = PyTreeDef.from_node_data_and_children(default_registry, (kind, static), [leaf] * count)
    return structure.unflatten([0] * count)
