"""One array as bytes, coded in the shortest of several ways, and back."""

import dataclasses
import decimal
import functools
import math
import zlib
from typing import Any

import numpy as np

from nncompress_jax.artifact import entropy, frequencies, huffman
from nncompress_jax.artifact.symbols import Layout, layout_from_dict, layouts_of
from nncompress_jax.errors import ArtifactError, InputError
from nncompress_jax.leaves import DTYPES

NARROW, WIDE = ("bfloat16", "float16"), ("float32", "float64")
"""Floats, by what they may be stored as."""

UPWARDS = decimal.Context(prec=2, rounding=decimal.ROUND_CEILING)
"""How errors are rounded: in a network of many small arrays their digits would be a third of the header."""


@dataclasses.dataclass(frozen=True)
class Section:
    """Where an array is in a file, and how.

    Attributes:
      shape: of the array.
      dtype: a name of `DTYPES`.
      coding: "raw": the array's bytes, C order, low bytes first; "ans" and "huffman": its symbols, coded.
      size_bytes: in the file.
      checksum: CRC-32 of those bytes.
      symbols: how the array becomes symbols; None for raw.
      stored_dtype: in the file, where that is narrower; None: `dtype`.
      largest_error: no entry changes by more, by that; two digits.
    """

    shape: tuple[int, ...]
    dtype: str
    coding: str
    size_bytes: int
    checksum: int
    symbols: Layout | None = None
    stored_dtype: str | None = None
    largest_error: float = 0.0

    @property
    def decoded_bytes(self) -> int:
        """Of the array."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        described: dict[str, Any] = {"shape": list(self.shape), "dtype": self.dtype, "coding": self.coding}
        described |= {"bytes": self.size_bytes, "crc32": self.checksum}
        if self.stored_dtype:
            described |= {"stored_dtype": self.stored_dtype, "largest_error": self.largest_error}
        return described | ({"symbols": self.symbols.to_dict()} if self.symbols else {})

    @classmethod
    def from_dict(cls, described: dict[str, Any]) -> "Section":
        """From what `to_dict` gave; Raises ArtifactError for anything else. Nothing is allocated."""
        keys = {"shape", "dtype", "coding", "bytes", "crc32"}
        narrowed = {"stored_dtype", "largest_error"} & described.keys()
        if not keys <= described.keys() <= keys | narrowed | {"symbols"}:
            raise ArtifactError(f"an array with {', '.join(sorted(described))[:60]}")
        shape, dtype, coding = described["shape"], described["dtype"], described["coding"]
        numbers = [described["bytes"], described["crc32"], *(shape if isinstance(shape, list) else [None])]
        if any(type(number) is not int or not 0 <= number < 2**48 for number in numbers) or len(numbers) > 34:
            raise ArtifactError(f"an array {str(shape)[:60]} of {str(described['bytes'])[:20]} bytes")
        if dtype not in list(DTYPES) or coding not in ("raw", "ans", "huffman"):
            raise ArtifactError(f"an array of dtype {str(dtype)[:20]!r}, coded as {str(coding)[:20]!r}")
        stored, error = described.get("stored_dtype"), described.get("largest_error", 0.0)
        if narrowed and (len(narrowed) < 2 or stored not in NARROW or dtype not in WIDE or type(error) is not float):
            raise ArtifactError(f"a {dtype} array stored as {str(stored)[:20]!r}")
        if (coding == "raw") != ("symbols" not in described):
            raise ArtifactError(f"coding {coding} {'with' if coding == 'raw' else 'without'} symbols")
        if math.prod(shape) >= 2**48:
            raise ArtifactError(f"an array {shape}, larger than any memory")
        shell = np.broadcast_to(np.zeros((), DTYPES[stored or dtype]), shape)
        symbols = layout_from_dict(described["symbols"], shell) if coding != "raw" else None
        return cls(tuple(shape), dtype, coding, described["bytes"], described["crc32"], symbols, stored, error)


def encode(array: np.ndarray, bits: tuple[int, int] | None = None, floats: str | None = None) -> tuple[Section, bytes]:
    """An array in the shortest way.

    Args:
      array: of a type of `DTYPES`.
      bits: (width, codes along the last axis), where it holds packed codes; the bits that are left are 0.
      floats: a name of `NARROW`, as which wider floats are stored; None: as they are.

    Returns:
      What says where and how, and the bytes.

    Raises:
      InputError: for floats that the narrower type cannot hold.

    Example:
      >>> section, payload = encode(np.zeros(1000, np.int8))
      >>> section.coding, len(payload)
      ('ans', 7)
    """
    if floats is not None and array.dtype.name in WIDE and array.size:
        return _narrowed(array, floats)
    layouts = layouts_of(array, bits)
    layout = layouts[0]
    best, coding = _raw(array), "raw"
    if array.size:
        if len(layouts) > 1:
            layout = min(layouts, key=lambda each: entropy.bits(each.symbols(array)))
        symbols = layout.symbols(array)
        coded = entropy.encode(symbols)
        if len(coded) < len(best):
            best, coding = coded, "ans"
        counts = np.bincount(symbols.ravel(), minlength=256)
        short = np.count_nonzero(counts) > 1 and symbols.size <= huffman.MOST
        if short and huffman.size_bytes(counts) < len(best):
            best, coding = huffman.encode(symbols.ravel()), "huffman"
    symbols_of = None if coding == "raw" else layout
    return Section(array.shape, array.dtype.name, coding, len(best), zlib.crc32(best), symbols_of), best


def decode(section: Section, payload: bytes) -> np.ndarray:
    """The array; Raises ArtifactError where the bytes are not those that were written."""
    if zlib.crc32(payload) != section.checksum or len(payload) != section.size_bytes:
        raise ArtifactError("its checksum is another")
    dtype = DTYPES[section.stored_dtype or section.dtype]
    if section.coding == "raw":
        size = math.prod(section.shape) * dtype.itemsize
        if len(payload) != size:
            raise ArtifactError(f"{len(payload)} bytes for {size}")
        array = np.frombuffer(payload, dtype.newbyteorder("<")).reshape(section.shape)
        return array.astype(DTYPES[section.dtype])
    assert section.symbols is not None
    array = _empty(section.shape, dtype)
    rows, columns = section.symbols.shape(array)
    if not array.size:
        raise ArtifactError("symbols of an array without entries")
    target = section.symbols.target(array)
    fill = functools.partial(section.symbols.put, target)
    if section.coding == "ans":
        entropy.decode(payload, (rows, columns), fill)
    else:
        symbols = huffman.decode(payload, rows * columns)
        fill(np.arange(columns), slice(0, rows), symbols.reshape(rows, columns).T)
    section.symbols.restore(target, array)
    return array.astype(DTYPES[section.dtype], copy=False)


def entropy_bytes(section: Section, array: np.ndarray) -> tuple[float, int]:
    """What the array's symbols would take at least if none told anything of another, and how many kinds there are.

    Symbols are codes, gaps between places, and the bytes of everything else.
    """
    layout = section.symbols or layouts_of(array)[0]
    array = array.astype(DTYPES[section.stored_dtype or section.dtype], copy=False)
    if not array.size:
        return 0.0, 0
    counts = entropy.histogram(layout.symbols(array).reshape(-1, 1))[0]
    return frequencies.entropy_bytes(counts), int(np.count_nonzero(counts))


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """On an address that jax takes as it is, without a copy."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def _narrowed(array: np.ndarray, floats: str) -> tuple[Section, bytes]:
    with np.errstate(over="ignore"):
        narrow = array.astype(DTYPES[floats])
    if not (np.isfinite(narrow) == np.isfinite(array)).all():
        raise InputError(f"{np.nanmax(np.abs(array)):g} is more than {floats} can hold; choose bfloat16, or no floats=")
    section, payload = encode(narrow)
    finite = np.isfinite(array)
    error = float(np.abs(narrow.astype(array.dtype)[finite] - array[finite]).max(initial=0))
    bound = float(UPWARDS.create_decimal_from_float(error))
    new: dict[str, Any] = {"dtype": array.dtype.name, "stored_dtype": floats, "largest_error": bound}
    return dataclasses.replace(section, **new), payload


def _raw(array: np.ndarray) -> bytes:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
