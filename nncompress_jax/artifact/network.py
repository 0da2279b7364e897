"""The network of a file, where it is one of the library's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax import models
from nncompress_jax.artifact.info import Info
from nncompress_jax.errors import InputError
from nncompress_jax.tracing.injection import inject
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Apply
from nncompress_jax.weights.base import is_compressed


def network_apply(info: Info, variables: Any) -> Apply:
    """apply of the network that a file is of, with the widths that the variables have.

    Args:
      info: names the network and the shape of its images.
      variables: arrays and compressed weights.

    Raises:
      InputError: where there is no such network, or it has other variables.
    """
    assert info.model is not None
    if len(info.image_shape) != 3:
        raise InputError(f"image_shape {list(info.image_shape)}: expected [H, W, I] beside model {info.model!r}")
    image = jax.ShapeDtypeStruct((1, *info.image_shape), jnp.float32)
    found = _shapes(variables)
    try:
        wide = models.create(info.model, **dict(info.options))
    except TypeError:
        raise InputError(f"options {', '.join(info.options)}: expected those of {info.model}") from None
    expected = _shapes(jax.eval_shape(wide.init, jax.random.key(0), image))
    _check(found.keys(), expected.keys(), info.model)
    for path, shape in found.items():
        if len(shape) != len(expected[path]):
            raise InputError(f"{path}: {list(shape)}, expected {list(expected[path])} or narrower for {info.model}")
    network = models.fitting(wide, variables)
    expected = _shapes(jax.eval_shape(network.init, jax.random.key(0), image))
    for path, shape in found.items():
        if shape != expected[path]:
            raise InputError(f"{path}: {list(shape)}, expected {list(expected[path])} beside the other widths")
    return inject(network.apply)


def _shapes(variables: Any) -> dict[str, tuple[int, ...]]:
    return {path: np.shape(leaf) for path, leaf in named_leaves(variables, is_compressed)}


def _check(found: Any, expected: Any, model: str) -> None:
    if missing := sorted(found ^ expected):
        where = "the variables" if missing[0] in found else model
        raise InputError(f"{missing[0]}: only in {where}, expected in both")
