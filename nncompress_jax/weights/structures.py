"""Leaves in the structure of another tree."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from nncompress_jax.errors import InputError
from nncompress_jax.leaves import described
from nncompress_jax.tree import named_leaves, rebuilt
from nncompress_jax.weights.base import is_compressed


def in_structure(leaves: Mapping[str, Any], like: Any) -> Any:
    """A tree like another, of the leaves of a file.

    Args:
      leaves: by path, as `named_leaves` has them, with compressed weights as leaves.
      like: gives the structure, and the leaves that no file holds, such as functions.

    Raises:
      InputError: for paths or shapes that are not the same.

    Example:
      >>> in_structure({"0": np.ones(2), "1": np.zeros(3)}, (np.zeros(2), np.ones(3)))
      (array([1., 1.]), array([0., 0., 0.]))
    """
    expected = named_leaves(like, is_compressed)
    kept = {path for path, leaf in expected if described(leaf) is None}
    if strange := sorted(leaves.keys() ^ (dict(expected).keys() - kept)):
        where = "the file" if strange[0] in leaves else "like="
        raise InputError(f"{strange[0]}: only in {where}, expected in both")
    for path, leaf in expected:
        if path not in kept and np.shape(leaves[path]) != np.shape(leaf):
            raise InputError(f"{path}: {list(np.shape(leaves[path]))} in the file, {list(np.shape(leaf))} in like=")
    structure = jax.tree.structure(like, is_leaf=is_compressed)
    return rebuilt(structure, [leaf if path in kept else leaves[path] for path, leaf in expected])
