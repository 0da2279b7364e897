"""Compressed weights as data: which types, static parts and shapes, from which they are built again."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from nncompress_jax.errors import InputError
from nncompress_jax.tree import named_leaves
from nncompress_jax.weights.base import CompressedWeight, is_compressed
from nncompress_jax.weights.binary import Binary, FakeBinary
from nncompress_jax.weights.channel_pruned import ChannelPruned
from nncompress_jax.weights.channels import Channels
from nncompress_jax.weights.clustered import Clustered
from nncompress_jax.weights.fake_quantized import FakeQuantized
from nncompress_jax.weights.low_rank import LowRank
from nncompress_jax.weights.packed import Packed
from nncompress_jax.weights.quantized import Quantized
from nncompress_jax.weights.sparse import Sparse, SparseGroups

TYPES: Mapping[str, Any] = {
    kind.FILE_NAME or kind.__name__: kind
    for kind in (
        Binary,
        Clustered,
        FakeBinary,
        FakeQuantized,
        ChannelPruned,
        LowRank,
        Packed,
        Quantized,
        Sparse,
        SparseGroups,
    )
}
"""What can be built from data; nothing else is."""


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
    """Raises InputError, with the first path, where two structures differ in type, static parts or shapes."""
    for path in sorted(found.keys() | expected.keys()):
        one, other = (_in_words(each.get(path)) for each in (found, expected))
        if found.get(path) != expected.get(path):
            raise InputError(f"{path}: stored as {one}, expected {other}; restore it as it was stored")


def part_to_dict(part: Any, of_array: Callable[[Any, Any], Any], owner: Any = None) -> Any:
    """A compressed weight, or a part of one, as what JSON can hold.

    Args:
      part: a compressed weight, an array, None, or a tuple of them.
      of_array: (array, the weight that has it) -> what stands for the array.
      owner: the weight that has the part.
    """
    if part is None:
        return None
    if isinstance(part, tuple):
        return [part_to_dict(each, of_array, owner) for each in part]
    if not is_compressed(part):
        return of_array(part, owner)
    kind = type(part)
    fields = dataclasses.fields(part)
    static = {field.name: getattr(part, field.name) for field in fields if field.metadata.get("static")}
    names = [field.name for field in fields if field.name not in static]
    parts = {kind.FILE_FIELDS.get(name, name): part_to_dict(getattr(part, name), of_array, part) for name in names}
    listed = {name: [*map(_listed, value)] if isinstance(value, tuple) else value for name, value in static.items()}
    return {"type": kind.FILE_NAME or kind.__name__, "static": listed, "parts": parts}


def part_from_dict(path: str, described: Any, array: Callable[[Any], Any]) -> Any:
    """From what `part_to_dict` gave.

    Args:
      path: for errors.
      described: of `part_to_dict`.
      array: what stands for an array -> the array.

    Raises:
      InputError: for types, parts or static parts that are not there.
    """
    if described is None:
        return None
    if isinstance(described, list):
        return tuple(part_from_dict(path, each, array) for each in described)
    if "type" not in described:
        return array(described)
    if described["type"] not in list(TYPES):
        raise InputError(
            f"{path}: {str(described['type'])[:40]!r} is no compressed weight; expected one of {', '.join(TYPES)}"
        )
    kind: type[CompressedWeight] = TYPES[described["type"]]
    static, parts = described.get("static"), described.get("parts")
    if not isinstance(static, dict) or not isinstance(parts, dict):
        raise InputError(f"{path}: {described['type']} without parts")
    here = {stored: name for name, stored in kind.FILE_FIELDS.items()}
    parts = {here.get(name, name): part for name, part in parts.items()}
    fields = dataclasses.fields(kind)
    fixed_names = {field.name for field in fields if field.metadata.get("static")}
    needed = {field.name for field in fields if field.default is dataclasses.MISSING}
    strange = (static.keys() - fixed_names) | (parts.keys() - ({field.name for field in fields} - fixed_names))
    if strange or not needed <= static.keys() | parts.keys():
        found = ", ".join(sorted([*static, *parts]))[:80]
        raise InputError(f"{path}: {described['type']} of {found}; expected {', '.join(sorted(needed))} at least")
    fixed = {name: tuple(map(_static, x)) if isinstance(x, list) else x for name, x in static.items()}
    return kind(**{name: part_from_dict(path, part, array) for name, part in parts.items()}, **fixed)


def _shape_of(array: Any, _: Any) -> dict[str, Any]:
    return {"shape": list(array.shape), "dtype": jnp.dtype(array.dtype).name}


def _of_shape(described: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(tuple(described["shape"]), jnp.dtype(described["dtype"]))


def _listed(part: Any) -> Any:
    return part.to_dict() if isinstance(part, Channels) else part


def _static(part: Any) -> Any:
    return Channels.from_dict(part) if isinstance(part, dict) else part


def _in_words(described: Any) -> str:
    """A type with its static parts, and the types inside."""
    if not isinstance(described, dict):
        return "a dense array"
    static = [f"{name}={value}" for name, value in described["static"].items()]
    parts = [each for part in described["parts"].values() for each in (part if isinstance(part, list) else [part])]
    inner = [_in_words(part) for part in parts if part and "type" in part]
    shapes = [f"{tuple(part['shape'])} {part['dtype']}" for part in parts if part and "type" not in part]
    return f"{described['type']}({', '.join([*inner, *shapes, *static])})"
