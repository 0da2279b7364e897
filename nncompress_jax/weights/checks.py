"""What the types' checks of their parts share."""

from typing import Any

import jax
import numpy as np

from nncompress_jax.weights.base import is_compressed


def is_array(part: Any, dtype: Any, rank: int | None = None) -> bool:
    """Whether a part is an array of that type and rank."""
    if is_compressed(part) or not hasattr(part, "dtype"):
        return False
    return bool(part.dtype == dtype) and rank in (None, part.ndim)


def is_broadcast(scale: Any, shape: tuple[int, ...]) -> bool:
    """Whether it is a float32 that is broadcast to the shape, of the same rank."""
    if not is_array(scale, "float32", len(shape)):
        return False
    return all(size in (1, whole) for size, whole in zip(scale.shape, shape, strict=True))


def unexpected(name: str, part: Any, expected: str) -> str:
    """That a part is something else."""
    found = f"{part.dtype} {list(part.shape)}" if hasattr(part, "dtype") else type(part).__name__
    return f"{name} {found}, expected {expected}"


def is_known_zero(fill: Any) -> bool:
    """Whether a scalar, or no fill, is zero before the program runs."""
    return fill is None or (not isinstance(fill, jax.core.Tracer) and not np.any(np.asarray(fill)))


def are_axes(axes: Any, rank: int) -> bool:
    """Whether it names axes of an array, as a static field holds them."""
    return type(axes) is tuple and all(type(axis) is int and -rank <= axis < rank for axis in axes)
