"""Accuracy against the bytes of a file, without training: one budget over all weights, and other ways to make it small.

python experiments/front.py --networks vgg16=vgg16.pth vgg16ds=vgg16ds.pth --dataset=cifar10
"""

import dataclasses
import functools
import io
import lzma
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

import nncompress_jax as nnc
from nncompress_jax import checksums
from nncompress_jax.commands import cli
from nncompress_jax.commands.initial import Images, Trained, named
from nncompress_jax.measurements import Measurements
from nncompress_jax.methods.layout import context_of
from nncompress_jax.methods.rounding import Rounding
from nncompress_jax.report import plots
from nncompress_jax.search.reference import Reference
from nncompress_jax.search.stitching import Stitching, file_bytes
from nncompress_jax.table import Table
from nncompress_jax.training.evaluation import evaluate
from nncompress_jax.training.setup import calibration_batches, preprocessing
from nncompress_jax.tree import stored_bytes

FORMATS = {
    **{"network": "", "method": "", "setting": "", "bytes": ",", "share": ".2%"},
    **{"accuracy": ".2%", "minutes": ".1f"},
}
"""share: of the float network's bytes. minutes: of compression, without what was known from the budget before."""

BATCH_SIZE = 128
"""Of training images at most."""

Make = Callable[[Any, dict[str, Any], Path], Any]
"""Of (variables, apply and batches, a file of what is known) the compressed ones."""


def by_auto(variables: Any, options: dict[str, Any], file: Path, **budget: Any) -> Any:
    """The best for a budget."""
    return nnc.compress(variables, nnc.auto(file=file, **budget), **options)


def budgets(rounding: Rounding, macs: float | None = None) -> dict[str, Make]:
    """By their names."""
    shares = (0.1, 0.05, 0.03, 0.02, 0.01, 0.005)
    return {f"{share:.1%}": functools.partial(by_auto, bytes=share, rounding=rounding, macs=macs) for share in shares}


def by_bits(variables: Any, options: dict[str, Any], file: Path, *, bits: int) -> Any:
    """The same number of bits for all weights, rounded so that outputs stay closest."""
    return nnc.compress(variables, nnc.quantize(bits=bits, rounding="second_order"), **options)


def by_noise(variables: Any, options: dict[str, Any], file: Path, *, bits: float) -> Any:
    """Bits by the noise that rounding makes, rounded to nearest, statistics re-estimated."""
    reference = Reference(variables, context_of(variables, options["apply"], options["batches"]))
    return Stitching("nearest").finished(nnc.mixed_bits(bits=bits)(variables, reference.context), reference)


def by_one_step(variables: Any, options: dict[str, Any], file: Path, *, factor: float) -> Any:
    """The same step for all weights, so often their root mean square; rounded to nearest, statistics re-estimated."""
    matrices = [np.ravel(leaf) for leaf in jax.tree.leaves(variables) if np.ndim(leaf) > 1]
    step = factor * float(np.sqrt(np.mean(np.square(np.concatenate(matrices)))))
    reference = Reference(variables, context_of(variables, options["apply"], options["batches"]))
    return Stitching("nearest").finished(nnc.quantize(step=step)(variables, reference.context), reference)


def by_deep_compression(variables: Any, options: dict[str, Any], file: Path, *, second: bool) -> Any:
    """90 % sparse, then 16 clusters; the recipe is made for training in between."""
    prune = nnc.prune(sparsity=0.9, scope="global", compensate=second)
    cluster = nnc.cluster(bits=4, rounding="second_order" if second else "nearest")
    return nnc.compress(variables, nnc.chain(prune, cluster), **options)


def int8(variables: Any, options: dict[str, Any], file: Path) -> Any:
    """8 bits, as most tools have them."""
    return nnc.compress(variables, nnc.quantize(), **options)


def as_it_is(variables: Any, options: dict[str, Any], file: Path) -> Any:
    """Not compressed."""
    return variables


