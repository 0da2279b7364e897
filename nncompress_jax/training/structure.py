"""The compressed weights of a tree without their arrays: what a checkpoint stores beside these."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from nncompress_jax.errors import InputError
from nncompress_jax.tree import named_leaves
from nncompress_jax.weights.base import is_compressed
from nncompress_jax.weights.dicts import part_from_dict, part_to_dict


def structure(variables: Any) -> dict[str, Any]:
    """The compressed weights of a tree, without their arrays.

    Args:
      variables: arrays, `jax.ShapeDtypeStruct`, and compressed weights of them.

    Returns:
      By path what JSON can hold: {"type", "static", "parts"}; an array is {"shape", "dtype"}.

    Example:
      >>> from nncompress_jax.recipes import compress
      >>> described = structure(compress({"kernel": jnp.ones((8, 4)), "bias": jnp.ones(4)}))
      >>> described["kernel"]["type"], described["kernel"]["parts"]["codes"]
      ('Quantized', {'shape': [8, 4], 'dtype': 'int8'})
    """
    leaves = named_leaves(variables, is_compressed)
    return {path: part_to_dict(leaf, _shape_of) for path, leaf in leaves if is_compressed(leaf)}


def with_structure(variables: Any, described: Mapping[str, Any]) -> Any:
    """A tree whose leaves at these paths are compressed weights of `jax.ShapeDtypeStruct`.

    Args:
      variables: dense, arrays or `jax.ShapeDtypeStruct`.
      described: of `structure`.

    Raises:
      InputError: for paths or types that are not there, and for logical shapes that are others.
    """
    leaves = dict(named_leaves(variables))
    if strange := sorted(described.keys() - leaves.keys()):
        raise InputError(f"{strange[0]}: described as compressed, but the network has no such weight")

    def new(path: str, leaf: Any) -> Any:
        if path not in described:
            return leaf
        built = part_from_dict(path, described[path], _of_shape)
        if built.shape != leaf.shape:
            raise InputError(f"{path}: described with shape {built.shape}, expected the network's, {leaf.shape}")
        return built

    return jax.tree.unflatten(jax.tree.structure(variables), [new(path, leaf) for path, leaf in leaves.items()])


def check_same(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raises InputError, with the first path, where two structures differ in type, static parts or shapes.

    Args:
      found: as it was stored, perhaps by an earlier version, whose types had fewer fields.
      expected: of `structure`.
    """
    for path in sorted(found.keys() | expected.keys()):
        one, other = (_in_words(each.get(path)) for each in (found, expected))
        if found.get(path) != expected.get(path) and _completed(path, found.get(path)) != expected.get(path):
            raise InputError(f"{path}: stored as {one}, expected {other}; restore it as it was stored")


def _completed(path: str, described: Any) -> Any:
    """With the fields that its type has now, as they are by default."""
    try:
        return part_to_dict(part_from_dict(path, described, _of_shape), _shape_of)
    except InputError:
        return described


def _shape_of(array: Any, _: Any) -> dict[str, Any]:
    return {"shape": list(array.shape), "dtype": jnp.dtype(array.dtype).name}


def _of_shape(described: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(tuple(described["shape"]), jnp.dtype(described["dtype"]))


def _in_words(described: Any) -> str:
    """A type with its static parts, and the types inside."""
    if not isinstance(described, dict):
        return "a dense array"
    static = [f"{name}={value}" for name, value in described["static"].items()]
    parts = [each for part in described["parts"].values() for each in (part if isinstance(part, list) else [part])]
    inner = [_in_words(part) for part in parts if part and "type" in part]
    shapes = [f"{tuple(part['shape'])} {part['dtype']}" for part in parts if part and "type" not in part]
    return f"{described['type']}({', '.join([*inner, *shapes, *static])})"
