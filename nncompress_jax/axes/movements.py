"""Movements of the entries of an array, for the array itself, and for what broadcasts to it."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax.numpy as jnp
from jax import lax

from nncompress_jax.axes.addressed import batch_axes
from nncompress_jax.axes.places import Places, move, reshaped, runs
from nncompress_jax.axes.rule import AxisRule
from nncompress_jax.axes.rules import axis_rule
from nncompress_jax.types import Array


class Movement(Protocol):
    """What an operation does to the entries of its operand.

    Attributes:
      shape: of the operand.
      kept: its axes that the result has as they are.
      keeps_last: whether its last axis is one of them, and the result's last.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def kept(self) -> frozenset[int]: ...

    @property
    def keeps_last(self) -> bool: ...

    def whole(self, part: Array) -> Array:
        """Of the operand; along axes that are kept it may have any size."""
        ...

    def shared(self, part: Array) -> Array:
        """Of an array that broadcasts to the operand, so that it broadcasts to the result."""
        ...


@dataclasses.dataclass(frozen=True)
class Placing:
    """To places that are known; where none of the operand's entries comes to stand is zero."""

    shape: tuple[int, ...]
    places: Places

    @property
    def kept(self) -> frozenset[int]:
        pairs = zip(self.places.axes, self.places.picked, strict=True)
        return frozenset(axis for axis, picked in pairs if axis is not None and picked is None)

    @property
    def keeps_last(self) -> bool:
        last = len(self.shape) - 1
        return last in self.kept and self.places.axes[-1] == last

    def whole(self, part: Array) -> Array:
        return move(part, self.places, shared=False)

    def shared(self, part: Array) -> Array:
        return move(part, self.places, fill=1)


@dataclasses.dataclass(frozen=True)
class Reshaping:
    """To another shape, of as many entries."""

    shape: tuple[int, ...]
    new: tuple[int, ...]

    @functools.cached_property
    def places(self) -> dict[int, int]:
        """By axis that stays as it is, that of the result."""
        return {olds[0]: news[0] for olds, news in runs(self.shape, self.new) if len(olds) == len(news) == 1}

    @property
    def kept(self) -> frozenset[int]:
        return frozenset(self.places)

    @property
    def keeps_last(self) -> bool:
        return self.places.get(len(self.shape) - 1) == len(self.new) - 1 >= 0

    def whole(self, part: Array) -> Array:
        sizes = {new: part.shape[old] for old, new in self.places.items()}
        return part.reshape([sizes.get(axis, size) for axis, size in enumerate(self.new)])

    def shared(self, part: Array) -> Array:
        return reshaped(part, self.shape, self.new)


@dataclasses.dataclass(frozen=True)
class Reading:
    """Of what stands at places that only the running program knows: `gather`, `dynamic_slice`."""

    shape: tuple[int, ...]
    primitive: Any
    starts: Sequence[Any]
    params: Mapping[str, Any]

    @functools.cached_property
    def rule(self) -> AxisRule:
        return axis_rule(self.primitive.name, self.params, [self.shape, *map(jnp.shape, self.starts)])

    @property
    def places(self) -> Places:
        return self.rule.places()

    @property
    def kept(self) -> frozenset[int]:
        return frozenset(axis for axis in self.places.axes if axis is not None).difference(batch_axes(self.params))

    @property
    def keeps_last(self) -> bool:
        last = len(self.shape) - 1
        return last in self.kept and self.places.axes[-1] == last

    def whole(self, part: Array) -> Array:
        pairs = enumerate(zip(self.params["slice_sizes"], part.shape, strict=True))
        sizes = tuple(size if axis in self.kept else read for axis, (read, size) in pairs)
        params = {**self.params, "slice_sizes": sizes}
        if self.fills:
            params["mode"] = lax.GatherScatterMode.CLIP
        return self.primitive.bind(part, *self.starts, **params)

    def shared(self, part: Array) -> Array:
        if all(size == 1 for axis, size in enumerate(part.shape) if axis not in self.kept):
            return move(part, self.places)
        pairs = enumerate(zip(part.shape, self.shape, strict=True))
        return self.whole(
            jnp.broadcast_to(part, [size if axis in self.kept else whole for axis, (size, whole) in pairs])
        )

    @property
    def fills(self) -> bool:
        """Whether places outside of the operand show another value than its own."""
        return self.params.get("mode") == lax.GatherScatterMode.FILL_OR_DROP

    def outside(self) -> tuple[Array, Any]:
        """Where the result shows nothing of the operand, broadcasting to it; and the value that stands there."""
        numbers, (starts,) = self.params["dimension_numbers"], self.starts
        most = [self.shape[axis] - self.params["slice_sizes"][axis] for axis in numbers.start_index_map]
        within = ((starts >= 0) & (starts <= jnp.asarray(most))).all(-1)
        fill = self.params["fill_value"]
        return ~jnp.expand_dims(within, sorted(numbers.offset_dims)), jnp.nan if fill is None else fill
