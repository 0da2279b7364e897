"""Where the parts of a file begin and end: its first bytes, its header, and the digest at its end."""

import json
import random
import re
import struct
import zlib
from typing import Any, BinaryIO

from nncompress_jax.errors import ArtifactError

MAGIC = b"\x89NNC\r\n\x1a\n"
"""No text file begins so, and what changes the ends of lines changes it."""

VERSIONS = (1, 2)
"""1: variables and what is said of them. 2: programs as well."""

PREFIX = struct.Struct("<8sIIIIQ")
"""Magic, version, bytes of the deflated header and of the header, CRC-32 of the deflated header, bytes of the file."""

DIGEST_BYTES = 32
ALIGNMENT = 8
LARGEST_HEADER = 2**23
DEEPEST_HEADER = 1000
"""So many lists and objects stand inside one another at most."""


OTHERS = 10
"""Nodes behind which one is deflated, to know what it takes."""


def padding(size: int) -> bytes:
    """Zeros up to where a part may begin."""
    return bytes(-size % ALIGNMENT)


def version_of(header: dict[str, Any]) -> int:
    """The format that a header is of."""
    return VERSIONS["program" in header]


def header_bytes(header: dict[str, Any], sizes: list[int]) -> bytes:
    """What stands before the sections, which have these sizes in bytes."""
    text = _text(header)
    deflated = zlib.compress(text, 9)
    before = PREFIX.size + len(deflated) + len(padding(len(deflated)))
    whole = before + sum(size + len(padding(size)) for size in sizes) + DIGEST_BYTES
    prefix = PREFIX.pack(MAGIC, version_of(header), len(deflated), len(text), zlib.crc32(deflated), whole)
    return prefix + deflated + padding(len(deflated))


def entry_bytes(node: dict[str, Any]) -> int:
    """About what a node adds to the deflated header, where others have the same words and other digits."""
    text, digits = _text(node), random.Random(0)
    other = [re.sub(rb"\d", lambda _: b"%d" % digits.randrange(10), text) for _ in range(OTHERS)]
    before = b"".join(other)
    return len(zlib.compress(before + text, 9)) - len(zlib.compress(before, 9))


def _text(header: Any) -> bytes:
    return json.dumps(header, separators=(",", ":"), allow_nan=False).encode()


def read_header(file: BinaryIO, size: int) -> tuple[bytes, dict[str, Any]]:
    """What stands before the sections.

    Args:
      file: at its start.
      size: of the file in bytes.

    Returns:
      The bytes, and the header.

    Raises:
      ArtifactError: where it is no such file, one of a newer version, cut off, or damaged.
    """
    prefix = file.read(PREFIX.size)
    if prefix[: len(MAGIC)] != MAGIC[: len(prefix)] or not prefix:
        raise ArtifactError(f"begins with {prefix[:8]!r}, expected {MAGIC!r}; it is no file of a compressed network")
    if len(prefix) < PREFIX.size:
        raise ArtifactError(f"{size} bytes, expected {PREFIX.size} at least; it is cut off")
    _, version, deflated_bytes, header_bytes, checksum, whole = PREFIX.unpack(prefix)
    if version > VERSIONS[-1]:
        raise ArtifactError(
            f"format {version}, newer than this library's, which is {VERSIONS[-1]}; update nncompress-jax"
        )
    if version < 1 or whole != size:
        raise ArtifactError(f"format {version}, {size} bytes of {whole}; it is cut off or was added to")
    if header_bytes > LARGEST_HEADER or deflated_bytes > size:
        raise ArtifactError(f"a header of {header_bytes} bytes, {deflated_bytes} in the file")
    deflated = file.read(deflated_bytes)
    if zlib.crc32(deflated) != checksum:
        raise ArtifactError("the header's checksum is another")
    padded = file.read(len(padding(deflated_bytes)))
    header = _parsed(deflated, header_bytes)
    if not isinstance(header, dict) or "variables" not in header:
        raise ArtifactError("a header without variables")
    if version != version_of(header):
        raise ArtifactError(f"format {version} with a header of format {version_of(header)}")
    return prefix + deflated + padded, header


def _parsed(deflated: bytes, size: int) -> Any:
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(deflated, size + 1)
        if len(text) != size or not inflate.eof or inflate.unused_data:
            raise ValueError("its size is another")
        header = json.loads(text, parse_constant=_refuse_constant)
        _refuse_deep(header)
        return header
    except (zlib.error, ValueError, RecursionError) as error:
        raise ArtifactError(f"a header that is no JSON ({' '.join(str(error).split())[:60]})") from None


def _refuse_deep(header: Any) -> None:
    """Parsers of some Pythons follow nesting further than others; what reads the header is made for so much."""
    level = [header]
    for _ in range(DEEPEST_HEADER):
        inner = (node.values() if isinstance(node, dict) else node for node in level if isinstance(node, dict | list))
        level = [child for children in inner for child in children]
    if level:
        raise ValueError("nested too deep")


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)
