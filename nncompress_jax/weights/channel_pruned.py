"""A weight, or what a network computes, of which only some channels are there."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray

from nncompress_jax.axes.movements import Placing
from nncompress_jax.axes.places import Places
from nncompress_jax.types import Array
from nncompress_jax.weights.base import CompressedWeight, dense, is_compressed, moved
from nncompress_jax.weights.channels import Channels, Cuts, union
from nncompress_jax.weights.checks import is_array, is_known_zero, unexpected


class ChannelPruned(CompressedWeight):
    """An array of which some channels of some axes are stored; all others hold one value, `fill`.

    Functions pass it on: what they compute from it lacks the same channels. An operation that keeps no such structure
    makes it dense. Error: none but that of float sums in another order; missing zeros stay zeros, whatever multiplies
    or divides them.

    Attributes:
      values: what is there, smaller along the cut axes; or any other compressed weight.
      fill: a scalar of the same dtype; None: zero, which is known before the program runs.
      channels: of the last axes, what each keeps; None: everything. Axes in front of them are whole.

    Source: Li et al. 2017, "Pruning Filters for Efficient ConvNets", for what is cut.
    """

    TRAINS: ClassVar[tuple[str, ...]] = ("values",)
    DECAYS: ClassVar[tuple[str, ...]] = ("values",)
    FILE_NAME: ClassVar[str] = "Kept"
    HELD: ClassVar[tuple[str, ...]] = ("values",)
    HOLDS: ClassVar[tuple[type, ...]] = (CompressedWeight,)

    values: Array | CompressedWeight
    fill: Array | None = None
    channels: Cuts = eqx.field(static=True, default=())

    @staticmethod
    def uniform(fill: Any, shape: Sequence[int]) -> Any:
        """An array of one value: of it no channel is there; a scalar is itself."""
        if not shape:
            return fill
        nothing = jnp.zeros((0,) * len(shape), jnp.result_type(fill))
        return channel_pruned(nothing, fill, tuple(Channels.of(size, ()) for size in shape))

    def aval(self) -> ShapedArray:
        sizes = zip(self.values.shape, self.cuts, strict=True)
        return ShapedArray(tuple(size if cut is None else cut.size for size, cut in sizes), self.values.dtype)

    @property
    def cuts(self) -> Cuts:
        """What each axis keeps."""
        rank = self.values.ndim
        return ((None,) * rank + self.channels)[len(self.channels) :] if rank else ()

    @property
    def is_uniform(self) -> bool:
        """Whether no entry is there, so that all are `fill`."""
        return any(cut is not None and not len(cut) for cut in self.cuts)

    @property
    def parameters(self) -> int:
        return self.values.parameters if is_compressed(self.values) else math.prod(self.values.shape)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape)

    @property
    def density(self) -> float:
        inner = self.values.density if is_compressed(self.values) else None
        return math.prod(self.values.shape) / math.prod(self.shape) * (inner or 1)

    @property
    def ranks(self) -> tuple[int, ...]:
        return self.values.ranks if is_compressed(self.values) else ()

    def update_ranges(self, largest: Any) -> "ChannelPruned":
        if not is_compressed(self.values):
            return self
        return dataclasses.replace(self, values=self.values.update_ranges(largest))

    def check_held(self, part: Any) -> str | None:
        """Arrays of any dtype, too: batch statistics and tables lose channels as well."""
        return None if not is_compressed(part) and hasattr(part, "dtype") else super().check_held(part)

    def static_to_dict(self) -> dict[str, Any]:
        return {"channels": [None if cut is None else cut.to_dict() for cut in self.channels]}

    @classmethod
    def static_from_dict(cls, static: dict[str, Any]) -> dict[str, Any]:
        cuts = static.get("channels")
        if not isinstance(cuts, list):
            return static
        return static | {"channels": tuple(Channels.from_dict(cut) if isinstance(cut, dict) else cut for cut in cuts)}

    def check_parts(self) -> str | None:
        if type(self.channels) is not tuple or not any(isinstance(cut, Channels) for cut in self.channels):
            return f"channels {str(self.channels)[:40]}"
        if any(cut is not None and not isinstance(cut, Channels) for cut in self.channels):
            return f"channels {str(self.channels)[:40]}"
        if wrong := self.check_held(self.values):
            return wrong
        shape = self.values.shape
        if len(self.channels) > len(shape):
            return f"channels of {len(self.channels)} axes, values {list(shape)}"
        for cut, size in zip(reversed(self.channels), reversed(shape), strict=False):
            if cut is not None and (len(cut) != size or not 0 < len(cut) < cut.size):
                return f"values {list(shape)} for channels {self.channels}"
        fill = self.fill
        if fill is not None and not (is_array(fill, self.values.dtype) and fill.ndim < 2):
            return unexpected("fill", fill, f"a {self.values.dtype}")
        return None

    def materialise(self) -> Array:
        return dense(self.read((None,) * self.ndim))

    def read(self, wanted: Cuts) -> Any:
        """The array at these channels, with `fill` for those that are not there; compressed where none is missing."""
        value = self.values
        for axis, (own, want) in enumerate(zip(self.cuts, wanted, strict=True)):
            if own is not want:
                value = _read(value, axis, own, want, self.fill)
        return value

    def cast(self, dtype: Any) -> "ChannelPruned":
        value: Any = self.values
        value = value.cast(dtype) if is_compressed(value) else value.astype(dtype)
        return ChannelPruned(value, None if self.fill is None else self.fill.astype(dtype), self.channels)

    def stacked(self, length: int) -> Any:
        """A first axis that is cut becomes whole."""
        cuts = self.cuts
        value = self.read((None, *cuts[1:]))
        value = value.stacked(length) if is_compressed(value) else value
        fill = None if self.fill is None else jnp.broadcast_to(self.fill, (length,))
        return ChannelPruned(value, fill, cuts[1:])


def at(x: Any, wanted: Cuts) -> Any:
    """An operand, `ChannelPruned` or another, at these channels; a scalar is the same everywhere."""
    if isinstance(x, ChannelPruned):
        return x.read(wanted)
    for axis, want in enumerate(wanted if jnp.ndim(x) else ()):
        if want is not None:
            x = _taken(x, axis, want.indices)
    return x


def cuts_of(x: Any) -> Cuts:
    """What each axis of an operand keeps."""
    return x.cuts if isinstance(x, ChannelPruned) else (None,) * jnp.ndim(x)


def has_zeros(x: Any) -> bool:
    """Whether what an operand lacks is zero, known before the program runs."""
    return isinstance(x, ChannelPruned) and x.fill is None


def is_plain(x: Any) -> bool:
    """Whether it is an array without some channels, and nothing more: floats, and zeros for what is missing."""
    return has_zeros(x) and not is_compressed(x.values)


def channel_pruned(value: Any, fill: Any, cuts: Cuts) -> Any:
    """`ChannelPruned`, if any axis lacks anything; a fill that is a known zero is left out."""
    cuts = tuple(None if cut is None or len(cut) == cut.size else cut for cut in cuts)
    if all(cut is None for cut in cuts):
        return value
    return ChannelPruned(value, None if is_known_zero(fill) else fill, cuts)


def conforming(x: Any, like: Any) -> Any:
    """An array in the structure of another, `ChannelPruned` or dense, which lacks nothing that it has."""
    if not isinstance(like, ChannelPruned):
        return dense(x)
    fill = None
    if like.fill is not None:
        missing = [0 if cut is None or len(cut) == cut.size else int(np.argmin(cut.mask)) for cut in like.cuts]
        fill = fill_of(x) if isinstance(x, ChannelPruned) else x[tuple(missing)]
    return ChannelPruned(dense(at(x, like.cuts)), fill, like.channels)


def common(x: Any, y: Any) -> Any:
    """In the structure of what either has, where both only lack channels that are zero; else dense."""
    if not (is_plain(x) and is_plain(y)):
        return dense(x)
    cuts = tuple(map(union, zip(cuts_of(x), cuts_of(y), strict=True)))
    return channel_pruned(at(x, cuts), None, cuts)


def on_fills(function: Callable[..., Any], fills: Sequence[Any]) -> Any:
    """A function of the operands' fills, at once where all are known; None stands for no fill at all."""
    if any(isinstance(fill, jax.core.Tracer) for fill in fills):
        return function(*fills)
    with jax.ensure_compile_time_eval():
        return function(*fills)


