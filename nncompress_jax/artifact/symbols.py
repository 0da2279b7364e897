"""Arrays as bytes that an entropy coder does well with: each type of array as what its entries mean."""

import dataclasses
import math
from typing import Any

import ml_dtypes
import numpy as np

from nncompress_jax.artifact.bounds import refuse
from nncompress_jax.ops.packing import pack, unpack

DTYPES = {
    name: np.dtype(getattr(ml_dtypes, name, None) or name)
    for name in (
        *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
        *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
        *("float8_e4m3fn", "float8_e5m2", "int4", "uint4"),
    )
}
"""Of the arrays in a file."""

ESCAPE = 255
"""In gaps: 255 places more, and the gap goes on."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """How an array becomes symbols.

    Attributes:
      kind: "codes": its bytes, for entries of one byte, in columns along the last axis (one row is one column);
        "planes": its bytes, a column for the first byte of all entries, one for the second, ...; "gaps": places that
        ascend, as the numbers of those between them; "bits": codes of a few bits each, unpacked, in columns as "codes".
      width: of bits: how many a code has, 1, 2 or 4.
      last: of bits: codes along the last axis.
      count: of gaps: symbols.
    """

    kind: str
    width: int = 0
    last: int = 0
    count: int = 0

    @classmethod
    def of(cls, array: np.ndarray, bits: tuple[int, int] | None = None) -> "Layout":
        """For an array; bits: (width, last), where it holds packed codes."""
        if bits:
            return cls("bits", *bits)
        if array.dtype == np.int32 and array.ndim == 1 and array.size and array[0] >= 0:
            gaps = np.diff(array.astype(np.int64), prepend=-1) - 1
            if gaps.min() >= 0:
                return cls("gaps", count=len(gaps) + int((gaps // ESCAPE).sum()))
        return cls("codes" if array.itemsize == 1 else "planes")

    def shape(self, array: np.ndarray) -> tuple[int, int]:
        """[rows, columns] of the array's symbols."""
        if self.kind == "gaps":
            return self.count, 1
        if self.kind == "planes":
            return array.size, array.itemsize
        columns = self.last if self.kind == "bits" else array.shape[-1] if array.ndim else 1
        rows = math.prod(array.shape[:-1])
        return (columns, 1) if rows == 1 else (rows, columns)

    def symbols(self, array: np.ndarray) -> np.ndarray:
        """[rows, columns] uint8."""
        if self.kind == "gaps":
            gaps = np.diff(array.astype(np.int64), prepend=-1) - 1
            symbols = np.full(self.count, ESCAPE, np.uint8)
            symbols[np.cumsum(gaps // ESCAPE + 1) - 1] = np.mod(gaps, ESCAPE)
            return symbols[:, None]
        if self.kind == "bits":
            return unpack(array, self.width, self.last).reshape(self.shape(array))
        stored = np.ascontiguousarray(array).view(np.uint8).reshape(self.shape(array))
        return stored ^ 128 if array.dtype == np.int8 else stored

    def target(self, array: np.ndarray) -> np.ndarray:
        """Where `put` puts symbols: the array's own memory, where that can hold them."""
        if self.kind == "gaps":
            return np.empty(self.shape(array), np.uint8)
        if self.kind == "bits":
            array[:] = 0
            return array.reshape(-1, array.shape[-1])
        return array.reshape(-1).view(np.uint8).reshape(self.shape(array))

    def put(self, target: np.ndarray, columns: np.ndarray, rows: slice, symbols: np.ndarray) -> None:
        """Puts [columns, rows] uint8 symbols in their places."""
        if self.kind != "bits":
            target[rows, columns] = symbols.T
        elif len(target) == 1:  # one row, which is the column; it comes in pieces of whole bytes
            parts = pack(symbols, self.width)
            target[:, rows.start * self.width // 8 :][:, : parts.shape[1]] = parts
        else:
            for place in range(0, 8, self.width):  # of codes in their bytes; two in the same place share none
                here = columns * self.width % 8 == place
                bytes_of = columns[here] * self.width // 8
                target[rows, bytes_of] |= symbols[here].T << np.uint8(place)

    def restore(self, symbols: np.ndarray, array: np.ndarray) -> None:
        """Fills the array from the `target`, once that is filled."""
        if self.kind == "gaps":
            ends = np.flatnonzero(symbols[:, 0] != ESCAPE)
            if len(ends) != array.size or ends[-1] != len(symbols) - 1:
                raise refuse(f"{len(ends)} places, expected {array.size}")
            gaps = symbols[ends, 0] + ESCAPE * (np.diff(ends, prepend=-1) - 1)
            places = np.cumsum(gaps + 1) - 1
            if places[-1] > np.iinfo(np.int32).max:
                raise refuse(f"place {places[-1]}, which no int32 can hold")
            array[:] = places
        elif array.dtype == np.int8:
            symbols ^= 128

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value}

    @classmethod
    def from_dict(cls, described: Any, array: np.ndarray) -> "Layout":
        """From what `to_dict` gave for such an array; Raises ArtifactError for anything else."""
        try:
            layout = cls(**described)
        except TypeError:
            raise refuse(f"symbols {str(described)[:60]}") from None
        if not layout._suits(array):
            raise refuse(f"symbols {str(described)[:60]} of a {array.dtype} array {list(array.shape)}")
        return layout

    def _suits(self, array: np.ndarray) -> bool:
        numbers = (self.width, self.last, self.count)
        if any(type(number) is not int for number in numbers):
            return False
        if self.kind == "bits":
            fits = array.dtype == np.uint8 and self.width in (1, 2, 4) and array.ndim > 0 and not self.count
            return fits and self.last > 0 and array.shape[-1] == -(-self.last * self.width // 8)
        if any(numbers[:2]) or (self.count and self.kind != "gaps"):
            return False
        if self.kind == "gaps":
            most = array.size + np.iinfo(np.int32).max // ESCAPE
            return array.dtype == np.int32 and array.ndim == 1 and array.size <= self.count <= most
        return self.kind == ("codes" if array.itemsize == 1 else "planes")
