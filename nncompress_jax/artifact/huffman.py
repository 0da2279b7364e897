"""Bytes in canonical Huffman codes: what takes least where a model for arithmetic coding would be longer than the gain.

Source: Huffman 1952, "A Method for the Construction of Minimum-Redundancy Codes"; Han et al. 2016, "Deep
Compression", section 4, for its use on weights.
"""

import heapq
import itertools

import numpy as np

from nncompress_jax.artifact.bounds import Cursor
from nncompress_jax.errors import ArtifactError

LONGEST = 15
"""Bits of a code."""

MOST = 2**20
"""Symbols in these codes: what is longer is better off otherwise, and would be held whole."""

LANE = 4096
"""Symbols that are decoded one after the other; lanes of so many are decoded side by side."""


def lengths(histogram: np.ndarray) -> np.ndarray:
    """Bits of each byte's code, 0 of those that do not occur.

    Args:
      histogram: [256] counts, two of which at least are not 0.

    Example:
      >>> lengths(np.bincount([7, 7, 8, 9], minlength=256))[7:10].tolist()
      [1, 2, 2]
    """
    counts = [int(count) for count in histogram]
    while True:
        order = itertools.count()
        heap: list[tuple[int, int, tuple[int, ...]]] = []
        heap += [(count, next(order), (symbol,)) for symbol, count in enumerate(counts) if count]
        bits = np.zeros(256, np.int64)
        heapq.heapify(heap)
        while len(heap) > 1:
            first, second = heapq.heappop(heap), heapq.heappop(heap)
            symbols = first[2] + second[2]
            bits[list(symbols)] += 1
            heapq.heappush(heap, (first[0] + second[0], next(order), symbols))
        if bits.max() <= LONGEST:
            return bits
        counts = [(count + 1) // 2 for count in counts]  # flatter, and so less deep


def size_bytes(histogram: np.ndarray) -> int:
    """What `encode` gives for bytes with these counts, two of which at least are not 0."""
    span = int(np.ptp(np.flatnonzero(histogram))) + 1
    lanes = -(-int(histogram.sum()) // LANE)
    return 2 + (span + 1) // 2 + 4 * (lanes - 1) + -(-int(histogram @ lengths(histogram)) // 8)


def encode(symbols: np.ndarray) -> bytes:
    """[n] uint8, of two kinds at least -> bytes; their layout stands in docs/format.md."""
    bits = lengths(np.bincount(symbols, minlength=256))
    used = np.flatnonzero(bits)
    lowest, highest = int(used[0]), int(used[-1])
    listed = bits[lowest : highest + 1].astype(np.uint8)
    nibbles = np.append(listed, np.zeros(len(listed) % 2, np.uint8)).reshape(-1, 2)
    codes = _codes(bits)
    lanes = [symbols[start : start + LANE] for start in range(0, len(symbols), LANE)]
    ends = np.cumsum([int(bits[lane].sum()) for lane in lanes])
    streams = np.concatenate([_bits(codes[lane], bits[lane]) for lane in lanes])
    head = bytes([lowest, highest]) + (nibbles[:, 0] | nibbles[:, 1] << 4).tobytes()
    return head + ends[:-1].astype("<u4").tobytes() + np.packbits(streams).tobytes()


def decode(payload: bytes, count: int) -> np.ndarray:
    """Undoes `encode`.

    Args:
      payload: what it returned.
      count: of the symbols, n, at least 1.

    Returns:
      [n] uint8.

    Raises:
      ArtifactError: where the payload is not of n symbols.
    """
    if count > MOST:
        raise ArtifactError(f"{count} symbols in Huffman codes, expected at most {MOST}")
    symbols = np.empty(count, np.uint8)
    cursor = Cursor(payload)
    lowest, highest = cursor.byte(), cursor.byte()
    if lowest >= highest:
        raise ArtifactError(f"symbols from {lowest} to {highest}, expected two at least")
    nibbles = np.frombuffer(cursor.take((highest - lowest + 2) // 2), np.uint8)
    listed = np.stack([nibbles & 15, nibbles >> 4], axis=1).ravel()
    bits = np.zeros(256, np.int64)
    bits[lowest : highest + 1] = listed[: highest - lowest + 1]
    if listed[highest - lowest + 1 :].any() or int((2.0 ** -bits[bits > 0]).sum() * 2**LONGEST) != 2**LONGEST:
        raise ArtifactError("lengths of Huffman codes that make no whole tree")
    lanes = -(-len(symbols) // LANE)
    ends = np.frombuffer(cursor.take(4 * (lanes - 1)), "<u4").astype(np.int64)
    starts, stream = np.append(0, ends), np.frombuffer(cursor.rest, np.uint8)
    if (np.diff(starts) < 0).any() or starts[-1] > 8 * len(stream):
        raise ArtifactError("lanes of Huffman codes that overlap")
    at = _decoded(np.append(stream, np.zeros(3, np.uint8)).astype(np.int64), starts, bits, symbols)
    total = int(at[-1])
    padding = np.unpackbits(stream[-1:])[total % 8 or 8 :]
    if (at[:-1] != ends).any() or -(-total // 8) != len(stream) or padding.any():
        raise ArtifactError("Huffman codes that end elsewhere than they should")
    return symbols


def _decoded(stream: np.ndarray, starts: np.ndarray, bits: np.ndarray, symbols: np.ndarray) -> np.ndarray:
    """Fills the symbols, one of every lane at a time; returns where each lane ends."""
    used = np.flatnonzero(bits)
    order = used[np.argsort(bits[used], kind="stable")]
    windows = np.repeat(order, 2 ** (LONGEST - bits[order]))  # by the next 15 bits, which symbol begins them
    at, last = starts.copy(), len(stream) - 3
    for place in range(min(LANE, len(symbols))):
        count = -(-(len(symbols) - place) // LANE)  # lanes that are as long
        place_bits = at[:count]
        byte = np.minimum(place_bits >> 3, last)
        three = stream[byte] << 16 | stream[byte + 1] << 8 | stream[byte + 2]
        symbol = windows[three >> (24 - LONGEST - (place_bits & 7)) & (2**LONGEST - 1)]
        symbols[place::LANE] = symbol
        at[:count] += bits[symbol]
    return at


def _codes(bits: np.ndarray) -> np.ndarray:
    """[256] canonical codes: shorter ones first, then lower symbols."""
    codes, used = np.zeros(256, np.int64), np.flatnonzero(bits)
    order = used[np.argsort(bits[used], kind="stable")]
    widths = 2 ** (LONGEST - bits[order])
    codes[order] = (np.cumsum(widths) - widths) >> (LONGEST - bits[order])
    return codes


def _bits(codes: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Codes one after the other, a bit an entry, the highest first."""
    places = np.arange(LONGEST)
    behind = widths[:, None] - 1 - places
    return ((codes[:, None] >> np.maximum(behind, 0)) & 1)[behind >= 0].astype(np.uint8)
