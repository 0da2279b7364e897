"""Variables as leaves with names."""

from typing import Any

import jax


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """Leaves of a tree with their paths.

    Args:
      tree: any pytree.

    Returns:
      (path, leaf) in the tree's own order; the path's keys are joined by `/`.

    Example:
      >>> named_leaves({"params": {"Conv_0": {"bias": 1.0, "kernel": 2.0}}})
      [('params/Conv_0/bias', 1.0), ('params/Conv_0/kernel', 2.0)]
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]
