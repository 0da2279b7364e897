"""What a run measures, for people while it runs and for programs afterwards."""

import contextlib
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import optax
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nncompress_jax.errors import InputError
from nncompress_jax.training.step import Metrics

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter  # imports torch where there is one: only when a run begins

FILE_NAME = "metrics.jsonl"


class Meter:
    """Averages over an epoch's steps; metrics are read while the next steps run."""

    def __init__(self, schedule: optax.Schedule, first_step: int):
        self._schedule, self._step = schedule, first_step
        self._pending: list[tuple[Metrics, int]] = []
        self._begin = self._end = time.perf_counter()
        self._loss, self._correct, self._count = 0.0, 0, 0

    def add(self, measured: Metrics, count: int) -> None:
        """Takes the metrics [K] of K batches of `count` images each, and reads those that it took before.

        Raises:
          InputError: if one of those losses is not finite.
        """
        self.flush()
        self._pending = [(measured, count)]

    def flush(self) -> None:
        """Reads what is still to be read; raises as `add` does."""
        while self._pending:
            measured, count = self._pending.pop()
            for loss, correct in zip(np.asarray(measured.loss), np.asarray(measured.correct), strict=True):
                if not math.isfinite(loss):
                    rate = float(self._schedule(self._step))
                    raise InputError(
                        f"step {self._step}: the loss is {loss} at learning rate {rate:g}; "
                        "choose a lower --learning_rate"
                    )
                self._loss += float(loss) * count
                self._correct += int(correct)
                self._count += count
                self._step += 1
            self._end = time.perf_counter()

    @property
    def loss(self) -> float:
        """Mean cross entropy, in nats."""
        return self._loss / max(self._count, 1)

    @property
    def accuracy(self) -> float:
        """Fraction from 0 to 1."""
        return self._correct / max(self._count, 1)

    @property
    def seconds(self) -> float:
        """From the start of the epoch to the last step that was read."""
        return self._end - self._begin

    @property
    def images_per_second(self) -> float:
        """Over the same time."""
        return self._count / self.seconds if self._count else 0.0

    def shown(self) -> dict[str, Any]:
        """The fields of the progress bar."""
        return {"loss": self.loss, "accuracy": self.accuracy, "images_per_second": self.images_per_second}


class MetricsWriter:
    """Writes numbers by step to `metrics.jsonl` (an object a line) and to TensorBoard's event files."""

    def __init__(self, lines: TextIO, events: "SummaryWriter"):
        self._lines, self._events = lines, events

    def write(self, step: int, **values: float) -> None:
        """One line of values by name (`train_loss`, `test_accuracy`)."""
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)


@contextlib.contextmanager
def open_writer(workdir: Path, *, after_step: int) -> Iterator[MetricsWriter]:
    """A writer that goes on behind `after_step`; what an interrupted run wrote beyond it is dropped."""
    from tensorboardX import SummaryWriter

    file = workdir / FILE_NAME
    written = file.read_text().splitlines(keepends=True) if file.exists() else []
    kept = [line for line in written if line.endswith("\n") and json.loads(line)["step"] <= after_step]
    partial = file.with_suffix(".partial")
    partial.write_text("".join(kept))
    partial.replace(file)
    with (
        file.open("a") as lines,
        contextlib.closing(SummaryWriter(str(workdir), purge_step=after_step + 1 if written else None)) as events,
    ):
        yield MetricsWriter(lines, events)


def progress_bar() -> Progress:
    """A bar with what training shows: step, loss, accuracy, images/s, time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}  accuracy {task.fields[accuracy]:.4f}"),
        TextColumn("{task.fields[images_per_second]:.0f} images/s"),
        TimeRemainingColumn(),
    )
