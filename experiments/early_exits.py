"""Networks with early exits: accuracy against the multiply-accumulates of an image, and images/s, over thresholds.

python experiments/train.py --model=vgg16_exits --init=vgg16.pth --epochs=3 --learning_rate=0.01 --workdir=runs/exits
python experiments/early_exits.py --networks vgg16_exits=runs/exits vgg16=vgg16.pth --dataset=cifar10

Images are tested in batches; those that are certain leave. A network without exits is a line in the picture.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Sequence
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
from nncompress_jax.commands.timing import fastest
from nncompress_jax.exits import certainties, exits_taken
from nncompress_jax.losses import last
from nncompress_jax.measurements import Measurements
from nncompress_jax.report import plots
from nncompress_jax.table import Table
from nncompress_jax.training.setup import calibration_batches, preprocessing
from nncompress_jax.types import Apply, Method

FORMATS = {
    **{"network": "", "weights": "", "threshold": "", "accuracy": ".4f", "share": ".3f"},
    **{"leave": "", "images_per_second": ",.0f", "speedup": ".2f"},
}
"""threshold: of all exits; "drop 0.005": one for each, found on training images, for that drop of accuracy. share: mean
multiply-accumulates of an image over those of the whole network. leave: percent of the images at each exit. speedup:
images/s over those of the whole network, without its exits, in the same run."""

STATIC = nnc.quantize(ranges=nnc.calibration.mean_squared_error)
WEIGHTS: dict[str, Method | None] = {"float": None, "8 bits": STATIC}
DEPENDS = ("thresholds", "drops", "chosen_on", "batch_size", "timed", "rounds")
"""Options that the figures depend on."""

BATCH = 250
"""Images a call where all outputs are computed."""

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
    drops: tuple[float, ...] = (0.005,)
    """Of accuracy, for which a threshold is found for each exit."""
    chosen_on: int = 5000
    """Training images by which those are found."""
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
        subject |= {name: getattr(options, name) for name in DEPENDS}
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
    preprocess = preprocessing(dataset)
    every = jax.jit(nnc.inject(lambda variables, inputs: jax.tree.leaves(apply(variables, inputs)), fast=True))

    def outputs_of(inputs: np.ndarray) -> list[np.ndarray]:
        pieces = [every(variables, inputs[start : start + BATCH]) for start in range(0, len(inputs), BATCH)]
        return [np.concatenate(exit) for exit in zip(*pieces, strict=True)]

    images, labels = dataset.test.read(np.arange(len(dataset.test)))
    inputs = np.asarray(preprocess(jnp.asarray(images)))
    outputs = outputs_of(inputs)
    macs, given = [1], dict[float | str | None, Any]({None: None})
    if len(outputs) > 1:
        macs = nnc.exit_macs(apply, variables, inputs[:1])
        rows = np.sort(np.random.default_rng(0).permutation(len(dataset.train))[: options.chosen_on])
        known, classes = dataset.train.read(rows)
        known_outputs = outputs_of(np.asarray(preprocess(jnp.asarray(known))))
        given |= {threshold: threshold for threshold in options.thresholds}
        for drop in options.drops:
            given[f"drop {drop:g}"] = nnc.exit_thresholds(known_outputs, classes, macs, max_drop=drop)
    found = [{"threshold": name} | tested(threshold, outputs, labels, macs) for name, threshold in given.items()]

    whole = jax.jit(nnc.inject(lambda variables, inputs: last(apply(variables, inputs)), fast=True))
    early = nnc.early_exit(apply, variables, 2.0)
    runs = [
        functools.partial(whole, variables) if threshold is None else functools.partial(early, thresholds=threshold)
        for threshold in given.values()
    ]
    first, *_ = rates = timed(runs, inputs[: options.timed], options)
    for row, rate in zip(found, rates, strict=True):
        row |= {"images_per_second": rate, "speedup": rate / first if rate and first else None}
    return {"rows": found}


def tested(thresholds: Any, outputs: list[np.ndarray], labels: np.ndarray, macs: list[int]) -> dict[str, Any]:
    """Accuracy and mean multiply-accumulates over all test images; thresholds None: of the whole network."""
    least = np.broadcast_to(2.0 if thresholds is None else thresholds, len(outputs) - 1)
    exits = exits_taken(certainties(outputs), least)
    classes = np.stack([logits.argmax(-1) for logits in outputs])[exits, np.arange(len(labels))]
    shares = np.bincount(exits, minlength=len(macs)) / len(labels)
    return {
        "accuracy": float((classes == labels).mean()),
        "share": float(shares @ macs) / macs[-1],
        "leave": " ".join(f"{100 * share:.0f}" for share in shares),
    }


def timed(runs: Sequence[Callable[[Any], Any]], inputs: Any, options: Options) -> list[float | None]:
    """Images/s of each, in turns."""
    if not options.rounds or not len(inputs):
        return [None] * len(runs)

    def through(run: Callable[[Any], Any]) -> None:
        for start in range(0, len(inputs), options.batch_size):
            jax.block_until_ready(run(inputs[start : start + options.batch_size]))

    every = [functools.partial(through, run) for run in runs]
    return [len(inputs) / seconds for seconds in fastest(every, turns=options.rounds)]


if __name__ == "__main__":
    cli.run(main, Options)
