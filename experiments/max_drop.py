"""The smallest file that loses no more than so much accuracy: what is found, and what the test images say of it.

python experiments/max_drop.py --networks vgg16ds=vgg16ds.pth --dataset=cifar10 --max_drop=0.005
"""

import dataclasses
import functools
import time
import warnings
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import tyro

import nncompress_jax as nnc
from nncompress_jax import checksums
from nncompress_jax.commands import cli
from nncompress_jax.commands.initial import Images, Trained, named
from nncompress_jax.measurements import Measurements
from nncompress_jax.methods.rounding import Rounding
from nncompress_jax.search.auto import Found
from nncompress_jax.search.drop import measure_of, paired
from nncompress_jax.table import Table
from nncompress_jax.training.setup import preprocessing

FORMATS = {
    **{"network": "", "seed": "", "bytes": ",", "share": ".2%", "drop": ".2%", "at_most": ".2%"},
    **{"test_drop": ".2%", "held": "", "minutes": ".1f"},
}
"""drop, at_most: of accuracy, on training images that the search has not seen, and with a confidence of 95 %.
held: whether accuracy on the test split fell by no more than was allowed."""

BATCH_SIZE = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which networks, and how much they may lose."""

    images: tyro.conf.OmitArgPrefixes[Images]
    networks: tuple[str, ...]
    """MODEL=WEIGHTS: a network by name, and its workdir or .pth file."""
    max_drop: float = 0.005
    """The share of examples by which accuracy may fall."""
    seeds: int = 5
    """So often training images are drawn, for calibration and for the test of the search."""
    batches: int = 8
    """Of 128 training images, that are compressed for."""
    examples: int = 10_000
    """Other training images, on which accuracy is measured."""
    rounding: Rounding = "nearest"
    """As of `nnc.auto`."""
    macs: float | None = None
    """The share of multiply-accumulates that stays; by default channels are cut where files are better for it."""
    out: Path = Path("runs/max_drop")
    """Folder for the table; what is measured is written at once and not repeated."""


def main(options: Options) -> None:
    """Searches, and tests what was found."""
    measurements = Measurements(options.out / "measurements.jsonl")
    rows: list[dict[str, Any]] = []
    for trained in named(options.networks, options.images):
        name = trained.dataset.name
        subject: dict[str, Any] = {"network": trained.model, "dataset": name, "max_drop": options.max_drop}
        subject |= {option: getattr(options, option) for option in ("batches", "examples", "rounding", "macs")}
        subject |= {"init": checksums.of_description(checksums.of_leaves(trained.variables))}
        for seed in range(options.seeds):
            found = measurements.of(subject | {"seed": seed}, functools.partial(measured, trained, options, seed))
            rows.append({"network": trained.model, "seed": seed} | found)
            print(Table("", FORMATS, [rows[-1]]).markdown().splitlines()[-1], flush=True)
    title = f"max_drop={options.max_drop} on {name}, rounding {options.rounding}"
    table = Table(title, FORMATS, rows)
    table.print()
    table.write(options.out, f"max_drop-{name}-{options.rounding}")


def measured(trained: Trained, options: Options, seed: int) -> dict[str, Any]:
    """Size and drops of one search."""
    warnings.simplefilter("ignore")
    network, variables, dataset = trained.network, trained.variables, trained.dataset
    preprocess = preprocessing(dataset)
    rows = np.random.default_rng(seed).permutation(len(dataset.train))
    size = min(BATCH_SIZE, len(rows) // (2 * options.batches))
    given, others = np.split(rows[: options.batches * size + options.examples], [options.batches * size])

    def examples(split: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images, labels = split.read(np.sort(rows))
        return np.asarray(preprocess(jnp.asarray(images))), labels

    calibration, _ = examples(dataset.train, given)
    found: list[Found] = []
    method = nnc.auto(
        max_drop=options.max_drop,
        examples=examples(dataset.train, others),
        rounding=options.rounding,
        macs=options.macs,
        file=options.out / f"{trained.model}.{seed}.search.jsonl",
        report=found.append,
    )
    start = time.monotonic()
    small = nnc.compress(variables, method, apply=network.apply, batches=np.split(calibration, options.batches))
    minutes = (time.monotonic() - start) / 60
    right = measure_of(network.apply, *examples(dataset.test, np.arange(len(dataset.test))))
    test_drop, drop = paired(right(variables), right(small)).mean, found[0].drop
    assert drop is not None
    sizes = {"bytes": found[0].size_bytes, "share": found[0].share}
    drops = {"drop": drop.mean, "at_most": drop.most, "test_drop": test_drop}
    return sizes | drops | {"held": bool(test_drop <= options.max_drop), "minutes": minutes}


if __name__ == "__main__":
    cli.run(main, Options)
