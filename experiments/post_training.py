"""Compression without training: the plain methods and those of the second order, side by side.

python experiments/post_training.py --networks vgg16=vgg16.pth vgg16ds=vgg16ds.pth --dataset=cifar10
python experiments/post_training.py --networks vgg16ds=runs/seed0 --dataset=digits --settings "2 bits" "2:4"
"""

import ctypes
import dataclasses
import gc
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro

import nncompress_jax as nnc
from nncompress_jax import checksums
from nncompress_jax.commands import cli
from nncompress_jax.commands.initial import Images, Trained, named
from nncompress_jax.data import sources
from nncompress_jax.data.augment import random_crop, random_flip
from nncompress_jax.measurements import Measurements
from nncompress_jax.table import Table
from nncompress_jax.training.evaluation import evaluate
from nncompress_jax.training.setup import calibration_batches, preprocessing
from nncompress_jax.types import Method

FORMATS = {
    **{"network": "", "setting": "", "plain": ".2%", "plain_reestimated": ".2%"},
    **{"second_order": ".2%", "second_order_reestimated": ".2%", "minutes": ".1f", "gigabytes": ".1f"},
}
"""Minutes and peak memory are those of the second order."""

BATCHES, BATCH_SIZE = 8, 128
"""Of training images at most."""


def quantized(bits: int) -> Callable[[bool], Method]:
    """Weights of so many bits, inputs of 8."""
    return lambda second: nnc.quantize(bits=bits, rounding="second_order" if second else "nearest")


def pruned(**options: Any) -> Callable[[bool], Method]:
    """The least important weights taken away."""
    return lambda second: nnc.prune(**options, compensate=second)


def pruned_and_quantized(sparsity: float, bits: int) -> Callable[[bool], Method]:
    """Both, one after the other."""
    prune, quantize = pruned(sparsity=sparsity, scope="global"), quantized(bits)
    return lambda second: nnc.chain(prune(second), quantize(second))


SETTINGS: Mapping[str, Callable[[bool], Method]] = {
    **{f"{bits} bits": quantized(bits) for bits in (4, 3, 2)},
    **{f"{share} % sparse": pruned(sparsity=share / 100, scope="global") for share in (80, 90, 95)},
    "2:4": pruned(pattern=(2, 4)),
    "80 % sparse, 4 bits": pruned_and_quantized(0.8, 4),
    **{"signs": lambda second: nnc.binarize(rounding="second_order" if second else "nearest")},
    "16 clusters": lambda second: nnc.cluster(bits=4, rounding="second_order" if second else "nearest"),
    "half of the MACs in channels": lambda second: nnc.prune_channels(macs=0.5, reconstruct=second),
    "half of the MACs in factors": lambda second: nnc.factorize(macs=0.5, compensate=second),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which networks, compressed how."""

    images: tyro.conf.OmitArgPrefixes[Images]
    networks: tuple[str, ...]
    """MODEL=WEIGHTS: a network by name, and its workdir or .pth file."""
    settings: tuple[str, ...] = tuple(SETTINGS)
    """What is done to them."""
    out: Path = Path("runs/post_training")
    """Folder for the table (Markdown, CSV, JSON); what is measured is written at once and not repeated."""


def main(options: Options) -> None:
    """Compresses and tests."""
    if unknown := set(options.settings) - SETTINGS.keys():
        raise nnc.InputError(f"settings {', '.join(sorted(unknown))}: expected some of {', '.join(SETTINGS)}")
    measurements = Measurements(options.out / "measurements.jsonl")
    rows: list[dict[str, Any]] = []
    for trained in named(options.networks, options.images):
        for setting in ("float", *options.settings):
            row: dict[str, Any] = dict.fromkeys(FORMATS) | {"network": trained.model, "setting": setting}
            for kind in ("plain",) if setting == "float" else ("plain", "second_order"):
                found = _measured_once(measurements, trained, setting, kind)
                row |= {kind: found["accuracy"], f"{kind}_reestimated": found["reestimated"]}
                row |= {name: found[name] for name in ("minutes", "gigabytes")} if kind == "second_order" else {}
            rows.append(row)
            print(Table("", FORMATS, [row]).markdown().splitlines()[-1], flush=True)
    name = trained.dataset.name
    title = f"Accuracy on the test split of {name}, up to {BATCHES * BATCH_SIZE} images for calibration"
    table = Table(title, FORMATS, rows)
    table.print()
    table.write(options.out, f"post_training-{name}")


def _measured_once(measurements: Measurements, trained: Trained, setting: str, kind: str) -> dict[str, Any]:
    subject = {"network": trained.model, "dataset": trained.dataset.name, "setting": setting, "kind": kind}
    init = {"init": checksums.of_description(checksums.of_leaves(trained.variables))}
    return measurements.of(subject | init, lambda: measured(trained, setting, kind == "second_order"))


def measured(trained: Trained, setting: str, second: bool) -> dict[str, Any]:
    """Accuracies as it is and with re-estimated statistics, minutes of compression, and peak memory in 10^9 bytes."""
    warnings.simplefilter("ignore")
    network, variables, dataset = trained.network, trained.variables, trained.dataset
    images = calibration_batches(dataset, BATCHES, min(BATCH_SIZE, len(dataset.train) // BATCHES))
    options: dict[str, Any] = {"apply": network.apply, "batches": images}
    _reset_peak()
    start = time.monotonic()
    if setting != "float":
        variables = nnc.compress(variables, SETTINGS[setting](second), **options)
    minutes = (time.monotonic() - start) / 60
    peak = _peak()

    def accuracy(variables: Any) -> float:
        preprocess, description = preprocessing(dataset), f"testing {setting}"
        return evaluate(network.apply, variables, dataset.test, preprocess, description=description).accuracy

    options["batches"] = augmented(dataset, images)
    reestimated = accuracy(nnc.compress(variables, nnc.reestimate, **options))
    return {"accuracy": accuracy(variables), "reestimated": reestimated, "minutes": minutes, "gigabytes": peak}


def augmented(dataset: sources.Dataset, batches: Sequence[jax.Array]) -> list[jax.Array]:
    """As training sees images: its crops and flips are in the statistics of batch normalization."""
    black = -jnp.asarray(dataset.mean, jnp.float32) / jnp.asarray(dataset.deviation, jnp.float32)

    def augment(key: jax.Array, batch: jax.Array) -> jax.Array:
        crop, flip = jax.random.split(key)
        cropped = random_crop(crop, batch - black) + black
        return random_flip(flip, cropped) if dataset.flips else cropped

    return [augment(jax.random.key(turn), batch) for turn, batch in enumerate(batches)]


PROCESS = Path("/proc/self")


def _reset_peak() -> None:
    """Of this process's memory: what is free is given back, and from here on it counts anew. Linux alone has that."""
    if PROCESS.exists():
        gc.collect()
        jax.clear_caches()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        (PROCESS / "clear_refs").write_text("5")


def _peak() -> float | None:
    """In 10^9 bytes, with all that was in memory before."""
    if not PROCESS.exists():
        return None
    lines = (PROCESS / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e9


if __name__ == "__main__":
    cli.run(main, Options)
