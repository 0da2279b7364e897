"""Writes a page of HTML on the network in a file: layer by layer, before compression and now.

nncompress report model.nnc --out=report.html
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tyro

import nncompress_jax as nnc
from nncompress_jax.artifact.info import Info
from nncompress_jax.artifact.reader import load
from nncompress_jax.commands import cli
from nncompress_jax.errors import InputError
from nncompress_jax.report.page import report
from nncompress_jax.table import Table


@dataclasses.dataclass(frozen=True)
class Options(cli.Printed):
    """Which file, into which page."""

    file: tyro.conf.Positional[Path]
    """Of `nnc.save` or `nncompress compress`."""
    out: Path = Path("report.html")
    """The page."""
    tables: tuple[Path, ...] = ()
    """JSON files of studies, as experiments/sensitivity.py writes one, that are shown below."""


def main(options: Options) -> dict[str, str]:
    """Loads the network, and writes."""
    apply, variables, info = load(options.file)
    if not info.image_shape:
        raise InputError(f"{options.file}: names no shape of images; write it with nnc.report(path, apply, ...)")
    image = np.zeros((1, *info.image_shape), np.float32)
    groups = nnc.coupling(apply, nnc.decompress(variables), image).table()
    title, facts = info.model or options.file.name, _facts(options.file, info)
    report(options.out, apply, variables, image, title=title, facts=facts, tables=[groups, *_read(options.tables)])
    print(f"page: {options.out}")
    return {"page": str(options.out)}


def _read(files: Sequence[Path]) -> list[Table]:
    return [Table.from_json(file.read_text(), str(file)) for file in files]


def _facts(file: Path, info: Info) -> dict[str, str]:
    facts = {"file": f"{file.stat().st_size:,} bytes"}
    if info.accuracy is not None:
        facts["accuracy"] = f"{info.accuracy:.2%} on {info.dataset}"
    return facts | ({"recipe": info.recipe} if info.recipe else {})
