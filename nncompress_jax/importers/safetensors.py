"""Plain weights as safetensors files, to and from other frameworks."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import safetensors
import safetensors.numpy

from nncompress_jax.errors import InputError
from nncompress_jax.files import replacing
from nncompress_jax.importers import torch
from nncompress_jax.leaves import DTYPES, check_held, is_key, numbers, on_device
from nncompress_jax.tree import escaped, keyed_leaves, named_leaves
from nncompress_jax.types import Variables
from nncompress_jax.weights.base import is_compressed
from nncompress_jax.weights.structures import in_structure

KINDS = {
    **{"BOOL": "bool", "I8": "int8", "U8": "uint8", "I16": "int16", "U16": "uint16", "I32": "int32", "U32": "uint32"},
    **{"I64": "int64", "U64": "uint64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"},
    **{"C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2": "float8_e5m2"},
    **{"F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu"},
}
"""Names of dtypes in such files, and those of arrays."""

ESCAPED = {"nncompress_names": "escaped"}
"""In the metadata of a file whose names have `%2F` for a `/` inside of a key, and `%25` for `%`."""

RESERVED = "__metadata__"


def save_safetensors(path: str | Path, variables: Any) -> None:
    """Writes dense arrays under their paths, such as `params/Conv_0/kernel`.

    Arrays stay as they are to the last bit. An array that stands at several places of the tree is written at each of
    them, so that other programs find every name. A `/` inside of a key is written as `%2F`.

    Args:
      path: of the file.
      variables: any tree of arrays and numbers; numbers become arrays.

    Raises:
      InputError: for compressed weights, for what such a file cannot hold, and where nothing can be written.

    Example:
      >>> import tempfile
      >>> import jax.numpy as jnp
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save_safetensors(f"{folder}/a.safetensors", {"params": {"bias": jnp.zeros(3)}})
      ...     load_safetensors(f"{folder}/a.safetensors")["params"]["bias"].shape
      (3,)
    """
    leaves = named_leaves(variables, is_compressed)
    if compressed := [f"{name}: is {type(leaf).__name__}" for name, leaf in leaves if is_compressed(leaf)]:
        raise InputError(f"{', '.join(compressed)}; use nnc.save, or nnc.decompress it first")
    if keys := [name for name, leaf in leaves if is_key(leaf)]:
        raise InputError(f"{', '.join(keys)}: random keys; use nnc.save, or put jax.random.key_data in their places")
    check_held(leaves, [*KINDS.values()])
    paths = [keys for keys, _ in keyed_leaves(variables)]
    if () in paths:
        raise InputError("an array without a name; save {'name': array}")
    names, metadata = _names(paths)
    arrays = {name: numbers(plain, leaf) for name, (plain, leaf) in zip(names, leaves, strict=True)}
    try:
        content = safetensors.numpy.save(arrays, metadata)
    except UnicodeEncodeError as error:
        raise InputError(f"{error.object[:40]!r}: a name that is no Unicode text; rename it") from None
    with replacing(path) as file:
        file.write(content)


def load_safetensors(path: str | Path, *, model: str | None = None, like: Any = None) -> Variables:
    """Reads dense arrays; what is between slashes in their names nests them.

    Args:
      path: of the file.
      model: name of the network whose torch state dict it may be, in a layout that `importers.torch` knows: such names
        are converted.
      like: variables in whose structure the arrays come back: for trees that are not of dicts alone. Its arrays are not
        used.

    Returns:
      Nested dicts of arrays, as they were saved; of those that jax would make narrower, arrays of numpy.

    Raises:
      InputError: where there is no such file, it is damaged, or a name stands for an array and for others below it.
    """
    arrays, metadata = _read(path)
    if model and _are_torchs(arrays):
        try:
            return torch.convert(torch.unwrapped(arrays), model=model)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    is_escaped = ESCAPED.items() <= metadata.items()
    nested: dict[str, Any] = {}
    for name, array in arrays.items():
        *folders, last = (unquote(key) if is_escaped else key for key in name.split("/"))
        place = nested
        for folder in folders:
            place = place.setdefault(folder, {})
            if not isinstance(place, dict):
                raise InputError(f"{path}: {name} and {folder} are both arrays, expected one below the other at most")
        if last in place:
            raise InputError(f"{path}: {name} stands for an array and for others below it")
        place[last] = on_device(array)
    if like is None:
        return nested
    try:
        structured: Variables = in_structure(dict(named_leaves(nested)), like)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return structured


def torch_state_dict(path: str | Path) -> dict[str, np.ndarray] | None:
    """The state dict of torch in a file, as `importers.torch.read` gives it; None: its names are not torch's.

    Raises:
      InputError: where there is no such file, or it is damaged.
    """
    arrays, _ = _read(path)
    return torch.unwrapped(arrays) if _are_torchs(arrays) else None


def _are_torchs(arrays: Mapping[str, np.ndarray]) -> bool:
    return any("." in name for name in arrays) and not any("/" in name for name in arrays)


def _names(paths: list[tuple[str, ...]]) -> tuple[list[str], dict[str, str] | None]:
    """Of each path its name, and the metadata that says whether keys in it are escaped: only where they have to be."""
    if not any("/" in key for keys in paths for key in keys) and (RESERVED,) not in paths:
        return ["/".join(keys) for keys in paths], None
    names = ["/".join(map(escaped, keys)) for keys in paths]
    return [name.replace("_", "%5F") if name == RESERVED else name for name in names], ESCAPED


def _read(path: str | Path) -> tuple[dict[str, np.ndarray], Mapping[str, str]]:
    """The arrays of a file by name, and its metadata."""
    try:
        content = Path(path).read_bytes()
        described = safetensors.deserialize(content)
        size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + size]).get(RESERVED) or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: no whole safetensors file ({' '.join(str(error).split())[:80]})") from None
    if strange := [f"{name} is {entry['dtype']}" for name, entry in described if entry["dtype"] not in KINDS]:
        raise InputError(f"{path}: {', '.join(strange)[:80]}, expected one of {', '.join(KINDS)}")

    def array(entry: Mapping[str, Any]) -> np.ndarray:
        dtype = DTYPES[KINDS[entry["dtype"]]]
        return np.frombuffer(entry["data"], dtype.newbyteorder("<")).reshape(entry["shape"]).astype(dtype, copy=False)

    return {name: array(entry) for name, entry in described}, metadata
