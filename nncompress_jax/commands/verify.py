"""Checks files of compressed networks: format, checksums, and that every weight can be made of what is there.

nncompress verify model.nnc
"""

import dataclasses
from pathlib import Path

import tyro

from nncompress_jax.artifact.reader import load


@dataclasses.dataclass(frozen=True)
class Options:
    """Which files."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """Of `nnc.save` or `nncompress compress`."""


def main(options: Options) -> None:
    """Loads each, and prints its digest."""
    for file in options.files:
        print(f"{file}: whole, SHA-256 {load(file).info.digest}")
