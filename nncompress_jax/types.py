"""The names that signatures share, and the legend of shapes.

B  batch                 H W  height and width
I  input channels        O    output channels
C  classes               N    examples of a data set

Images are [B, H, W, I], convolution kernels [H, W, I, O] (depthwise: [H, W, 1, O]), dense kernels [I, O].
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from nncompress_jax.inputs import listed

Array = jax.Array
Variables = Mapping[str, Any]
"""Flax collections by name, each a tree of arrays: {"params": ..., "batch_stats": ...}."""

DimensionNumbers = tuple[tuple[tuple[int, ...], tuple[int, ...]], tuple[tuple[int, ...], tuple[int, ...]]]
"""Of a dot product: (contracted axes of both operands), (batch axes of both)."""

Apply = Callable[..., Any]
"""apply(variables, images, ...) -> outputs: a pure function such as a linen module's `apply`."""


@dataclasses.dataclass(frozen=True)
class Context:
    """What a compression method may need beside the variables.

    Attributes:
      apply: the network, a function of (variables, *inputs).
      batches: representative inputs; each a tuple of apply's further arguments, or the only one: an array, a dict.
      uses: gives, by path, where each weight multiplies in apply and what its axes do there (`tracing.roles.uses`), or
        None, where this is not known; methods then go by names and shapes.
    """

    apply: Apply | None = None
    batches: Sequence[Any] = ()
    uses: Callable[[], Mapping[str, Sequence[Any]] | None] = lambda: None

    def __post_init__(self) -> None:
        object.__setattr__(self, "batches", listed(self.batches))


Method = Callable[[Any, Context], Any]
"""A compression method: variables -> variables."""