WAYS: dict[str, dict[str, Make]] = {
    "auto": budgets("second_order"),
    "auto-all-channels": budgets("second_order", macs=1.0),
    "nearest-all-channels": budgets("nearest", macs=1.0),
    "half-macs": {"": functools.partial(by_auto, macs=0.5)},
    "half-macs-auto": {
        f"{share:.1%}": functools.partial(by_auto, macs=0.5, bytes=share) for share in (0.02, 0.01, 0.005)
    },
    "whole-bits": {f"{bits} bits": functools.partial(by_bits, bits=bits) for bits in (8, 4, 3, 2)},
    "mixed-bits": {f"{bits} bits": functools.partial(by_noise, bits=bits) for bits in (6, 4, 3, 2.5, 2)},
    "one-step": {
        f"{factor} rms": functools.partial(by_one_step, factor=factor) for factor in (0.25, 0.5, 1, 1.5, 2, 3, 4)
    },
    "deep-compression": {
        "untrained": functools.partial(by_deep_compression, second=False),
        "second order": functools.partial(by_deep_compression, second=True),
    },
    "int8-xz": {"8 bits": int8},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which networks, compressed in which ways."""

    images: tyro.conf.OmitArgPrefixes[Images]
    networks: tuple[str, ...]
    """MODEL=WEIGHTS: a network by name, and its workdir or .pth file."""
    ways: tuple[str, ...] = tuple(WAYS)
    """How they are made small."""
    settings: tuple[str, ...] = ()
    """Only these of each way, as 1.0%; by default all."""
    batches: int = 8
    """Of 128 training images, that the methods see."""
    out: Path = Path("runs/front")
    """Folder for table and picture; what is measured is written at once and not repeated."""


def main(options: Options) -> None:
    """Compresses, saves, tests and draws."""
    if unknown := set(options.ways) - WAYS.keys():
        raise nnc.InputError(f"ways {', '.join(sorted(unknown))}: expected some of {', '.join(WAYS)}")
    known = {setting for way in options.ways for setting in WAYS[way]}
    if unknown := set(options.settings) - known:
        raise nnc.InputError(f"settings {', '.join(sorted(unknown))}: expected some of {', '.join(sorted(known))}")
    rows: list[dict[str, Any]] = []
    for trained in named(options.networks, options.images):
        for row in measured(trained, options):
            rows.append(row)
            print(Table("", FORMATS, [row]).markdown().splitlines()[-1], flush=True)
    name = f"front-{trained.dataset.name}"
    table = Table(f"Accuracy on the test split of {trained.dataset.name}, without training", FORMATS, rows)
    table.print()
    table.write(options.out, name)
    plots.front(rows, table.title, options.out / f"{name}.png")


def measured(trained: Trained, options: Options) -> Iterator[dict[str, Any]]:
    """A row for the float network, and one for each setting of each way."""
    warnings.simplefilter("ignore")
    measurements = Measurements(options.out / "measurements.jsonl")
    network, variables, dataset = trained.network, trained.variables, trained.dataset
    images = calibration_batches(dataset, options.batches, min(BATCH_SIZE, len(dataset.train) // options.batches))
    subject: dict[str, Any] = {
        "network": trained.model,
        "dataset": dataset.name,
        "init": checksums.of_description(checksums.of_leaves(variables)),
        "batches": options.batches,
    }

    def figures(way: str, make: Make) -> dict[str, Any]:
        start = time.monotonic()
        given = {"apply": network.apply, "batches": images}
        file = options.out / f"{trained.model}.search.jsonl"
        small = make(variables, given, file)
        minutes = (time.monotonic() - start) / 60
        result = evaluate(network.apply, small, dataset.test, preprocessing(dataset), description=f"testing {way}")
        return {"bytes": SIZES.get(way, file_bytes)(small), "accuracy": result.accuracy, "minutes": minutes}

    ways = {"float": {"": as_it_is}} | {way: WAYS[way] for way in options.ways}
    for way, setting, make in ((way, *each) for way, settings in ways.items() for each in settings.items()):
        if options.settings and way != "float" and setting not in options.settings:
            continue
        one_of = subject | {"method": way, "setting": setting}
        try:
            found = measurements.of(one_of, functools.partial(figures, way, make))
        except nnc.InputError as error:  # a budget that is below what is possible
            print(f"{trained.model}, {way}, {setting}: {error}")
            continue
        share = found["bytes"] / stored_bytes(variables)
        yield {"network": trained.model, "method": way, "setting": setting, "share": share} | found


def in_xz(variables: Any) -> int:
    """Bytes of all arrays, one after the other, in xz."""
    raw = io.BytesIO()
    for leaf in jax.tree.leaves(variables):
        raw.write(np.asarray(leaf).tobytes())
    return len(lzma.compress(raw.getvalue(), preset=9))


SIZES: dict[str, Callable[[Any], int]] = {"float": stored_bytes, "int8-xz": in_xz}
"""Bytes; of others, those of the file."""


if __name__ == "__main__":
    cli.run(main, Options)
