"""Compressed weights as data: which types, static parts and shapes, from which they are built again."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from nncompress_jax.errors import InputError
from nncompress_jax.tree import named_leaves
from nncompress_jax.weights.base import CompressedWeight, is_compressed
from nncompress_jax.weights.binary import Binary, FakeBinary
from nncompress_jax.weights.channels import Channels
from nncompress_jax.weights.clustered import Clustered
from nncompress_jax.weights.fake_quantized import FakeQuantized
from nncompress_jax.weights.kept import Kept
from nncompress_jax.weights.low_rank import LowRank
from nncompress_jax.weights.packed import Packed
from nncompress_jax.weights.quantized import Quantized
from nncompress_jax.weights.sparse import Sparse, SparseGroups

TYPES: Mapping[str, Any] = {
    kind.__name__: kind
    for kind in (Binary, Clustered, FakeBinary, FakeQuantized, Kept, LowRank, Packed, Quantized, Sparse, SparseGroups)
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
    return {path: _described(leaf) for path, leaf in named_leaves(variables, is_compressed) if is_compressed(leaf)}


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
        built = _built(path, described[path])
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


def _described(part: Any) -> Any:
    if part is None:
        return None
    if isinstance(part, tuple):
        return [_described(each) for each in part]
    if not is_compressed(part):
        return {"shape": list(part.shape), "dtype": jnp.dtype(part.dtype).name}
    fields = dataclasses.fields(part)
    static = {field.name: getattr(part, field.name) for field in fields if field.metadata.get("static")}
    parts = {field.name: _described(getattr(part, field.name)) for field in fields if field.name not in static}
    listed = {name: [*map(_listed, value)] if isinstance(value, tuple) else value for name, value in static.items()}
    return {"type": type(part).__name__, "static": listed, "parts": parts}


def _built(path: str, described: Any) -> Any:
    if described is None:
        return None
    if isinstance(described, list):
        return tuple(_built(path, each) for each in described)
    if "type" not in described:
        return jax.ShapeDtypeStruct(tuple(described["shape"]), jnp.dtype(described["dtype"]))
    if described["type"] not in TYPES:
        raise InputError(f"{path}: {described['type']!r} is no compressed weight; expected one of {', '.join(TYPES)}")
    kind: type[CompressedWeight] = TYPES[described["type"]]
    static = {name: tuple(map(_static, x)) if isinstance(x, list) else x for name, x in described["static"].items()}
    parts = {name: _built(path, part) for name, part in described["parts"].items()}
    return kind(**parts, **static)


def _listed(part: Any) -> Any:
    return part.described() if isinstance(part, Channels) else part


def _static(part: Any) -> Any:
    return Channels.built(part) if isinstance(part, dict) else part


def _in_words(described: Any) -> str:
    """A type with its static parts, and the types inside."""
    if not isinstance(described, dict):
        return "a dense array"
    static = [f"{name}={value}" for name, value in described["static"].items()]
    parts = [each for part in described["parts"].values() for each in (part if isinstance(part, list) else [part])]
    inner = [_in_words(part) for part in parts if part and "type" in part]
    shapes = [f"{tuple(part['shape'])} {part['dtype']}" for part in parts if part and "type" not in part]
    return f"{described['type']}({', '.join([*inner, *shapes, *static])})"
