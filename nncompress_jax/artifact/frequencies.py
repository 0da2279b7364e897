"""How often each byte occurs, in few bytes: what an entropy coder goes by, in whole numbers on every machine."""

import dataclasses
import functools
import struct
from typing import Any, ClassVar, Self

import numpy as np

from nncompress_jax.artifact.bounds import Cursor
from nncompress_jax.errors import ArtifactError

PRECISION = 24
"""Frequencies sum to 2^24."""

EIGHTHS = (256, 279, 304, 332, 362, 395, 431, 470)
"""256 * 2^(i / 8), rounded."""


@dataclasses.dataclass(frozen=True)
class Verbatim:
    """All bytes as likely as each other: they are stored as they are."""

    KIND: ClassVar[int] = 0

    def parameters(self) -> bytes:
        """None."""
        return b""

    @classmethod
    def read(cls, _: Cursor) -> Self:
        """From what `parameters` gave."""
        return cls()

    def bits(self, histogram: np.ndarray) -> float:
        """That so many of each byte take."""
        return 8.0 * float(histogram.sum())


@dataclasses.dataclass(frozen=True)
class Constant:
    """One byte and no other: nothing is stored of the symbols.

    Attributes:
      symbol: that byte.
    """

    KIND: ClassVar[int] = 1

    symbol: int

    def parameters(self) -> bytes:
        """The byte."""
        return bytes([self.symbol])

    @classmethod
    def read(cls, cursor: Cursor) -> Self:
        """From what `parameters` gave."""
        return cls(cursor.byte())

    def bits(self, _: np.ndarray) -> float:
        """None."""
        return 0.0


