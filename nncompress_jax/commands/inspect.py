"""Shows what is in a file of a compressed network: a summary, and a row for each weight.

nncompress inspect model.nnc
nncompress inspect model.nnc --all
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from nncompress_jax.artifact.contents import contents
from nncompress_jax.artifact.info import Info
from nncompress_jax.commands import cli
from nncompress_jax.table import Table, natural

FORMATS = {"weight": "", "type": "", "shape": "", "density": ".3f", "bytes": ",", "bits": ".2f"}
"""bits: in the file, for each entry."""

COLLECTIONS = ("params", "batch_stats")
"""Of linen, whose layers have the same names in both."""


@dataclasses.dataclass(frozen=True)
class Options(cli.Printed):
    """Which file."""

    file: tyro.conf.Positional[Path]
    """Of `nnc.save` or `nncompress compress`."""
    all: bool = False
    """Each vector in a row of its own, and all that is known of each: bits before coding, entropy, the coding."""


def main(options: Options) -> dict[str, Any]:
    """Reads and checks the whole file, and prints."""
    info, table, programs = contents(options.file)
    *rows, total = table.rows
    print(_summary(options.file, info, total), end="\n\n")
    rows = sorted(rows, key=lambda row: natural(_layer(row["weight"])))
    if options.all:
        Table("", table.formats, [*rows, total]).print()
    else:
        short = [{**row, "bits": row["bits_per_parameter"]} for row in [*_folded(rows), total]]
        Table("", FORMATS, short).print()
    facts = {**info.to_dict(), **programs, "digest": info.digest}
    for name, value in facts.items():
        print(f"{name:12} {', '.join(map(str, value)) if isinstance(value, list) else value}")
    return facts | {"weights": [dict(row) for row in rows], "total": dict(total)}


def _summary(file: Path, info: Info, total: Mapping[str, Any]) -> str:
    first = f"{file}: {total['bytes']:,} bytes, {total['bits_per_parameter']:.2f} bits for each entry of its arrays"
    of = [info.model] if info.model else []
    of += [f"made by {info.recipe}"] if info.recipe else []
    of += [f"accuracy {info.accuracy:.4f} on {info.dataset}"] if info.accuracy is not None else []
    return "\n".join([first, *([", ".join(of)] if of else [])])


def _layer(path: str) -> str:
    """Without the collection that a layer's arrays are in."""
    collection, _, rest = path.partition("/")
    return rest if collection in COLLECTIONS else path


def _folded(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of matrices, and one for all vectors and numbers of a layer."""
    folded: list[dict[str, Any]] = []
    layers: dict[str, dict[str, Any]] = {}
    for row in rows:
        layer, _, name = _layer(row["weight"]).rpartition("/")
        if row["shape"].count(",") or not layer:
            folded.append(dict(row))
            continue
        if layer not in layers:
            layers[layer] = {"weight": layer, "type": [], "shape": "", "density": None, "bytes": 0, "entries": 0.0}
            folded.append(layers[layer])
        layers[layer]["type"].append(name)
        layers[layer]["bytes"] += row["bytes"]
        layers[layer]["entries"] += 8 * row["bytes"] / row["bits_per_parameter"] if row["bits_per_parameter"] else 0
    for each in layers.values():
        entries = each.pop("entries")
        each |= {
            "type": ", ".join(each["type"]),
            "bits_per_parameter": 8 * each["bytes"] / entries if entries else None,
        }
    return folded
