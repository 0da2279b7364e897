"""Says what is on pictures, by the network in a file: the probabilities of the likeliest classes.

nncompress predict model.nnc cat.png dog.jpg
nncompress predict model.onnx cat.png
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from nncompress_jax.commands import cli
from nncompress_jax.commands.served import opened
from nncompress_jax.data.pictures import decode, resize
from nncompress_jax.errors import InputError
from nncompress_jax.losses import last
from nncompress_jax.table import Table

LARGEST_FILE = 2**28
"""Bytes of a picture."""


@dataclasses.dataclass(frozen=True)
class Options(cli.Printed):
    """Which network, which pictures."""

    file: tyro.conf.Positional[Path]
    """Of `nnc.save` or `nncompress compress`, or of `nncompress export`."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """PNG, JPEG, or what else Pillow and OpenCV read; they are resized to what the network takes."""
    top: int = 5
    """Classes to print."""


def main(options: Options) -> dict[str, list[dict[str, Any]]]:
    """Prints a table for each picture."""
    if not options.images:
        raise InputError("no pictures; name some behind the file")
    apply, variables, info, preprocess = opened(options.file)
    height, width, *_ = info.image_shape or (0, 0)
    if not height or height != width or len(info.mean) != 3 or len(info.deviation) != 3 or min(info.deviation) <= 0:
        raise InputError(f"{options.file}: names no network of square pictures with mean and deviation; use nnc.load")
    pictures = np.stack([_read(path, height) for path in options.images])
    run = jax.jit(lambda variables, images: jax.nn.softmax(last(apply(variables, images))))
    probabilities = np.asarray(run(variables, preprocess(jax.numpy.asarray(pictures))))
    found = {}
    names = info.class_names or tuple(map(str, range(probabilities.shape[-1])))
    for path, row in zip(options.images, probabilities, strict=True):
        best = np.argsort(-row)[: options.top]
        rows = [{"class": names[label], "probability": float(row[label])} for label in best]
        found[str(path)] = rows
        Table(f"{path}", {"class": "", "probability": ".4f"}, rows).print()
    return found


def _read(path: Path, size: int) -> np.ndarray:
    """[size, size, 3] uint8."""
    with path.open("rb") as file:
        encoded = file.read(LARGEST_FILE + 1)
    try:
        if len(encoded) > LARGEST_FILE:
            raise InputError(f"more than {LARGEST_FILE:,} bytes")
        image, was_transparent = decode(encoded)
    except InputError as error:
        raise InputError(f"{path}: {error}; expected a whole PNG or JPEG file") from None
    if was_transparent:
        print(f"{path}: transparent; put on white", file=sys.stderr)
    return image if image.shape[:2] == (size, size) else resize(image, size)
