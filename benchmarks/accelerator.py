"""Speed on a GPU or TPU: inference, training, the seconds to an accuracy, and whether int8 gives what the CPU gives.

python benchmarks/accelerator.py --json=gpu.json --dataset=cifar10 --target=0.9003
"""

import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
import numpy as np
import peers

import nncompress_jax as nnc
from nncompress_jax.commands import cli
from nncompress_jax.table import Table

CONTENDERS = {
    "inference": ["ours bfloat16", "ours", "ours int8", "ours int8 static", "linen", "torch bfloat16 compiled"],
    "training": ["ours bfloat16", "ours", "torch bfloat16 compiled", "torch bfloat16"],
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is timed."""

    networks: tuple[str, ...] = ("vgg16", "vgg16ds", "vgg16ds_stride")
    """By name."""
    batches: tuple[int, ...] = (1, 32, 128, 1024, 4096)
    """Images a call; training leaves out those below 128, unless there are no others."""
    tasks: tuple[str, ...] = ("inference", "training", "int8", "accuracy")
    """int8: its results beside the CPU's; accuracy: the seconds of training to --target."""
    contenders: tuple[str, ...] = ()
    """By default all; the first is compared with the others."""
    rounds: int = 3
    """Turns of each contender."""
    seconds: float = 1.0
    """Of a turn, at least."""
    dataset: str = "cifar10"
    """That accuracy is of."""
    data_dir: str | None = None
    """Folder of prepared data sets."""
    target: float = 0.9003
    """Accuracy on the test split, from 0 to 1; the default is the original project's VGG16 on CIFAR-10."""
    epochs: int = 30
    """Of the recipe `fast`, at most."""
    json: Path | None = None
    """Writes the figures here, with machine, versions and date."""


def main(options: Options) -> None:
    """Prints a table for each task. The devices are left to one process at a time."""
    unknown = set(options.tasks) - {*CONTENDERS, "int8", "accuracy"}
    if unknown:
        raise nnc.InputError(f"unknown task {min(unknown)!r}; choose of inference, training, int8, accuracy")
    turns = measure.Turns(options.rounds, options.seconds, together=False)
    demand = measure.demands(options.networks)
    peak, bandwidth = measure.matrix_peak("bfloat16", turns), measure.bandwidth(turns)
    results: dict[str, Any] = {"matrix_peak_bfloat16": peak, "bandwidth": bandwidth}
    results["floors"] = measure.floors(demand, peak, bandwidth)
    Table("at best", measure.FLOOR_FORMATS, results["floors"]).print()
    for task in [task for task in CONTENDERS if task in options.tasks]:
        large = [batch for batch in options.batches if batch >= 128] or options.batches
        rows = measure.rows(
            task,
            options.networks,
            options.batches if task == "inference" else large,
            options.contenders or CONTENDERS[task],
            operations={name: count * (1 if task == "inference" else 3) for name, (count, _) in demand.items()},
            peak=peak,
            turns=turns,
        )
        title = f"{task}; ratio: the first one's over this one's images/s; matrix peak {peak / 1e12:.2f} TFLOP/s"
        Table(title, measure.FORMATS, rows).print()
        results[task] = rows
    if "int8" in options.tasks:
        results["int8"] = integers(options)
    if "accuracy" in options.tasks:
        results["accuracy"] = accuracy(options)
    measure.write(options.json, **results)


def integers(options: Options) -> list[dict[str, Any]]:
    """The largest difference of logits between this device and the CPU, over their largest magnitude."""
    import jax

    rows = []
    images = peers.images(32)
    for network in options.networks:
        model = nnc.models.create(network, initialization="seed")
        variables = jax.device_get(jax.jit(model.init)(jax.random.key(0), images[:1]))
        small = nnc.compress(variables)
        logits = []
        for device in (jax.devices()[0], jax.devices("cpu")[0]):
            program = jax.jit(nnc.inject(model.apply, fast=True))
            logits.append(np.asarray(program(*jax.device_put((small, images), device))))
        difference = float(np.abs(logits[0] - logits[1]).max() / np.abs(logits[1]).max())
        rows.append({"network": network, "device": jax.devices()[0].device_kind, "difference": difference})
    formats = {"network": "", "device": "", "difference": ".1e"}
    Table("int8 logits beside the CPU's: largest difference over largest logit", formats, rows).print()
    return rows


def accuracy(options: Options) -> dict[str, Any]:
    """Seconds of training the first network to the test accuracy; compiling and testing are not among them."""
    from nncompress_jax.training.config import Config
    from nncompress_jax.training.loop import train

    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = Config(
            model=options.networks[0],
            dataset=options.dataset,
            data_dir=options.data_dir,
            epochs=options.epochs,
            workdir=f"{folder}/run",
        )
        lines = (train(run).workdir / "metrics.jsonl").read_text().splitlines()
    epochs_run = [json.loads(line) for line in lines]
    reached = next((line for line in epochs_run if line["test_accuracy"] >= options.target), None)
    row = {
        "network": options.networks[0],
        "dataset": options.dataset,
        "target": options.target,
        "epochs": epochs_run.index(reached) + 1 if reached else None,
        "training_s": reached["training_seconds"] if reached else None,
        "last_accuracy": epochs_run[-1]["test_accuracy"],
        "whole_run_s": time.perf_counter() - begin,
    }
    formats = {
        "network": "",
        "dataset": "",
        "target": ".4f",
        "epochs": "d",
        "training_s": ".1f",
        "last_accuracy": ".4f",
    }
    Table("seconds of training to an accuracy", formats | {"whole_run_s": ".0f"}, [row]).print()
    return row


if __name__ == "__main__":
    cli.run(main, Options)