class Distribution:
    """Bytes from `lowest` to `highest`, two at least, each with a weight.

    `frequencies` makes of the weights whole numbers from 1 that sum to 2^24: each gets 1 and its share of the rest,
    rounded down; what remains goes to the first of the largest.
    """

    lowest: int
    highest: int

    def weights(self) -> list[int]:
        """Of the bytes from `lowest` to `highest`, 0 and more."""
        raise NotImplementedError

    def frequencies(self) -> np.ndarray:
        """[highest - lowest + 1] int64."""
        weights = self.weights()
        total, free = sum(weights), 2**PRECISION - len(weights)
        shares = [weight * free // total for weight in weights]
        shares[weights.index(max(weights))] += free - sum(shares)
        return np.array(shares, np.int64) + 1

    def bits(self, histogram: np.ndarray) -> float:
        """That so many of each byte take."""
        logarithms = PRECISION - np.log2(self.frequencies())
        return float(histogram[self.lowest : self.highest + 1] @ logarithms)


@dataclasses.dataclass(frozen=True)
class Table(Distribution):
    """Weights that are listed, each as a byte: 0 is none, b is 2^((b - 1) / 8) in the numbers of `EIGHTHS`.

    Attributes:
      lowest: of the bytes that occur.
      highest: of them.
      listed: a byte for each from lowest to highest.
    """

    KIND: ClassVar[int] = 2

    lowest: int
    highest: int
    listed: bytes

    @property
    def pairs(self) -> bytes:
        """Of those that occur, each byte and its weight."""
        return bytes(value for i, b in enumerate(self.listed) if b for value in (self.lowest + i, b))

    @classmethod
    def fitted(cls, histogram: np.ndarray) -> Self:
        """To [256] counts, two of which at least are not 0."""
        places = np.flatnonzero(histogram)
        lowest, highest = int(places[0]), int(places[-1])
        counts = histogram[lowest : highest + 1].astype(float)
        with np.errstate(divide="ignore"):
            steps = np.rint(8 * np.log2(counts / counts.max())) + 255
        return cls(lowest, highest, np.where(counts > 0, np.maximum(steps, 1), 0).astype(np.uint8).tobytes())

    def weights(self) -> list[int]:
        return [EIGHTHS[(b - 1) % 8] << ((b - 1) // 8) if b else 0 for b in self.listed]

    def parameters(self) -> bytes:
        """Both ends, and the list or, where that is shorter, pairs."""
        if len(self.pairs) < len(self.listed):
            return bytes([255, len(self.pairs) // 2]) + self.pairs
        return bytes([self.lowest, self.highest]) + self.listed

    @classmethod
    def read(cls, cursor: Cursor) -> Self:
        """From what `parameters` gave."""
        lowest, highest = cursor.byte(), cursor.byte()
        if lowest == 255:  # no list begins there: `highest` pairs
            pairs = np.frombuffer(cursor.take(2 * highest), np.uint8).reshape(-1, 2)
            if highest < 2 or (np.diff(pairs[:, 0].astype(int)) <= 0).any():
                raise ArtifactError("pairs of symbols and weights that do not ascend")
            listed = np.zeros(256, np.uint8)
            listed[pairs[:, 0]] = pairs[:, 1]
            lowest, highest = int(pairs[0, 0]), int(pairs[-1, 0])
            listed = listed[lowest : highest + 1]
        else:
            _check_ends(lowest, highest)
            listed = np.frombuffer(cursor.take(highest - lowest + 1), np.uint8)
        if not listed.any():
            raise ArtifactError("a table of frequencies without any")
        return cls(lowest, highest, listed.tobytes())


@dataclasses.dataclass(frozen=True)
class StudentT(Distribution):
    """Weights (c / (c + (x - centre)^2))^order, where c is `EIGHTHS[width % 8] * 2^(width // 8)` in 1024ths.

    Student's t distribution of 2 * order - 1 degrees of freedom: from Cauchy's (1) to nearly a normal one. Powers are
    repeated products in 31 bits behind the point, rounded down.

    Attributes:
      lowest: of the bytes that may occur.
      highest: of them.
      centre: where the weight is largest.
      order: from 1 to 64.
      width: from 0 to `WIDEST`.
    """

    KIND: ClassVar[int] = 3
    WIDEST: ClassVar[int] = 175
    ORDERS: ClassVar[tuple[int, ...]] = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)

    lowest: int
    highest: int
    centre: int
    order: int
    width: int

    @classmethod
    def fitted(cls, histogram: np.ndarray) -> Self:
        """To [256] counts, two of which at least are not 0: the likeliest order and width around the mean."""
        places = np.flatnonzero(histogram)
        lowest, highest = int(places[0]), int(places[-1])
        centre = round(float(histogram @ np.arange(256)) / float(histogram.sum()))
        logarithms, sums = _family()
        first = 255 - centre
        mass = sums[..., first + highest + 1] - sums[..., first + lowest]
        window = logarithms[..., first + lowest : first + highest + 1]
        bits = histogram.sum() * np.log2(mass) - window @ histogram[lowest : highest + 1]
        order, width = np.unravel_index(np.argmin(bits), bits.shape)
        return cls(lowest, highest, centre, cls.ORDERS[order], int(width))

    def weights(self) -> list[int]:
        square = (np.arange(self.lowest, self.highest + 1) - self.centre) ** 2
        c = np.uint64(EIGHTHS[self.width % 8] << (self.width // 8))
        ratio = (c << np.uint64(31)) // (c + square.astype(np.uint64) * np.uint64(1024))
        power = functools.reduce(lambda power, _: (power * ratio) >> np.uint64(31), range(1, self.order), ratio)
        return [int(weight) for weight in power]

    def parameters(self) -> bytes:
        """All five."""
        return struct.pack("<5B", self.lowest, self.highest, self.centre, self.order, self.width)

    @classmethod
    def read(cls, cursor: Cursor) -> Self:
        """From what `parameters` gave."""
        lowest, highest = cursor.byte(), cursor.byte()
        _check_ends(lowest, highest)
        centre, order, width = cursor.byte(), cursor.byte(), cursor.byte()
        if not lowest <= centre <= highest or not 1 <= order <= 64 or width > cls.WIDEST:
            raise ArtifactError(f"a distribution with centre {centre}, order {order}, width {width}")
        return cls(lowest, highest, centre, order, width)


Model = Verbatim | Constant | Table | StudentT
KINDS: dict[int, Any] = {kind.KIND: kind for kind in (Verbatim, Constant, Table, StudentT)}


def fitted(histogram: np.ndarray, *, smooth: bool = True) -> tuple[Model, float]:
    """The model with which so many of each byte take least, and how many bits that is, with the model's own.

    Args:
      histogram: [256] counts, not all 0.
      smooth: the bytes are numbers, so that neighbours may be about as frequent.
    """
    if np.count_nonzero(histogram) == 1:
        candidates: list[Model] = [Constant(int(np.argmax(histogram)))]
    else:
        candidates = [Verbatim(), Table.fitted(histogram)]
        candidates += [StudentT.fitted(histogram)] if smooth else []
    sizes = [model.bits(histogram) + 8 * len(written(model)) for model in candidates]
    best = int(np.argmin(sizes))
    return candidates[best], sizes[best]


def written(model: Model) -> bytes:
    """The kind, and its parameters."""
    return bytes([model.KIND]) + model.parameters()


def read(cursor: Cursor) -> Model:
    """What `written` gave."""
    kind = cursor.byte()
    if kind not in KINDS:
        raise ArtifactError(f"frequencies of kind {kind}, expected 0 to {max(KINDS)}")
    return KINDS[kind].read(cursor)


def entropy_bytes(histogram: np.ndarray) -> float:
    """Of the zeroth order: what symbols with these counts take at least, if none tells anything of another.

    Example:
      >>> entropy_bytes(np.array([4, 4]))
      1.0
    """
    counts = histogram[histogram > 0].astype(float)
    return float(counts @ np.log2(counts.sum() / counts)) / 8


@functools.cache
def _family() -> tuple[np.ndarray, np.ndarray]:
    """Of every order and width, at distances from -255 to 255: log2 of the weights, and running sums of the weights."""
    distance = np.arange(-255, 256)
    c = np.array([EIGHTHS[w % 8] * 2 ** (w // 8) for w in range(StudentT.WIDEST + 1)])[:, None] / 1024
    logarithms = np.array(StudentT.ORDERS)[:, None, None] * np.log2(c / (c + distance**2))
    logarithms = np.maximum(logarithms, 1 - PRECISION)  # no frequency is less than 1
    sums = np.cumsum(np.exp2(logarithms), axis=-1)
    return logarithms, np.concatenate([np.zeros_like(sums[..., :1]), sums], axis=-1)


def _check_ends(lowest: int, highest: int) -> None:
    if lowest >= highest:
        raise ArtifactError(f"symbols from {lowest} to {highest}, expected two at least")


def spread(histogram: np.ndarray) -> np.ndarray:
    """Standard deviation of the bytes of each row of [..., 256] counts."""
    values, counts = np.arange(256.0), np.maximum(histogram.sum(-1), 1)
    mean = histogram @ values / counts
    return np.sqrt(np.maximum(histogram @ values**2 / counts - mean**2, 0))
