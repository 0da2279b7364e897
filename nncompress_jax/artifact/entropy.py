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

CLASSES = (1, 2, 4, 8, 16, 32)
"""How many different models a section may have for its columns."""

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
    columns, models = _modelled(symbols)
    parts = [struct.pack("<IB", symbols.shape[1], len(models))]
    if len(models) > 1:
        parts.append(columns.astype(np.uint8).tobytes())
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
    stored, count = cursor.numbers("IB")
    if stored != width or not 1 <= count <= min(max(CLASSES), width):
        raise ArtifactError(f"{stored} columns in {count} classes, expected {width} columns")
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


def histogram(symbols: np.ndarray) -> np.ndarray:
    """[columns, 256] int64: how often each byte is in each column of [rows, columns] uint8."""
    rows, columns = symbols.shape
    counts = np.zeros(columns * 256, np.int64)
    first = np.arange(columns) * 256
    step = max(PIECE // columns, 1)
    for start in range(0, rows, step):
        counts += np.bincount((symbols[start : start + step] + first).ravel(), minlength=columns * 256)
    return counts.reshape(columns, 256)


def _modelled(symbols: np.ndarray) -> tuple[np.ndarray, list[Model]]:
    """[columns] the class of each, and a model for each class."""
    width = symbols.shape[1]
    if width > MOST_COLUMNS:
        return np.zeros(width, int), [frequencies.fitted(histogram(symbols.reshape(-1, 1))[0])[0]]
    counts = histogram(symbols)
    order = np.argsort(frequencies.spread(counts), kind="stable")
    best: tuple[float, np.ndarray, list[Model]] | None = None
    for count in CLASSES:
        if count > width:
            break
        columns = np.empty(width, int)
        columns[order] = np.arange(width) * count // width
        models = [frequencies.fitted(counts[columns == i].sum(0)) for i in range(count)]
        bits = sum(size for _, size in models) + 8 * width * (count > 1)
        if best is None or bits < best[0]:
            best = bits, columns, [model for model, _ in models]
    assert best is not None
    return best[1:]


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
