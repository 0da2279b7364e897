"""Networks with early exits: accuracy against the multiply-accumulates of an image, and images/s, over thresholds.

python experiments/train.py --model=vgg16_exits --init=vgg16.pth --epochs=3 --learning_rate=0.01 --workdir=runs/exits
python experiments/early_exits.py --networks vgg16_exits=runs/exits vgg16=vgg16.pth --dataset=cifar10

Images are tested in batches; those that are certain leave. A network without exits is a line in the picture.
"""

import dataclasses
import functools
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import nncompress_jax as nnc
from nncompress_jax import checksums
from nncompress_jax.commands import cli
from nncompress_jax.commands.initial import Images, Trained, named
from nncompress_jax.losses import last
from nncompress_jax.measurements import Measurements
from nncompress_jax.report import plots
from nncompress_jax.table import Table
from nncompress_jax.training.setup import calibration_batches, preprocessing
from nncompress_jax.types import Apply, Method

FORMATS = {
    **{"network": "", "weights": "", "threshold": ".4g", "accuracy": ".4f", "share": ".3f"},
    **{"leave": "", "images_per_second": ",.0f", "speedup": ".2f"},
}
"""share: mean multiply-accumulates of an image over those of the whole network. leave: percent of the images at each
exit. speedup: images/s over those of the whole network, without its exits, in the same run."""

STATIC = nnc.quantize(ranges=nnc.calibration.mean_squared_error)
WEIGHTS: dict[str, Method | None] = {"float": None, "8 bits": STATIC}
BATCH = 250
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 2.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which networks, and how they are run."""

    images: tyro.conf.OmitArgPrefixes[Images]
    networks: tuple[str, ...]
    """MODEL=WEIGHTS: a network by name, and its workdir or file of weights."""
    weights: tuple[str, ...] = ("float", "8 bits")
    """As which the network runs."""
    thresholds: tuple[float, ...] = THRESHOLDS
    """Probability from which on an image leaves; above 1: none does before the end."""
    batch_size: int = 256
    """Images that begin together."""
    timed: int = 1024
    """Test images whose time is taken; 0: none."""
    rounds: int = 3
    """In turns; the fastest counts."""
    out: Path = Path("runs/early_exits")
    """Folder for table and picture; what is measured is written at once and not repeated."""


def main(options: Options) -> None:
    """Runs, prints and draws."""
    if unknown := set(options.weights) - WEIGHTS.keys():
        raise nnc.InputError(f"weights {', '.join(sorted(unknown))}: expected some of {', '.join(WEIGHTS)}")
    measurements = Measurements(options.out / "measurements.jsonl")
    rows: list[dict[str, Any]] = []
    for trained in named(options.networks, options.images):
        subject: dict[str, Any] = {"network": trained.model, "dataset": trained.dataset.name}
        subject |= {"init": checksums.of_description(checksums.of_leaves(trained.variables))}
        subject |= {name: getattr(options, name) for name in ("thresholds", "batch_size", "timed", "rounds")}
        for weights in options.weights:
            measure = functools.partial(measured, trained, WEIGHTS[weights], options)
            found = measurements.of(subject | {"weights": weights}, measure)
            rows += [{"network": trained.model, "weights": weights} | row for row in found["rows"]]
            print(f"{trained.model}, {weights}: {len(found['rows'])} points", flush=True)
    name = f"early_exits-{trained.dataset.name}"
    table = Table(f"Early exits on the test split of {trained.dataset.name}", FORMATS, rows)
    table.print()
    table.write(options.out, name)
    plots.early_exits(rows, table.title, options.out / f"{name}.png")


def measured(trained: Trained, method: Method | None, options: Options) -> dict[str, Any]:
    """A row for each threshold; one row, if the network has no exits."""
    warnings.simplefilter("ignore")
    apply: Apply = trained.network.apply
    variables, dataset = trained.variables, trained.dataset
    if method is not None:
        batches = calibration_batches(dataset, 8, min(128, len(dataset.train) // 8))
        variables = nnc.compress(variables, method, apply=apply, batches=batches)
    images, labels = dataset.test.read(np.arange(len(dataset.test)))
    inputs = np.asarray(preprocessing(dataset)(jnp.asarray(images)))

    every = jax.jit(nnc.inject(lambda variables, inputs: jax.tree.leaves(apply(variables, inputs)), fast=True))
    pieces = [every(variables, inputs[start : start + BATCH]) for start in range(0, len(inputs), BATCH)]
    outputs = [np.concatenate(exit) for exit in zip(*pieces, strict=True)]
    has_exits = len(outputs) > 1
    macs = nnc.exit_macs(apply, variables, inputs[:1]) if has_exits else [1]
    thresholds = [None, *(options.thresholds if has_exits else ())]
    rows = [tested(threshold, outputs, labels, macs) for threshold in thresholds]

    whole = jax.jit(nnc.inject(lambda variables, inputs: last(apply(variables, inputs)), fast=True))
    early = nnc.early_exit(apply, variables, 2.0)
    runs: dict[float | None, Callable[[Any], Any]] = {
        threshold: functools.partial(whole, variables)
        if threshold is None
        else functools.partial(early, thresholds=threshold)
        for threshold in thresholds
    }
    first, *_ = rates = timed(runs, inputs[: options.timed], options)
    for row, rate in zip(rows, rates, strict=True):
        row |= {"images_per_second": rate, "speedup": rate / first if rate and first else None}
    return {"rows": rows}


def tested(threshold: float | None, outputs: list[np.ndarray], labels: np.ndarray, macs: list[int]) -> dict[str, Any]:
    """Accuracy and mean multiply-accumulates over all test images; threshold None: of the whole network."""
    certainty = np.stack([np.asarray(jax.nn.softmax(logits).max(-1)) for logits in outputs])
    leaves = np.full(certainty.shape, threshold is not None) & (certainty >= (threshold or 0))
    leaves[-1] = True
    exits = leaves.argmax(0)
    classes = np.stack([logits.argmax(-1) for logits in outputs])[exits, np.arange(len(labels))]
    shares = np.bincount(exits, minlength=len(macs)) / len(labels)
    return {
        "threshold": threshold,
        "accuracy": float((classes == labels).mean()),
        "share": float(shares @ macs) / macs[-1],
        "leave": " ".join(f"{100 * share:.0f}" for share in shares),
    }


def timed(runs: Mapping[float | None, Callable[[Any], Any]], inputs: Any, options: Options) -> list[float | None]:
    """Images/s of each, in turns; all is compiled before."""
    seconds: dict[float | None, list[float]] = {threshold: [] for threshold in runs}
    for turn in range(options.rounds + 1 if len(inputs) else 0):
        for threshold, run in runs.items():
            begin = time.perf_counter()
            for start in range(0, len(inputs), options.batch_size):
                jax.block_until_ready(run(inputs[start : start + options.batch_size]))
            if turn:
                seconds[threshold].append(time.perf_counter() - begin)
    return [len(inputs) / min(each) if each else None for each in seconds.values()]


if __name__ == "__main__":
    cli.run(main, Options)
