"""Plain weights as safetensors files, to and from other frameworks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.flax

from nncompress_jax.errors import InputError
from nncompress_jax.importers import torch
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Variables
from nncompress_jax.weights.base import is_compressed


def save_safetensors(path: str | Path, variables: Any) -> None:
    """Writes dense arrays under their paths, such as `params/Conv_0/kernel`.

    Args:
      path: of the file.
      variables: any tree of arrays.

    Raises:
      InputError: for compressed weights, and where nothing can be written.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     save_safetensors(f"{folder}/a.safetensors", {"params": {"bias": jnp.zeros(3)}})
      ...     load_safetensors(f"{folder}/a.safetensors")["params"]["bias"].shape
      (3,)
    """
    leaves = named_leaves(variables, is_compressed)
    for name, leaf in leaves:
        if is_compressed(leaf):
            raise InputError(f"{name}: is {type(leaf).__name__}; use nnc.save, or nnc.decompress it first")
    try:
        safetensors.flax.save_file({name: jnp.asarray(leaf) for name, leaf in leaves}, path)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: cannot be written ({' '.join(str(error).split())[:80]})") from None


def load_safetensors(path: str | Path, *, model: str | None = None) -> Variables:
    """Reads dense arrays; what is between slashes in their names nests them.

    Args:
      path: of the file.
      model: name of the network whose torch state dict it may be, as the original project writes it: such names are
        converted.

    Returns:
      Nested dicts of arrays.

    Raises:
      InputError: where there is no such file, it is damaged, or a name stands for an array and for others below it.
    """
    try:
        arrays: Mapping[str, jax.Array] = safetensors.flax.load_file(path)
    except (OSError, safetensors.SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path}: no whole safetensors file ({' '.join(str(error).split())[:80]})") from None
    if model and arrays and not any("/" in name for name in arrays):
        return torch.convert({name: np.asarray(array) for name, array in arrays.items()}, model=model)
    nested: dict[str, Any] = {}
    for name, array in arrays.items():
        *folders, last = name.split("/")
        place = nested
        for folder in folders:
            place = place.setdefault(folder, {})
            if not isinstance(place, dict):
                raise InputError(f"{path}: {name} and {folder} are both arrays, expected one below the other at most")
        if last in place:
            raise InputError(f"{path}: {name} stands for an array and for others below it")
        place[last] = array
    return nested
