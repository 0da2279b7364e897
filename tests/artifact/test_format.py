"""docs/format.md, followed to the letter without the library that codes: whoever reads it can read a file."""

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from nncompress_jax.artifact import entropy, huffman, sections
from tests.fuzz import files

E = (256, 279, 304, 332, 362, 395, 431, 470)
DATA = Path(__file__).parents[1] / "data"


class Bytes:
    """From the first to the last."""

    def __init__(self, content):
        self.rest = content

    def take(self, layout):
        size = struct.calcsize(f"<{layout}")
        values, self.rest = struct.unpack(f"<{layout}", self.rest[:size]), self.rest[size:]
        return values if len(values) > 1 else values[0]


def table_or_curve(content, kind):
    """The lowest symbol, and frequencies from there on."""
    if kind == 2:
        lowest, second = content.take("BB")
        if lowest == 255:
            listed = dict(content.take("BB") for _ in range(second))
            lowest, b = min(listed), [listed.get(symbol, 0) for symbol in range(min(listed), max(listed) + 1)]
        else:
            b = [content.take("B") for _ in range(lowest, second + 1)]
        weights = [E[(x - 1) % 8] * 2 ** ((x - 1) // 8) if x else 0 for x in b]
    else:
        lowest, highest, centre, order, width = content.take("BBBBB")
        c, weights = E[width % 8] * 2 ** (width // 8), []
        for symbol in range(lowest, highest + 1):
            r = power = 2**31 * c // (c + 1024 * (symbol - centre) ** 2)
            for _ in range(order - 1):
                power = power * r // 2**31
            weights.append(power)
    free, total = 2**24 - len(weights), sum(weights)
    shares = [weight * free // total for weight in weights]
    shares[weights.index(max(weights))] += free - sum(shares)
    return lowest, [share + 1 for share in shares]


def ans(content, rows):
    """[rows, columns] symbols."""
    content = Bytes(content)
    columns, n = content.take("IB")
    if n > 128:
        n, w = n - 128, (n - 129).bit_length()
        packed = int.from_bytes([content.take("B") for _ in range((columns * w + 7) // 8)], "little")
        classes = [packed >> w * column & 2**w - 1 for column in range(columns)]
        assert packed >> w * columns == 0
    else:
        classes = [content.take("B") for _ in range(columns)] if n > 1 else [0] * columns
    models = []
    for _ in range(n):
        kind = content.take("B")
        models.append((kind, content.take("B") if kind == 1 else table_or_curve(content, kind) if kind else None))
    symbols = np.zeros((rows, columns), np.uint8)
    for i, (kind, model) in enumerate(models):
        for column in [column for column in range(columns) if classes[column] == i and kind < 2]:
            symbols[:, column] = model if kind else [content.take("B") for _ in range(rows)]
    words, x = [content.take("I") for _ in range(len(content.rest) // 4)], 0
    while x < 2**32 and words:
        x = 2**32 * x + words.pop()
    for i, (kind, model) in enumerate(models):
        for column in [column for column in range(columns) if classes[column] == i and kind > 1]:
            lowest, frequencies = model
            before = [0, *np.cumsum(frequencies).tolist()]
            for row in range(rows):
                q = x % 2**24
                s = int(np.searchsorted(before, q, side="right")) - 1
                x = frequencies[s] * (x // 2**24) + q - before[s]
                symbols[row, column] = lowest + s
                if x < 2**32 and words:
                    x = 2**32 * x + words.pop()
    assert (x, words) == (0, [])
    return symbols


@pytest.mark.parametrize("kind", ["by channel", "few", "two of many", "floats", "one"])
def test_ans(kind):
    random = np.random.default_rng(0)
    symbols = {
        "by channel": np.rint(random.standard_normal((200, 40)) * np.linspace(3, 40, 40)).clip(-127, 127) + 128,
        "few": random.integers(0, 3, (50, 3)),
        "two of many": np.where(random.random((200, 50)) < 0.02, 200, 3),
        "floats": random.standard_normal(300).astype(np.float32).view(np.uint8).reshape(-1, 4),
        "one": np.full((3, 2), 7),
    }[kind].astype(np.uint8)
    content = entropy.encode(symbols)
    assert (content[4] > 128) == (kind in ("by channel", "floats"))
    assert (ans(content, len(symbols)) == symbols).all()


def test_classes_that_take_a_byte_each():
    """As files have them that were written before classes were packed."""
    symbols = np.stack([np.full(50, 7), np.arange(50), np.full(50, 9), np.arange(50) + 3], 1).astype(np.uint8)
    content = struct.pack("<IB", 4, 4) + bytes([2, 0, 3, 1]) + bytes([0, 0, 1, 7, 1, 9])
    content += symbols[:, [1, 3]].T.tobytes()
    read = np.zeros_like(symbols)

    def fill(columns, rows, part):
        read[rows, columns] = part.T

    entropy.decode(content, symbols.shape, fill)
    assert (read == symbols).all()
    assert (ans(content, 50) == symbols).all()


@pytest.mark.parametrize("axis", [-4, -3, -2, -1])
def test_columns_along_any_axis(axis):
    random = np.random.default_rng(0)
    shape = [3, 5, 4, 6]
    shape[axis] = 200
    spread = np.where(np.arange(200) % 2, 0.1, 20).reshape([200 if i == axis % 4 else 1 for i in range(4)])
    codes = np.rint(random.standard_normal(shape) * spread).clip(-127, 127).astype(np.int8)
    section, payload = sections.encode(codes)
    described = section.to_dict()
    assert described["symbols"] == {"kind": "codes"} | ({"axis": axis} if axis != -1 else {})
    matrix = ans(payload, codes.size // 200)
    last = np.moveaxis(codes, axis, -1)
    assert ((matrix ^ 128).view(np.int8).reshape(last.shape) == last).all()
    assert (sections.decode(section, payload) == codes).all()


def test_huffman():
    random = np.random.default_rng(0)
    symbols = np.clip(random.geometric(0.3, 9000) + 10, 0, 30).astype(np.uint8)
    content = Bytes(huffman.encode(symbols))
    lowest, highest = content.take("BB")
    halves = [
        half for _ in range((highest - lowest + 2) // 2) for half in (lambda b: (b & 15, b >> 4))(content.take("B"))
    ]
    lengths = {lowest + i: length for i, length in enumerate(halves) if length}
    codes, code, last = {}, 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in lengths.items()):
        code <<= length - last
        codes[f"{code:0{length}b}"] = symbol
        code, last = code + 1, length
    ends = content.take("II")
    bits, found, at = "".join(f"{byte:08b}" for byte in content.rest), [], 0
    while len(found) < len(symbols):
        assert (at == ends[len(found) // 4096 - 1]) if found and len(found) % 4096 == 0 else True
        length = next(length for length in range(1, 16) if bits[at : at + length] in codes)
        found.append(codes[bits[at : at + length]])
        at += length
    assert found == symbols.tolist()
    assert set(bits[at:]) <= {"0"}
    assert len(bits) - at < 8


def test_the_frame():
    content = (DATA / "format-1.nnc").read_bytes()
    assert content[:8] == bytes.fromhex("894E4E430D0A1A0A")
    version, deflated, size, checksum, whole = struct.unpack("<IIIIQ", content[8:32])
    assert (version, whole) == (1, len(content))
    assert zlib.crc32(content[32 : 32 + deflated]) == checksum
    header = zlib.decompress(content[32 : 32 + deflated])
    assert len(header) == size
    at = -(-(32 + deflated) // 8) * 8
    for described in files.sections_of(json.loads(header)["variables"]):
        section = content[at : at + described["bytes"]]
        assert zlib.crc32(section) == described["crc32"]
        at += -(-described["bytes"] // 8) * 8
    assert at == len(content) - 32
