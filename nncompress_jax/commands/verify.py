"""Checks files of compressed networks: format, checksums, and that every weight can be made of what is there.

nncompress verify model.nnc
"""

import dataclasses
from pathlib import Path

import tyro

from nncompress_jax.artifact.reader import load
from nncompress_jax.commands import cli


@dataclasses.dataclass(frozen=True)
class Options(cli.Printed):
    """Which files."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """Of `nnc.save` or `nncompress compress`."""


def main(options: Options) -> dict[str, str]:
    """Loads each, and prints its digest."""
    digests = {}
    for file in options.files:
        digests[str(file)] = load(file).info.digest
        print(f"{file}: whole, SHA-256 {digests[str(file)]}")
    return digests
