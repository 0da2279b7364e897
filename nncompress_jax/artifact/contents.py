"""What is in a file, weight by weight, and how near each comes to its entropy."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nncompress_jax.artifact import tree
from nncompress_jax.artifact.info import Info
from nncompress_jax.artifact.reader import opened
from nncompress_jax.artifact.sections import Section, entropy_bytes
from nncompress_jax.leaves import is_key
from nncompress_jax.table import Table
from nncompress_jax.weights.base import dense, is_compressed

FORMATS = {
    **{"weight": "", "type": "", "shape": "", "bits": ".2f", "density": ".3f", "raw_bytes": ",", "bytes": ","},
    **{"bits_per_parameter": ".3f", "entropy_bytes": ",.0f", "ratio": ".4f", "coding": ""},
}
"""bits: of a stored entry before coding. density: stored entries of all. raw_bytes: of the parts before coding.
entropy_bytes: what the parts' symbols would take if none told anything of another. ratio: bytes by that."""

SHARED = "shared"
"""The coding of an array that stands in the file already, for a leaf before; it takes no bytes."""


class Contents(NamedTuple):
    """What is in a file.

    Attributes:
      info: what it says of its network.
      table: a row for each weight and one for the whole.
      programs: by name, how long they are and what they take.
    """

    info: Info
    table: Table
    programs: dict[str, str]


def contents(path: str | Path) -> Contents:
    """What a file holds, weight by weight; everything in it is read and checked.

    Args:
      path: of a file of `nnc.save`.

    Raises:
      ArtifactError: for a file that is damaged.
    """
    rows: list[dict[str, Any]] = []
    with opened(path) as file:
        arrays, sections = file.arrays(), iter(file.sections)
        take = file.taking(arrays)
        parts: list[tuple[Section, np.ndarray]] = []

        def array(content: dict[str, Any]) -> np.ndarray:
            again = content.get("same")
            section = next(sections)[1] if again is None else file.sections[again][1]
            shared: dict[str, Any] = {} if again is None else {"coding": SHARED, "size_bytes": 0}
            parts.append((dataclasses.replace(section, **shared), take(content)))
            return parts[-1][1]

        def finish(path: str, leaf: Any) -> Any:
            rows.append({"weight": path} | _row(leaf, parts))
            parts.clear()

        tree.from_dict(file.node, array, finish)
        for name, program in file.programs.items():
            for place, each in enumerate(program.arrays):
                finish(f"{name}/constants/{place}", array(each))
        for _ in arrays:
            pass
        info = file.info
    rows.append(_total(rows, Path(path).stat().st_size))
    programs = {name: program.description for name, program in file.programs.items()}
    return Contents(info, Table(f"{path}", FORMATS, rows), programs)


def _row(leaf: Any, parts: Sequence[tuple[Section, np.ndarray]]) -> dict[str, Any]:
    shape = np.shape(leaf)
    size = math.prod(shape)
    main, values = max(parts, key=lambda part: part[1].size)
    stored = main.symbols.entries(values) if main.symbols else values.size
    new = [(section, array) for section, array in parts if section.coding != SHARED]
    entropy = sum(entropy_bytes(section, array)[0] for section, array in new)
    size_bytes, raw = sum(section.size_bytes for section, _ in new), sum(array.nbytes for _, array in new)
    return {
        "type": leaf.nesting if is_compressed(leaf) else str(getattr(leaf, "dtype", type(leaf).__name__)),
        "shape": str(list(shape)),
        "bits": 8 * main.decoded_bytes / stored if stored else None,
        "density": _density(dense(leaf)) if size else None,
        "raw_bytes": raw,
        "bytes": size_bytes,
        "bits_per_parameter": 8 * size_bytes / size if size else None,
        "entropy_bytes": entropy,
        "ratio": size_bytes / entropy if entropy else None,
        "coding": "+".join(dict.fromkeys(section.coding for section, _ in parts)),
    }


def _density(leaf: Any) -> float | None:
    return None if is_key(leaf) else np.count_nonzero(np.asarray(leaf)) / np.size(leaf)


def _total(rows: Sequence[dict[str, Any]], file_bytes: int) -> dict[str, Any]:
    sums = {name: sum(row[name] for row in rows) for name in ("raw_bytes", "bytes", "entropy_bytes")}
    entries = sum(8 * row["bytes"] / row["bits_per_parameter"] for row in rows if row["bits_per_parameter"])
    total = {"weight": "whole file", "type": "", "shape": "", "coding": "", "bits": None, "density": None} | sums
    ratio = file_bytes / sums["entropy_bytes"] if sums["entropy_bytes"] else None
    return total | {"bytes": file_bytes, "bits_per_parameter": 8 * file_bytes / max(entries, 1), "ratio": ratio}
