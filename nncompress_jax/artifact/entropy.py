"""Bytes of which some are more frequent than others, by asymmetric numeral systems.

Source: Duda 2013, "Asymmetric numeral systems"; Bamler 2022, "Understanding Entropy Coding With Asymmetric Numeral
Systems (ANS)", for the library that does it.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import constriction
import numpy as np

from nncompress_jax.artifact import frequencies
from nncompress_jax.artifact.bounds import Cursor
from nncompress_jax.artifact.frequencies import Constant, Distribution, Model, Verbatim
from nncompress_jax.errors import ArtifactError

CLASSES = 32
"""Different models that a section may have for its columns, at most."""

PACKED = 128
"""Added to the number of classes: the class of each column takes as many bits as it needs, not a byte."""

MODEL_BITS = 64
"""About what a model takes."""

MOST_COLUMNS = 4096
"""With more, all columns have one model."""

PIECE = 2**18
"""Symbols that are coded at a time."""


def encode(symbols: np.ndarray) -> bytes:
    """The shortest of several ways: columns of similar spread share a model.

    Args:
      symbols: [rows, columns] uint8, not empty.

    Returns:
      For `decode`; its layout stands in docs/format.md.
    """
    _, columns, models = _modelled(symbols)
    several = len(models) > 1
    parts = [struct.pack("<IB", symbols.shape[1], len(models) + PACKED * several)]
    if several:
        parts.append(_packed(columns, _width(len(models))))
    parts += [frequencies.written(model) for model in models]
    places = [np.flatnonzero(columns == i) for i in range(len(models))]
    rows = len(symbols)
    for model, own in zip(models, places, strict=True):
        if isinstance(model, Verbatim):
            parts += [_piece(symbols, piece).tobytes() for piece in _pieces(rows, own)]
    coder = constriction.stream.stack.AnsCoder()
    for model, own in reversed([*zip(models, places, strict=True)]):
        if isinstance(model, Distribution):
            coded = _coded(model)
            for piece in reversed([*_pieces(rows, own)]):
                coder.encode_reverse(_piece(symbols, piece).astype(np.int32) - model.lowest, coded)
    return b"".join([*parts, coder.get_compressed().astype("<u4").tobytes()])


Fill = Callable[[np.ndarray, slice, np.ndarray], None]
"""(columns, rows, [columns, rows] uint8): takes symbols of these columns in these rows."""


def decode(payload: bytes, shape: tuple[int, int], fill: Fill) -> None:
    """Undoes `encode`, in pieces.

    Args:
      payload: what it returned.
      shape: [rows, columns] of the symbols.
      fill: is given every symbol once.

    Raises:
      ArtifactError: where the payload is not of symbols of that shape.
    """
    cursor = Cursor(payload)
    rows, width = shape
    stored, number = cursor.numbers("IB")
    count, is_packed = number % PACKED, number >= PACKED
    if stored != width or not 1 + is_packed <= count <= min(CLASSES, width):
        raise ArtifactError(f"{stored} columns in {count} classes, expected {width} columns")
    if is_packed:
        columns = _unpacked(cursor.take(-(-width * _width(count) // 8)), _width(count), width)
    else:
        columns = np.frombuffer(cursor.take(width), np.uint8) if count > 1 else np.zeros(width, np.uint8)
    if columns.max() >= count:
        raise ArtifactError(f"a column of class {columns.max()} of {count}")
    models = [frequencies.read(cursor) for _ in range(count)]
    classes = [(model, np.flatnonzero(columns == i)) for i, model in enumerate(models)]
    for model, own in classes:
        if isinstance(model, Constant) and len(own):
            fill(own, slice(0, rows), np.broadcast_to(np.uint8(model.symbol), (len(own), rows)))
        if isinstance(model, Verbatim):
            for piece in _pieces(rows, own):
                stored_bytes = cursor.take(_size(piece))
                fill(*piece, np.frombuffer(stored_bytes, np.uint8).reshape(len(piece[0]), -1))
    if len(cursor.rest) % 4 or cursor.rest[-4:] == bytes(4):
        raise ArtifactError(
            f"{len(cursor.rest)} bytes of coded symbols, expected whole words of which the last is not zero"
        )
    coder = constriction.stream.stack.AnsCoder(np.frombuffer(cursor.rest, "<u4").astype(np.uint32))
    for model, own in classes:
        if isinstance(model, Distribution):
            coded = _coded(model)
            for piece in _pieces(rows, own):
                symbols = coder.decode(coded, _size(piece)) + model.lowest
                fill(*piece, symbols.astype(np.uint8).reshape(len(piece[0]), -1))
    if not coder.is_empty():
        raise ArtifactError("coded symbols go on behind the last")


def bits(symbols: np.ndarray) -> float:
    """About as many as `encode` makes of them."""
    return _modelled(symbols)[0]


def histogram(symbols: np.ndarray) -> np.ndarray:
    """[columns, 256] int64: how often each byte is in each column of [rows, columns] uint8."""
    rows, columns = symbols.shape
    counts = np.zeros(columns * 256, np.int64)
    first = np.arange(columns) * 256
    step = max(PIECE // columns, 1)
    for start in range(0, rows, step):
        counts += np.bincount((symbols[start : start + step] + first).ravel(), minlength=columns * 256)
    return counts.reshape(columns, 256)


def _modelled(symbols: np.ndarray) -> tuple[float, np.ndarray, list[Model]]:
    """Bits of models and symbols, [columns] the class of each, and a model for each class."""
    width = symbols.shape[1]
    if width > MOST_COLUMNS:
        model, size = frequencies.fitted(histogram(symbols.reshape(-1, 1))[0])
        return size, np.zeros(width, int), [model]
    counts = histogram(symbols)
    alone, size = frequencies.fitted(counts.sum(0))
    columns = _classes(counts)
    models = [frequencies.fitted(counts[columns == i].sum(0)) for i in range(columns.max() + 1)]
    together = sum(bits for _, bits in models) + width * _width(len(models))
    if len(models) == 1 or size <= together:
        return size, np.zeros(width, int), [alone]
    return together, columns, [model for model, _ in models]


def _classes(counts: np.ndarray) -> np.ndarray:
    """[columns] int, from `histogram`: columns of similar spread, so many classes as take the fewest bits.

    Neighbours in the order of their spread become one class, those first that lose least by it.
    """
    width = len(counts)
    order = np.argsort(frequencies.spread(counts), kind="stable")
    starts = np.arange(min(CLASSES, width)) * width // min(CLASSES, width)
    groups = np.add.reduceat(counts[order], starts, axis=0)
    own = _entropy(groups)
    best = np.inf, starts
    while True:
        bits = own.sum() + MODEL_BITS * len(starts) + width * _width(len(starts))
        best = min(best, (bits, starts), key=lambda each: each[0])
        if len(starts) == 1:
            break
        both = _entropy(groups[:-1] + groups[1:])
        at = int(np.argmin(both - own[:-1] - own[1:]))
        groups[at] += groups[at + 1]
        own[at] = both[at]
        groups, own, starts = (np.delete(x, at + 1, axis=0) for x in (groups, own, starts))
    columns = np.empty(width, int)
    columns[order] = np.searchsorted(best[1], np.arange(width), side="right") - 1
    return columns


def _entropy(counts: np.ndarray) -> np.ndarray:
    """Bits of the symbols of each row."""
    totals = counts.sum(-1, keepdims=True)
    return (counts * np.log2(np.maximum(totals, 1) / np.maximum(counts, 1))).sum(-1)


def _width(count: int) -> int:
    """Bits that tell so many classes from one another."""
    return (count - 1).bit_length()


def _packed(columns: np.ndarray, width: int) -> bytes:
    bits = columns.astype(np.uint8)[:, None] >> np.arange(width, dtype=np.uint8) & 1
    return np.packbits(bits, bitorder="little").tobytes()


def _unpacked(packed: memoryview, width: int, count: int) -> np.ndarray:
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little")
    if bits[count * width :].any():
        raise ArtifactError("bits behind the last class that are not 0")
    return bits[: count * width].reshape(count, width) @ (1 << np.arange(width))


def _coded(model: Distribution) -> Any:
    """The library's model."""
    weights = model.frequencies() - 1  # the library adds one to each
    return constriction.stream.model.Categorical(weights.astype(np.float64), perfect=False)


Piece = tuple[np.ndarray, slice]
"""Columns, and the rows of them."""


def _pieces(rows: int, columns: Sequence[int] | np.ndarray) -> Iterator[Piece]:
    """A class column by column, in pieces that are not large."""
    if rows > PIECE:
        for column in columns:
            for start in range(0, rows, PIECE):
                yield np.array([column]), slice(start, min(start + PIECE, rows))
        return
    step = PIECE // rows
    for start in range(0, len(columns), step):
        yield np.asarray(columns[start : start + step]), slice(0, rows)


def _size(piece: Piece) -> int:
    columns, rows = piece
    return len(columns) * (rows.stop - rows.start)


def _piece(symbols: np.ndarray, piece: Piece) -> np.ndarray:
    columns, rows = piece
    return symbols[rows, columns].T.ravel()