def fill_of(x: Any) -> Any:
    """What an operand is where it lacks channels; of a scalar, itself."""
    if not isinstance(x, ChannelPruned):
        return x
    return np.zeros((), x.dtype) if x.fill is None else x.fill


def _taken(x: Any, axis: int, places: np.ndarray) -> Any:
    """Places along an axis; a weight of which the parts can be taken so stays compressed."""
    if not is_compressed(x):
        return jnp.take(x, places, axis)
    return moved(x, Placing(x.shape, Places.same(x.ndim, {axis: places})))


def _read(value: Any, axis: int, own: Channels | None, want: Channels | None, fill: Array | None) -> Any:
    size = value.shape[axis] if own is None else own.size
    want = Channels.of(size, range(size)) if want is None else want
    places = want.indices if own is None else own.places_at(want.indices)
    missing = places < 0
    if not missing.any():
        return _taken(value, axis, places)
    value = dense(value)
    blank = jnp.zeros((), value.dtype) if fill is None else fill
    if missing.all():
        return jnp.full((*value.shape[:axis], len(want), *value.shape[axis + 1 :]), blank, value.dtype)
    spread = missing.reshape((-1,) + (1,) * (value.ndim - axis - 1))
    return jnp.where(spread, blank, jnp.take(value, np.maximum(places, 0), axis))
