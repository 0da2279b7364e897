"""What tells a checkpoint that is whole from one that is not."""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import jax

from nncompress_jax.leaves import described, numbers
from nncompress_jax.tree import joined_keys


class DamageError(Exception):
    """A checkpoint that is not what was saved."""


def of_leaves(tree: Any, root: str = "") -> dict[str, int]:
    """CRC-32 of each leaf's bytes, by its path; functions and texts have none.

    Args:
      tree: of arrays and PRNG keys, whole on each device.
      root: stands before each path.

    Example:
      >>> import numpy as np
      >>> of_leaves({"bias": np.zeros(3, np.float32)}, "params")
      {'params/bias': 2077607535}
    """
    leaves = [each for each in jax.tree_util.tree_leaves_with_path(tree) if described(each[1]) is not None]
    keys = [tuple(jax.tree_util.keystr((key,), simple=True) for key in path) for path, _ in leaves]
    names = [f"{root}/{path}" if root else path for path in joined_keys(keys)]
    return {name: zlib.crc32(numbers(name, leaf).tobytes()) for name, (_, leaf) in zip(names, leaves, strict=True)}


def of_description(described: Mapping[str, Any]) -> int:
    """CRC-32 of what JSON can say, in whatever order it says it."""
    return zlib.crc32(json.dumps(described, sort_keys=True).encode())


def verify(found: Mapping[str, int], expected: Mapping[str, int]) -> None:
    """Raises DamageError, and names the first that differs."""
    for name, checksum in found.items():
        if expected.get(name) != checksum:
            raise DamageError(f"{name} is not what was saved")
