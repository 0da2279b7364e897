"""Training runs that are killed at random moments, and go on: their end must be that of a run that was left alone.

python -m tests.training.kills --kills=30 --terms=10
"""

import dataclasses
import logging
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tyro
from rich.progress import track

from nncompress_jax.training import checkpoint

COMMAND = [sys.executable, "-m", "tests.training.command", "--model=narrowest", "--dataset=digits"]
COMMAND += ["--batch_size=64", "--learning_rate=0.01", "--checkpoint_steps=15", "--platform=cpu"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How many."""

    kills: int = 30
    """Runs that SIGKILL ends."""
    terms: int = 10
    """Runs that SIGTERM ends."""
    seed: int = 0
    """Of the moments."""
    epochs: int = 30
    """Of each run; the more, the more of the moments fall between the first step and the last."""


def start(workdir: Path, epochs: int, *, largest_file_kb: int | None = None) -> subprocess.Popen:
    """A run on one device, whose output is kept beside its workdir; perhaps it can write no larger files."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    limit = ["bash", "-c", f'ulimit -f {largest_file_kb}; exec "$@"', "bash"] if largest_file_kb else []
    with workdir.with_suffix(".log").open("a") as log:
        return subprocess.Popen(
            [*limit, *COMMAND, f"--epochs={epochs}", f"--workdir={workdir}"], env=environment, stdout=log, stderr=log
        )


def final(workdir: Path) -> dict[str, int]:
    """Checksums of the whole state at the end: weights, batch statistics, optimizer, PRNG key."""
    with checkpoint.manager(workdir) as checkpoints:
        described = checkpoint._described(checkpoints, checkpoints.latest_step())
    assert described["progress"]["steps"] == described["progress"]["total_steps"], workdir
    return described["checksums"]


def alone(folder: Path, epochs: int) -> tuple[dict[str, int], float]:
    """The final state of a run that is left alone, and the seconds it took."""
    begin = time.monotonic()
    assert start(folder / "alone", epochs).wait() == 0
    return final(folder / "alone"), time.monotonic() - begin


def steps(workdir: Path) -> list[int]:
    """Of the checkpoints that are there."""
    folder = workdir / "checkpoints"
    return sorted(int(name) for name in os.listdir(folder) if name.isdigit()) if folder.exists() else []


def interrupted_once(workdir: Path, epochs: int, number: int, after: float) -> float:
    """A run that gets a signal after so many seconds; the seconds from then to its end."""
    process = start(workdir, epochs)
    time.sleep(after)
    begin = time.monotonic()
    process.send_signal(number)
    code, seconds = process.wait(), time.monotonic() - begin
    # A run may be over; while it is still importing, SIGTERM ends it at once, since there is nothing to save.
    assert code in {signal.SIGKILL: (-signal.SIGKILL, 0), signal.SIGTERM: (75, 0, -signal.SIGTERM)}[number], code
    return seconds


def interrupted(workdir: Path, epochs: int, number: int, after: float) -> tuple[int | None, int | None, float]:
    """A run that gets a signal, and then goes on to its end.

    Returns:
      The step of its last checkpoint when it was gone, the step that it went on from (None: none, from the beginning),
      and the seconds from the signal to its end.
    """
    seconds = interrupted_once(workdir, epochs, number, after)
    stood = max(steps(workdir), default=None)
    assert start(workdir, epochs).wait() == 0, workdir.with_suffix(".log").read_text()
    went_on = re.findall("goes on from step (\\d+) of", workdir.with_suffix(".log").read_text())
    return stood, int(went_on[-1]) if went_on else None, seconds


def main(options: Options) -> None:
    """Prints a line for each, and fails on the first whose end differs."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected, duration = alone(folder, options.epochs)
        print(f"left alone: {duration:.1f} s")
        signals = [signal.SIGKILL] * options.kills + [signal.SIGTERM] * options.terms
        slowest = 0.0
        for i, number in enumerate(track(signals, "runs")):
            after = moments.uniform(0, duration)
            stood, went_on, seconds = interrupted(folder / f"run{i}", options.epochs, number, after)
            same = final(folder / f"run{i}") == expected
            print(
                f"{number.name} after {after:4.1f} s: last checkpoint {stood}, went on from {went_on}, same end: {same}"
            )
            assert same
            assert stood == went_on
            if number == signal.SIGTERM:
                slowest = max(slowest, seconds)
    done = f"{options.kills} SIGKILL, {options.terms} SIGTERM"
    print(f"{done}: all ends the same; slowest end after SIGTERM {slowest:.1f} s")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
