"""Tests the networks that are kept in a folder, and compares their accuracies with those of its table.

python experiments/results.py --datasets digits
python experiments/results.py --folder=results --data_dir=/data
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax.numpy as jnp

import nncompress_jax as nnc
from nncompress_jax.commands import cli, results
from nncompress_jax.commands.served import opened
from nncompress_jax.data import sources
from nncompress_jax.table import Table
from nncompress_jax.training.evaluation import evaluate

FORMATS = results.FORMATS | {"tested": ".2%"}

TOLERANCE = 0.001
"""Of accuracy, and one image at least: floats are not the same to the last bit on all processors."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which of them."""

    folder: Path = Path("results")
    """With files and table, as experiments/rate.py --keep= writes them."""
    datasets: tuple[str, ...] = ()
    """Only networks that were tested on these; by default all."""
    data_dir: str | None = None
    """Folder of prepared data sets; by default that of tensorflow-datasets."""


def main(options: Options) -> None:
    """Prints the table with the accuracies that are found; an error names those that are others."""
    known = [row for row in results.rows(options.folder) if row["dataset"] in (options.datasets or (row["dataset"],))]
    if not known:
        raise nnc.InputError(f"{options.folder}: no network of these data sets; keep one by experiments/rate.py --keep")
    load = functools.cache(functools.partial(sources.load, data_dir=options.data_dir))
    found = [row | tested(options.folder / row["file"], load(row["dataset"])) for row in known]
    Table(results.TITLE, FORMATS, found).print()
    wrong = [
        row["file"]
        for row in found
        if abs(row["tested"] - row["accuracy"]) > max(TOLERANCE, 1.5 / row["images"])
        or abs(row["left"] - row["macs"]) > TOLERANCE
    ]
    if wrong:
        raise nnc.InputError(f"{', '.join(wrong)}: another accuracy, or other operations, than the table's")


def tested(file: Path, dataset: sources.Dataset) -> dict[str, Any]:
    """The accuracy of a file, on how many images, and the share of multiply-accumulates that is left."""
    apply, variables, info, preprocess = opened(file)
    result = evaluate(apply, variables, dataset.test, preprocess, description=f"testing {file.name}")
    image = jnp.zeros((1, *info.image_shape))
    macs, whole = (nnc.cost(apply, each, image).macs for each in (variables, nnc.decompress(variables)))
    return {"tested": result.accuracy, "images": len(dataset.test), "left": macs / whole}


if __name__ == "__main__":
    cli.run(main, Options)
