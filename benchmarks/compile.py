"""Seconds to the first result: tracing, compiling, running; and in another process, with the compiled programs kept.

python benchmarks/compile.py --json=compile.json
"""

import dataclasses
import os
import tempfile
from pathlib import Path

import measure

import nncompress_jax as nnc
from nncompress_jax.commands import cli
from nncompress_jax.table import Table

CONTENDERS = {
    "inference": ("ours", "ours int8", "linen", "torch compiled"),
    "training": ("ours", "linen", "torch compiled"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is compiled."""

    networks: tuple[str, ...] = ("vgg16", "vgg16ds", "vgg16ds_stride")
    """By name."""
    batch: int = 32
    """Images a call."""
    tasks: tuple[str, ...] = ("inference", "training")
    """Which programs."""
    contenders: tuple[str, ...] = ()
    """By default all; the first is compared with the others."""
    json: Path | None = None
    """Writes the figures here, with machine, versions and date."""


def main(options: Options) -> None:
    """Prints one table."""
    unknown = set(options.tasks) - set(CONTENDERS)
    if unknown:
        raise nnc.InputError(f"unknown task {min(unknown)!r}; choose of {', '.join(CONTENDERS)}")
    rows = []
    for task in options.tasks:
        for network in options.networks:
            firsts = [
                (name, *first_results(task, network, options.batch, name))
                for name in options.contenders or CONTENDERS[task]
            ]
            ours = firsts[0][1].seconds
            for name, cold, warm in firsts:
                ratio = cold.seconds / ours if cold.seconds and ours else None
                seconds = {"cold_s": cold.seconds, "warm_s": warm.seconds, "ratio": ratio}
                rows.append(
                    {"task": task, "network": network, "contender": name, **seconds, "not_measured": cold.missing}
                )
    formats = {"task": "", "network": "", "contender": "", "cold_s": ".1f", "warm_s": ".1f", "ratio": ".2f"}
    title = f"seconds to the first result, batch {options.batch}; ratio: this one's over ours, cold"
    Table(title, formats | {"not_measured": ""}, rows).print()
    measure.write(options.json, compile=rows)


def first_results(task: str, network: str, batch: int, contender: str) -> tuple[measure.Timing, measure.Timing]:
    """Of two processes one after the other, with a folder of compiled programs that is empty at first."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"JAX_COMPILATION_CACHE_DIR": folder, "TORCHINDUCTOR_CACHE_DIR": folder}
        cold, warm = (measure.first_result(task, network, batch, contender) for _ in range(2))
    return cold, warm


if __name__ == "__main__":
    cli.run(main, Options)
