"""Arrays as bytes that an entropy coder does well with: each type of array as what its entries mean."""

import contextlib
import dataclasses
import math
from typing import Any, ClassVar, Self

import numpy as np

from nncompress_jax.errors import ArtifactError
from nncompress_jax.ops.packing import pack, unpack

ESCAPE = 255
"""In gaps: 255 places more, and the gap goes on."""


class Layout:
    """How an array becomes symbols: the base takes its bytes, in columns.

    Attributes:
      KIND: its name in files.
    """

    KIND: ClassVar[str]

    def suits(self, array: np.ndarray) -> bool:
        """Whether it can be the layout of an array of this type and shape."""
        raise NotImplementedError

    def shape(self, array: np.ndarray) -> tuple[int, int]:
        """[rows, columns] of the array's symbols."""
        raise NotImplementedError

    def entries(self, array: np.ndarray) -> int:
        """Numbers that it stores."""
        return array.size

    def symbols(self, array: np.ndarray) -> np.ndarray:
        """[rows, columns] uint8."""
        return np.ascontiguousarray(array).view(np.uint8).reshape(self.shape(array))

    def target(self, array: np.ndarray) -> np.ndarray:
        """Where `put` puts symbols: the array's own memory, where that can hold them."""
        return array.reshape(-1).view(np.uint8).reshape(self.shape(array))

    def put(self, target: np.ndarray, columns: np.ndarray, rows: slice, symbols: np.ndarray) -> None:
        """Puts [columns, rows] uint8 symbols in their places."""
        target[rows, columns] = symbols.T

    def restore(self, symbols: np.ndarray, array: np.ndarray) -> None:
        """Fills the array from the `target`, once that is filled."""

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {"kind": self.KIND} | vars(self)


@dataclasses.dataclass(frozen=True)
class Planes(Layout):
    """A column for the first byte of all entries, one for the second, ..."""

    KIND: ClassVar[str] = "planes"

    def suits(self, array: np.ndarray) -> bool:
        return array.itemsize > 1

    def shape(self, array: np.ndarray) -> tuple[int, int]:
        return array.size, array.itemsize


@dataclasses.dataclass(frozen=True)
class Codes(Layout):
    """For entries of one byte: columns along an axis; one row is one column.

    Attributes:
      axis: from the end: -1 is the last.
    """

    KIND: ClassVar[str] = "codes"

    axis: int = -1

    def suits(self, array: np.ndarray) -> bool:
        return array.itemsize == 1 and (self.axis == -1 or -array.ndim <= self.axis < -1)

    def shape(self, array: np.ndarray) -> tuple[int, int]:
        return _rows(self._last(array), array.shape[self.axis] if array.ndim else 1)

    def symbols(self, array: np.ndarray) -> np.ndarray:
        flat = np.ascontiguousarray(self._last(array)).view(np.uint8).reshape(self.shape(array))
        return flat ^ np.uint8(128 if array.dtype == np.int8 else 0)

    def target(self, array: np.ndarray) -> np.ndarray:
        return super().target(array) if self.axis == -1 else np.empty(self.shape(array), np.uint8)

    def restore(self, symbols: np.ndarray, array: np.ndarray) -> None:
        if array.dtype == np.int8:
            symbols ^= 128
        if self.axis != -1:
            last = self._last(array)
            last[...] = symbols.view(array.dtype).reshape(last.shape)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.KIND} | ({"axis": self.axis} if self.axis != -1 else {})

    def _last(self, array: np.ndarray) -> np.ndarray:
        """With that axis as the last."""
        return np.moveaxis(array, self.axis, -1) if array.ndim else array


