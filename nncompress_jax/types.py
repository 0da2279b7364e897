"""The names that signatures share, and the legend of shapes.

B  batch                 H W  height and width
I  input channels        O    output channels
C  classes               N    examples of a data set

Images are [B, H, W, I], convolution kernels [H, W, I, O] (depthwise: [H, W, 1, O]), dense kernels [I, O].
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax

Array = jax.Array
Variables = Mapping[str, Any]
"""Flax collections by name, each a tree of arrays: {"params": ..., "batch_stats": ...}."""

Apply = Callable[..., Any]
"""apply(variables, images, ...) -> outputs: a pure function such as a linen module's `apply`."""
