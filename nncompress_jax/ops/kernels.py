"""Which algorithm runs an operation fastest on a CPU, by operation, dtype, shape class and version of JAX.

`kernels.json` holds what `benchmarks/kernels.py` measured and wrote.
"""

import importlib.resources
import json
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim
from jax.typing import DTypeLike

from nncompress_jax.ops.windows import Window
from nncompress_jax.types import Array

Shaped = Array | jax.ShapeDtypeStruct
Entries = Mapping[str, str]
"""An algorithm by shape class. Under the first word of the classes, up to the comma, stands the one for all others."""

TABLE: Mapping[str, Mapping[str, Entries]] = json.loads(
    importlib.resources.files(__package__).joinpath("kernels.json").read_text()
)
"""Entries by minor version of JAX, as "0.12", and by operation and dtype, as "convolution int8"."""


def convolution_class(images: Shaped, kernel: Shaped, window: Window) -> str:
    """What of the shapes of a convolution decides how it runs fastest.

    Args:
      images: [B, H, W, I] (one spatial axis or more).
      kernel: [H, W, I / groups, O].
      window: how the kernel moves.

    Example:
      >>> images, kernel = jax.ShapeDtypeStruct((32, 8, 8, 128), "int8"), jax.ShapeDtypeStruct((3, 3, 128, 256), "int8")
      >>> convolution_class(images, kernel, Window((1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1)))
      'window, batch of 8x8, some channels'
    """
    *sizes, inputs, outputs = kernel.shape
    taps, pixels = math.prod(sizes), math.prod(images.shape[1:-1])
    side = 2 ** min(max(round(math.log2(max(pixels, 1)) / 2), 1), 5)  # of a square image, from 2 to 32
    many = is_symbolic_dim(images.shape[0]) or images.shape[0] > 4
    batch = f"{'batch of' if many else 'one'} {side}x{side}"
    if window.groups == images.shape[-1] and window.groups > 1:
        return f"depthwise, {batch}"
    if taps > pixels:
        return "larger than the image"
    if len(sizes) != 2:
        return f"{len(sizes)} axes"
    if max(window.image_dilation) > 1:
        return "dilated image"
    if window.groups > 1:
        return "groups"
    channels = "few" if inputs <= 16 else "to few" if outputs <= 16 else "some" if inputs <= 160 else "many"
    return f"{'pointwise' if taps == 1 else 'window'}, {batch}, {channels} channels"


def fastest(operation: str, dtype: DTypeLike, shape_class: str, jax_version: str = jax.__version__) -> str:
    """The name of the fastest algorithm.

    Args:
      operation: "convolution" or "kernel gradient".
      dtype: of the operands; what was not measured runs as float32 does.
      shape_class: a class that was not measured runs as most of its kind do.
      jax_version: the nearest measured one that is not newer counts, or the oldest.

    Returns:
      A key of `algorithms.ALGORITHMS`.

    Example:
      >>> fastest("convolution", "int8", "depthwise, batch of 16x16", "0.12.0")
      'shifts'
    """
    measured = sorted(TABLE, key=_numbers)
    not_newer = [minor for minor in measured if _numbers(minor) <= _numbers(jax_version)]
    entries = TABLE[(not_newer or measured)[-1 if not_newer else 0]]
    kind = "int8" if jnp.issubdtype(dtype, jnp.integer) else "float32"
    algorithms = entries[f"{operation} {kind}"]
    return algorithms.get(shape_class) or algorithms[shape_class.partition(",")[0]]


def _numbers(jax_version: str) -> tuple[int, int]:
    major, minor, *_ = jax_version.split(".")
    return int(major), int(minor)
