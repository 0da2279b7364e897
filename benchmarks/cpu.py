"""Speed and memory on the CPU, beside plain linen, torch and onnxruntime in the same run.

python benchmarks/cpu.py --json=cpu.json
python benchmarks/cpu.py --networks vgg16ds --batches 32 --tasks inference --profile=trace
"""

import dataclasses
import math
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import measure
import peers

import nncompress_jax as nnc
from nncompress_jax.commands import cli
from nncompress_jax.table import Table
from nncompress_jax.training.chunks import compile_chunks
from nncompress_jax.training.config import Config
from nncompress_jax.training.setup import prepare

CONTENDERS = {
    "inference": [
        *("ours", "ours int8", "ours int8 static", "linen", "torch", "torch bfloat16", "torch compiled"),
        *("ours exported", "onnxruntime", "onnxruntime int8"),
    ],
    "training": ["ours", "linen", "torch", "torch bfloat16", "torch compiled"],
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is timed."""

    networks: tuple[str, ...] = ("vgg16", "vgg16ds", "vgg16ds_stride")
    """By name."""
    batches: tuple[int, ...] = (1, 32, 128)
    """Images a call; training takes the largest alone."""
    tasks: tuple[str, ...] = ("inference", "training", "pipeline")
    """inference, training, pipeline: a step on real data beside a step on one fixed batch."""
    contenders: tuple[str, ...] = ()
    """By default all; the first is compared with the others."""
    rounds: int = 3
    """Turns of each contender."""
    seconds: float = 1.0
    """Of a turn, at least."""
    json: Path | None = None
    """Writes the figures here, with machine, versions and date."""
    profile: Path | None = None
    """Writes a trace of our inference into this folder, for TensorBoard or Perfetto; nothing is timed then."""


def main(options: Options) -> None:
    """Prints a table for each task."""
    unknown = set(options.tasks) - {*CONTENDERS, "pipeline"}
    if unknown:
        raise nnc.InputError(f"unknown task {min(unknown)!r}; choose of inference, training, pipeline")
    if options.profile:
        return profile(options, options.profile)
    turns = measure.Turns(options.rounds, options.seconds)
    demand = measure.demands(options.networks)
    peak, bandwidth = measure.matrix_peak("float32", turns), measure.bandwidth(turns)
    results: dict[str, Any] = {"matrix_peak_float32": peak, "bandwidth": bandwidth}
    results["floors"] = measure.floors(demand, peak, bandwidth)
    title = f"at best, by {peak / 1e9:.0f} GFLOP/s and {bandwidth / 1e9:.1f} GB/s"
    Table(title, measure.FLOOR_FORMATS, results["floors"]).print()
    for task in [task for task in CONTENDERS if task in options.tasks]:
        batches = options.batches if task == "inference" else [max(options.batches)]
        times = 1 if task == "inference" else 3  # a convolution's gradients cost as much as it does, each
        rows = measure.rows(
            task,
            options.networks,
            batches,
            options.contenders or CONTENDERS[task],
            operations={network: times * count for network, (count, _) in demand.items()},
            peak=peak,
            turns=turns,
        )
        Table(
            f"{task}; ratio: ours over this one's images/s; peak {peak / 1e9:.0f} GFLOP/s", measure.FORMATS, rows
        ).print()
        print_means(rows)
        results[task] = rows
    if "pipeline" in options.tasks:
        results["pipeline"] = pipeline(options)
    measure.write(options.json, **results)


def print_means(rows: list[dict[str, Any]]) -> None:
    """The geometric mean, and the least, of each contender's ratios."""
    for name in dict.fromkeys(row["contender"] for row in rows):
        ratios = [row["ratio"] for row in rows if row["contender"] == name and row["ratio"]]
        if ratios:
            mean = math.exp(statistics.fmean(map(math.log, ratios)))
            print(f"{name}: geometric mean {mean:.2f}, least {min(ratios):.2f}, of {len(ratios)}")


def pipeline(options: Options) -> list[dict[str, Any]]:
    """Seconds of a training step on the shuffled digits, beside the same step on one batch that stays."""
    rows = []
    for network in options.networks:
        batch = max(options.batches)
        with tempfile.TemporaryDirectory() as folder:
            setup = prepare(Config(model=network, dataset="digits", batch_size=batch, workdir=folder))
        state = setup.initial_state(0)
        steps_of = compile_chunks(setup, state)
        fixed = next(steps_of.after(0))
        times: dict[str, list[float]] = {"real": [], "fixed": []}
        for epoch in range(options.rounds):
            for name, steps in (
                ("fixed", [fixed] * len(setup.batches)),
                ("real", steps_of.after(epoch * len(setup.batches))),
            ):
                begin = time.perf_counter()
                for chunk in steps:
                    state, _ = chunk.run(state)
                    jax.block_until_ready(state)
                times[name].append((time.perf_counter() - begin) / len(setup.batches))
        best = {name: min(each) for name, each in times.items()}
        rows.append({"network": network, "batch": batch, **best, "ratio": best["real"] / best["fixed"]})
    formats = {"network": "", "batch": ",", "real": ".3f", "fixed": ".3f", "ratio": ".3f"}
    Table("seconds of a training step on real data, and on one fixed batch", formats, rows).print()
    return rows


def profile(options: Options, folder: Path) -> None:
    """A trace of our inference on each network and batch."""
    works = [peers.INFERENCE["ours"](network, batch) for network in options.networks for batch in options.batches]
    for work in works:
        work()
    with jax.profiler.trace(str(folder)):
        for work in works:
            work()
    print(f"trace: {folder}")


if __name__ == "__main__":
    cli.run(main, Options)
