"""Static 8 bits without data: ranges from synthetic images, beside those from training images and from noise.

python experiments/data_free.py --networks vgg16=vgg16.pth vgg16ds=vgg16ds.pth --dataset=cifar10
python experiments/data_free.py --networks vgg16ds=runs/seed0 --dataset=digits --shift=0
"""

import dataclasses
import functools
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro

import nncompress_jax as nnc
from nncompress_jax import checksums
from nncompress_jax.commands import cli
from nncompress_jax.commands.initial import Images, Trained, named
from nncompress_jax.measurements import Measurements
from nncompress_jax.table import Table
from nncompress_jax.training.evaluation import evaluate
from nncompress_jax.training.setup import calibration_batches, preprocessing
from nncompress_jax.types import Array, Method

FORMATS = {"network": "", "float": ".2%", "real": ".2%", "synthetic": ".2%", "noise": ".2%", "minutes": ".1f"}
"""Accuracies; minutes are those that the synthetic images took."""

BATCH_SIZE = 128
"""Of images for calibration."""

STATIC = nnc.quantize(ranges=nnc.calibration.mean_squared_error)
SECOND_ORDER = nnc.quantize(bits=4, rounding="second_order", ranges=nnc.calibration.mean_squared_error)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which networks, and how the images are made."""

    images: tyro.conf.OmitArgPrefixes[Images]
    networks: tuple[str, ...]
    """MODEL=WEIGHTS: a network by name, and its workdir or .pth file."""
    second_order: bool = False
    """Weights of 4 bits by second-order rounding on the same images, and not of 8 by the nearest."""
    real: int = 1024
    """Training images for calibration."""
    count: int = 256
    """Synthetic images, and images of noise."""
    steps: int = 60
    batch_size: int = 128
    smoothness: float = 0.1
    shift: int = 1
    seed: int = 0
    """As of `nnc.synthetic_images`."""
    out: Path = Path("runs/data_free")
    """Folder for the table (Markdown, CSV, JSON); what is measured is written at once and not repeated."""


def main(options: Options) -> None:
    """Makes images, calibrates and tests."""
    measurements = Measurements(options.out / "measurements.jsonl")
    rows: list[dict[str, Any]] = []
    for trained in named(options.networks, options.images):
        row: dict[str, Any] = {"network": trained.model}
        for kind in KINDS:
            found = _measured_once(measurements, trained, kind, options)
            row |= {kind: found["accuracy"]} | ({"minutes": found["minutes"]} if kind == "synthetic" else {})
        rows.append(row)
        print(Table("", FORMATS, [row]).markdown().splitlines()[-1], flush=True)
    name, weights = trained.dataset.name, "4 bits, second order" if options.second_order else "8 bits"
    title = f"Accuracy on the test split of {name}, weights of {weights}, static ranges of 8-bit activations"
    table = Table(title, FORMATS, rows)
    table.print()
    table.write(options.out, f"data_free-{name}{'-second_order' if options.second_order else ''}")


def _measured_once(measurements: Measurements, trained: Trained, kind: str, options: Options) -> dict[str, Any]:
    subject: dict[str, Any] = {"network": trained.model, "dataset": trained.dataset.name, "kind": kind}
    subject |= {"init": checksums.of_description(checksums.of_leaves(trained.variables))}
    subject |= {name: getattr(options, name) for name in DEPENDS[kind]}
    return measurements.of(subject, functools.partial(measured, trained, kind, options))


def measured(trained: Trained, kind: str, options: Options) -> dict[str, Any]:
    """Accuracy with the ranges that these images give, and the minutes that it took to make them."""
    warnings.simplefilter("ignore")
    network, variables, dataset = trained.network, trained.variables, trained.dataset
    start = time.monotonic()
    batches = KINDS[kind](trained, options)
    minutes = (time.monotonic() - start) / 60
    if batches:
        method: Method = SECOND_ORDER if options.second_order else STATIC
        variables = nnc.compress(variables, method, apply=network.apply, batches=batches)
    found = evaluate(network.apply, variables, dataset.test, preprocessing(dataset), description=f"testing {kind}")
    return {"accuracy": found.accuracy, "minutes": minutes}


def none(trained: Trained, options: Options) -> list[Array]:
    """The network stays as it is."""
    return []


def real(trained: Trained, options: Options) -> list[Array]:
    """Training images."""
    size = min(BATCH_SIZE, options.real)
    return calibration_batches(trained.dataset, options.real // size, size)


def synthetic(trained: Trained, options: Options) -> list[Array]:
    """Images of the network's own."""
    shape = trained.dataset.train.image_shape
    given = {name: getattr(options, name) for name in ("steps", "batch_size", "smoothness", "shift", "seed")}
    return divided(nnc.synthetic_images(trained.network.apply, trained.variables, options.count, shape=shape, **given))


def noise(trained: Trained, options: Options) -> list[Array]:
    """Normal noise, of mean 0 and deviation 1 as normalized images."""
    shape = options.count, *trained.dataset.train.image_shape
    return divided(jax.random.normal(jax.random.key(options.seed), shape, jnp.float32))


def divided(images: Array) -> list[Array]:
    """Into batches of one size, or nearly so."""
    return [images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE)]


KINDS: dict[str, Callable[[Trained, Options], Sequence[Array]]] = {
    "float": none,
    "real": real,
    "synthetic": synthetic,
    "noise": noise,
}
DEPENDS = {
    "float": (),
    "real": ("second_order", "real"),
    "synthetic": ("second_order", "count", "steps", "batch_size", "smoothness", "shift", "seed"),
    "noise": ("second_order", "count", "seed"),
}
"""By kind, the options that its accuracy depends on."""


if __name__ == "__main__":
    cli.run(main, Options)
