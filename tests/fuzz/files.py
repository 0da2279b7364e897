"""Files that nobody should have written: whole ones, changed; with checksums that are wrong, or made right again."""

import hashlib
import json
import tempfile
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import nncompress_jax as nnc
from nncompress_jax.artifact import container
from nncompress_jax.weights.channel_pruned import ChannelPruned
from nncompress_jax.weights.channels import Channels
from nncompress_jax.weights.low_rank import LowRank

MOST = 2**24
"""Bytes that a file may declare."""


def originals() -> dict[str, bytes]:
    """Small files with every type and every coding in them, by name."""
    random = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(random.standard_normal(shape), jnp.float32)

    def by(recipe, *shape):
        return nnc.compress({"kernel": draw(*shape)}, nnc.recipe(recipe))["kernel"]

    tied = by("quantize:8", 6, 4)
    sets = {
        "integers": {"a": {"kernel": by("quantize:8", 16, 24), "bias": draw(3)}, "b": by("quantize:4", 8, 5)},
        "three": {"a": by("quantize:3", 9, 11), "c": by("cluster:3", 1, 21)},
        "others": {"c": by("cluster:3", 12, 9), "s": by("binarize", 9, 9), "p": by("prune:0.8+cluster:2", 30, 20)},
        "trained": [by("fake_quantize:4", 6, 5), (by("fake_binarize", 6, 5), None)],
        "groups": {"g": nnc.compress({"kernel": draw(8, 4)}, nnc.prune(pattern=(2, 4)))["kernel"]},
        "kept": {"k": ChannelPruned(by("quantize:8", 4, 6), None, (Channels.of(9, [0, 2, 3, 8]), None))},
        "leaves": {"n": 3, "k": jax.random.key(0), "t": [tied, {"again": tied, "x": -0.5}]},
        "factors": {"l": LowRank((draw(6, 2), draw(2, 8))), "n": np.zeros((40, 30), np.int8)},
    }
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, variables in sets.items():
            nnc.save(f"{folder}/a.nnc", variables, class_names=("x", "y"), mean=(0.5,), accuracy=0.5, recipe=name)
            files[name] = Path(folder, "a.nnc").read_bytes()
        weights = {"conv": draw(3, 3, 2, 4), "layers": draw(3, 4, 4), "table": draw(5, 4), "scale": draw(4)}
        inputs = draw(2, 6, 6, 2), jnp.array([1, 4])
        nnc.save(f"{folder}/a.nnc", weights, apply=network, example=inputs, train=in_training)
        files["program"] = Path(folder, "a.nnc").read_bytes()
    return files


def network(weights, images, places):
    """Operations of many kinds, some in a loop, in branches, and with a derivative of their own."""
    x = lax.conv_general_dilated(images, weights["conv"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    x = lax.reduce_window(jax.nn.relu(x), -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = jnp.concatenate(
        [x.reshape(len(x), 9, 4), weights["table"][places][:, None], jnp.pad(x[:, 0], ((0, 0), (1, 0), (0, 0)))], 1
    )

    def turn(x, layer):
        return lax.cond(layer[0, 0] > 0, lambda x: jnp.tanh(x @ layer), lambda x: x * 2 - layer.sum(0), x), x.max()

    x, largest = lax.scan(turn, x, weights["layers"])
    best, order = lax.top_k(jax.nn.softmax(x.sum(1) * weights["scale"]), 2)
    return {"best": best, "order": (order, jnp.cumsum(order, 1)), "largest": largest + np.arange(3, dtype=np.float32)}


def in_training(weights, images, places, key):
    """The same with random numbers, and with what divides by the number of examples."""
    kept = jax.random.bernoulli(key, 0.5, images.shape)
    return network(weights, jnp.where(kept, images, 0) - images.mean((0, 1, 2)), places)["best"]


def split(file: bytes) -> tuple[dict, list[bytes]]:
    """Header and sections of a whole file."""
    _, _, deflated, _, _, _ = container.PREFIX.unpack(file[: container.PREFIX.size])
    header = json.loads(zlib.decompress(file[container.PREFIX.size : container.PREFIX.size + deflated]))
    at = container.PREFIX.size + deflated + len(container.padding(deflated))
    sections = []
    for described in sections_of(header):
        size = described["bytes"]
        sections.append(file[at : at + size])
        at += size + len(container.padding(size))
    return header, sections


def joined(header: dict, sections: list[bytes]) -> bytes:
    """A file of these, every checksum right."""
    for described, section in zip(sections_of(header), sections, strict=False):
        described |= {"bytes": len(section), "crc32": zlib.crc32(section)}
    return joined_as_said(header, sections)


def joined_as_said(header: dict, sections: list[bytes]) -> bytes:
    """The same, with what the header says of the sections."""
    start = container.header_bytes(header, [len(section) for section in sections])
    whole = start + b"".join(section + container.padding(len(section)) for section in sections)
    return whole + hashlib.sha256(whole).digest()


def framed(text: bytes, sections: list[bytes]) -> bytes:
    """A file with this text for a header, whatever it is."""
    deflated = zlib.compress(text)
    padded = [part + container.padding(len(part)) for part in (deflated, *sections)]
    size = container.PREFIX.size + sum(map(len, padded)) + container.DIGEST_BYTES
    prefix = container.PREFIX.pack(container.MAGIC, 1, len(deflated), len(text), zlib.crc32(deflated), size)
    whole = prefix + b"".join(padded)
    return whole + hashlib.sha256(whole).digest()


def sections_of(node) -> list[dict]:
    """What describes the arrays, in order."""
    if isinstance(node, dict) and {"shape", "dtype", "coding", "bytes"} <= node.keys():
        return [node]
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [found for child in children for found in sections_of(child)]


def places(node, path=()) -> list[tuple]:
    """Ways to everything in a header."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path] + [place for name, child in inner for place in places(child, (*path, name))]


STRANGE = (
    *(0, 1, -1, 2, 3, 7, 255, 256, 2**31, 2**40, 2**63, 10**30, 0.5, 1e300, True, False, None),
    *("", "float32", "int8", "ChannelPruned", "Quantized", "codes", "gaps", "raw", "ans", "huffman", "x" * 1000),
    *("add", "scan", "sort", "HIGHEST", {"batch": 1}, {"batch": 2**30}, {"constant": 0}, {"value": 0}, ["int8", 1]),
    *(["add", [0, 0]], ["iota", [], {"dtype": "int8", "shape": [{"batch": 9}], "dimension": 0}], ["float32", "nan"]),
    *([], {}, [[]], [0], [1, 2], [2**20, 2**20], {"array": {}}, {"none": True}, {"size": 9, "mask": "ff80"}),
)
"""What stands in the place of something in a header."""


def with_header_changed(header: dict, place: tuple, change: int, other: tuple):
    """The header with something else at a place: a strange value, what is at another place, or nothing."""
    header = json.loads(json.dumps(header))
    if not place:
        return STRANGE[change % len(STRANGE)]
    parent = header
    for name in place[:-1]:
        parent = parent[name]
    if change < len(STRANGE):
        parent[place[-1]] = STRANGE[change]
    elif change == len(STRANGE):
        del parent[place[-1]]
    else:
        value = header
        for name in other:
            value = value[name]
        parent[place[-1]] = json.loads(json.dumps(value))
    return header


def outcome(path: Path, file: bytes) -> str:
    """What comes of a file: "loaded", or why it was refused; any other exception is a defect."""
    path.write_bytes(file)
    try:
        nnc.load(path, max_bytes=MOST)
    except nnc.ArtifactError as error:
        line = str(error)
    else:
        return "loaded"
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert len(line) < 1000
    return line