@dataclasses.dataclass(frozen=True)
class Gaps(Layout):
    """For places that ascend: the numbers of those between them.

    Attributes:
      count: of symbols.
    """

    KIND: ClassVar[str] = "gaps"

    count: int

    @classmethod
    def between(cls, places: np.ndarray) -> Self | None:
        """The layout, if it can be one for these."""
        if places.dtype != np.int32 or places.ndim != 1 or not places.size or places[0] < 0:
            return None
        gaps = _gaps(places)
        return cls(len(gaps) + int((gaps // ESCAPE).sum())) if gaps.min() >= 0 else None

    def suits(self, array: np.ndarray) -> bool:
        most = array.size + np.iinfo(np.int32).max // ESCAPE
        return array.dtype == np.int32 and array.ndim == 1 and array.size <= self.count <= most

    def shape(self, array: np.ndarray) -> tuple[int, int]:
        return self.count, 1

    def symbols(self, array: np.ndarray) -> np.ndarray:
        gaps = _gaps(array)
        symbols = np.full(self.count, ESCAPE, np.uint8)
        symbols[np.cumsum(gaps // ESCAPE + 1) - 1] = np.mod(gaps, ESCAPE)
        return symbols[:, None]

    def target(self, array: np.ndarray) -> np.ndarray:
        return np.empty(self.shape(array), np.uint8)

    def restore(self, symbols: np.ndarray, array: np.ndarray) -> None:
        ends = np.flatnonzero(symbols[:, 0] != ESCAPE)
        if len(ends) != array.size or ends[-1] != len(symbols) - 1:
            raise ArtifactError(f"{len(ends)} places, expected {array.size}")
        gaps = symbols[ends, 0] + ESCAPE * (np.diff(ends, prepend=-1) - 1)
        places = np.cumsum(gaps + 1) - 1
        if places[-1] > np.iinfo(np.int32).max:
            raise ArtifactError(f"place {places[-1]}, which no int32 can hold")
        array[:] = places


@dataclasses.dataclass(frozen=True)
class Bits(Layout):
    """For codes of a few bits each, packed: they are unpacked, in columns as `Codes`.

    Attributes:
      width: bits of a code, 1, 2, 3 or 4.
      last: codes along the last axis.
    """

    KIND: ClassVar[str] = "bits"

    width: int
    last: int

    def suits(self, array: np.ndarray) -> bool:
        fits = array.dtype == np.uint8 and self.width in (1, 2, 3, 4) and array.ndim > 0 and self.last > 0
        return fits and array.shape[-1] == -(-self.last * self.width // 8)

    def shape(self, array: np.ndarray) -> tuple[int, int]:
        return _rows(array, self.last)

    def entries(self, array: np.ndarray) -> int:
        return math.prod(array.shape[:-1]) * self.last

    def symbols(self, array: np.ndarray) -> np.ndarray:
        return unpack(array, self.width, self.last).reshape(self.shape(array))

    def target(self, array: np.ndarray) -> np.ndarray:
        array[:] = 0
        return array.reshape(-1, array.shape[-1])

    def put(self, target: np.ndarray, columns: np.ndarray, rows: slice, symbols: np.ndarray) -> None:
        if len(target) == 1:  # one row, which is the column; it comes in pieces of whole bytes
            parts = pack(symbols, self.width)
            target[:, rows.start * self.width // 8 :][:, : parts.shape[1]] = parts
            return
        for place in range(8):  # of codes in their bytes; two in the same place share none
            here = columns * self.width % 8 == place
            bytes_of = columns[here] * self.width // 8
            target[rows, bytes_of] |= symbols[here].T << np.uint8(place)
            if place + self.width > 8:
                target[rows, bytes_of + 1] |= symbols[here].T >> np.uint8(8 - place)


LAYOUTS: dict[str, Any] = {layout.KIND: layout for layout in (Planes, Codes, Gaps, Bits)}


def layouts_of(array: np.ndarray, bits: tuple[int, int] | None = None) -> list[Layout]:
    """Layouts that an array may be written in; bits: (width, last), where it holds packed codes."""
    if bits:
        return [Bits(*bits)]
    if array.itemsize == 1:
        return [Codes(), *(Codes(axis) for axis in range(-array.ndim, -1) if 1 < array.shape[axis] < array.size)]
    return [Gaps.between(array) or Planes()]


def layout_from_dict(described: Any, array: np.ndarray) -> Layout:
    """From what `Layout.to_dict` gave for such an array; Raises ArtifactError for anything else."""
    fields = dict(described) if isinstance(described, dict) else {}
    layout_type = LAYOUTS.get(str(fields.pop("kind", None)))
    if layout_type and all(type(value) is int for value in fields.values()):
        with contextlib.suppress(TypeError):  # other fields
            layout: Layout = layout_type(**fields)
            if layout.suits(array):
                return layout
    raise ArtifactError(f"symbols {str(described)[:60]} of a {array.dtype} array {list(array.shape)}")


def _rows(array: np.ndarray, columns: int) -> tuple[int, int]:
    rows = math.prod(array.shape[:-1])
    return (columns, 1) if rows == 1 else (rows, columns)


def _gaps(places: np.ndarray) -> np.ndarray:
    return np.diff(places.astype(np.int64), prepend=-1) - 1
