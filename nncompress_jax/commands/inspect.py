"""Shows what is in a file of a compressed network: a row for each weight, and what the file says of itself.

nncompress inspect model.nnc
"""

import dataclasses
from pathlib import Path

import tyro

from nncompress_jax.artifact.contents import contents


@dataclasses.dataclass(frozen=True)
class Options:
    """Which file."""

    file: tyro.conf.Positional[Path]
    """Of `nnc.save` or `nncompress compress`."""
    json: Path | None = None
    """Writes the table here, values at full precision."""


def main(options: Options) -> None:
    """Reads and checks the whole file, and prints."""
    info, table, programs = contents(options.file)
    table.print()
    for name, value in {**info.to_dict(), **programs, "digest": info.digest}.items():
        print(f"{name:12} {', '.join(map(str, value)) if isinstance(value, list) else value}")
    if options.json:
        options.json.write_text(table.json())
