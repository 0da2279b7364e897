"""The names that signatures share, and the legend of shapes.

B  batch                 H W  height and width
I  input channels        O    output channels
C  classes               N    examples of a data set

Images are [B, H, W, I], convolution kernels [H, W, I, O] (depthwise: [H, W, 1, O]), dense kernels [I, O].
"""

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import jax

from nncompress_jax.inputs import listed

T = TypeVar("T")
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

    _kept: dict[Hashable, Any] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "batches", listed(self.batches))

    def kept(self, key: Hashable, make: Callable[[], T]) -> T:
        """What was made for this key before, or is now: methods that are given one context share what they compile.

        Args:
          key: all that it depends on but `apply` and `batches`; what has no hash is made each time.
          make: makes it.
        """
        try:
            known = key in self._kept
        except TypeError:
            return make()
        if not known:
            self._kept[key] = make()
        return self._kept[key]


Method = Callable[[Any, Context], Any]
"""A compression method: variables -> variables."""
