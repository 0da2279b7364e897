"""Which places along an axis are there."""

import functools
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from nncompress_jax.errors import InputError


class Channels:
    """Some of the places along an axis, in their order: what `ChannelPruned` keeps of it.

    Equal ones are one object, so that comparing and hashing them costs nothing, however many places there are.

    Attributes:
      size: of the whole axis.
      indices: [n] int, ascending.
      mask: [size] bool, of the whole axis.

    Example:
      >>> Channels.of(4, [2, 0]) is Channels.at([True, False, True, False])
      True
    """

    size: int
    indices: np.ndarray
    mask: np.ndarray
    __slots__ = ("indices", "mask", "size")

    @classmethod
    def of(cls, size: int, indices: Sequence[int] | np.ndarray) -> "Channels":
        """Those at these places."""
        mask = np.zeros(size, bool)
        mask[np.asarray(indices, int)] = True
        return cls.at(mask)

    @classmethod
    def at(cls, mask: Sequence[bool] | np.ndarray) -> "Channels":
        """Those where a mask of the whole axis is true."""
        return _interned(len(mask), np.asarray(mask, bool).tobytes())

    def __len__(self) -> int:
        return len(self.indices)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: Any) -> Self:
        return self

    def __reduce__(self) -> Any:
        return Channels.of, (self.size, self.indices)

    def __repr__(self) -> str:
        return f"{len(self)} of {self.size}"

    def places_at(self, places: np.ndarray) -> np.ndarray:
        """[n] of these places, where each stands among the own ones; -1 for those that are not there, and for -1."""
        found = np.full(self.size + 1, -1)
        found[self.indices] = np.arange(len(self))
        return found[places]

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold; the mask as hexadecimal digits, the first place in the highest bit."""
        return {"size": self.size, "mask": np.packbits(self.mask).tobytes().hex()}

    @classmethod
    def from_dict(cls, described: Any) -> "Channels":
        """From what `to_dict` gave; Raises InputError for anything else."""
        try:
            size, digits = int(described["size"]), bytes.fromhex(described["mask"])
            if size < 0 or len(digits) != -(-size // 8):
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise InputError(f"channels {str(described)[:60]}: expected a size and its mask in hexadecimal") from None
        return cls.at(np.unpackbits(np.frombuffer(digits, np.uint8), count=size).astype(bool))


@functools.cache
def _interned(size: int, mask: bytes) -> Channels:
    channels = object.__new__(Channels)
    channels.size, channels.mask = size, np.frombuffer(mask, bool)
    channels.indices = np.flatnonzero(channels.mask)
    return channels


Cuts = tuple[Channels | None, ...]
"""What is there along each axis; None: everything."""


def union(cuts: Sequence[Channels | None]) -> Channels | None:
    """What is there in any of them."""
    known = [channels for channels in cuts if channels is not None]
    if len(known) < len(cuts):
        return None
    return known[0] if len(set(known)) == 1 else Channels.at(np.logical_or.reduce([each.mask for each in known]))


def intersection(cuts: Sequence[Channels | None]) -> Channels | None:
    """What is there in all of them."""
    known = [channels for channels in cuts if channels is not None]
    if len(set(known)) < 2:
        return known[0] if known else None
    return Channels.at(np.logical_and.reduce([each.mask for each in known]))
