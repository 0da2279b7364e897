"""Tests the networks that are kept in a folder, and compares their accuracies with those of its table.

python experiments/results.py --datasets digits
python experiments/results.py --folder=results --data_dir=/data
python experiments/results.py --speeds
"""

import dataclasses
import functools
from pathlib import Path

import nncompress_jax as nnc
from nncompress_jax.commands import cli, results
from nncompress_jax.data import sources
from nncompress_jax.table import Table

FORMATS = results.FORMATS | {"tested": ".2%"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which of them."""

    folder: Path = Path("results")
    """With files and table, as experiments/rate.py --keep= writes them."""
    datasets: tuple[str, ...] = ()
    """Only networks that were tested on these; by default all."""
    speeds: bool = False
    """Measures how fast each is, and writes that into the table."""
    data_dir: str | None = None
    """Folder of prepared data sets; by default that of tensorflow-datasets."""


def main(options: Options) -> None:
    """Prints the table with the accuracies that are found; an error names those that are others."""
    known = [row for row in results.rows(options.folder) if row["dataset"] in (options.datasets or (row["dataset"],))]
    if not known:
        raise nnc.InputError(f"{options.folder}: no network of these data sets; keep one by experiments/rate.py --keep")
    load = functools.cache(functools.partial(sources.load, data_dir=options.data_dir))
    if options.speeds:
        known = [row | results.speeds(options.folder / row["file"], load(row["dataset"])) for row in known]
        for row in known:
            results.keep(options.folder, options.folder / row["file"], row)
    found = [row | results.tested(options.folder / row["file"], load(row["dataset"])) for row in known]
    Table(results.TITLE, FORMATS, found).print()
    if wrong := [row["file"] for row in found if not results.fits(row, row)]:
        raise nnc.InputError(f"{', '.join(wrong)}: another accuracy, or other operations, than the table's")


if __name__ == "__main__":
    cli.run(main, Options)
