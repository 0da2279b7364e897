"""What a run measures, for people while it runs and for programs afterwards."""

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nncompress_jax.errors import InputError
from nncompress_jax.training.progress import Sums
from nncompress_jax.training.step import Metrics

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter  # imports torch where there is one: only when a run begins

FILE_NAME = "metrics.jsonl"


class Meter:
    """Adds up an epoch's steps; their metrics are read while the next steps run.

    Args:
      schedule: learning rate by step.
      step: of the run, from which it measures on.
      sums: of the epoch's steps before.
    """

    def __init__(self, schedule: Callable[[int], Any], step: int, sums: Sums):
        self._schedule, self._step, self._sums = schedule, step, sums
        self._pending: list[tuple[Metrics, int]] = []
        self._end = time.perf_counter()

    def add(self, measured: Metrics, batch_size: int) -> None:
        """Takes the metrics [K] of K batches, and reads those that it took before.

        Raises:
          InputError: if one of those losses is not finite.
        """
        self._read()
        self._pending = [(measured, batch_size)]

    @property
    def sums(self) -> Sums:
        """Of all steps; waits for the last. Raises as `add` does."""
        self._read()
        return self._sums

    def _read(self) -> None:
        while self._pending:
            measured, size = self._pending.pop()
            losses, correct = np.asarray(measured.loss, np.float64), np.asarray(measured.correct)
            for loss in losses:
                if not math.isfinite(loss):
                    rate = float(self._schedule(self._step))
                    raise InputError(
                        f"step {self._step}: the loss is {loss} at learning rate {rate:g}; "
                        "choose a lower --learning_rate"
                    )
                self._step += 1
            begin, self._end = self._end, time.perf_counter()
            self._sums = Sums(
                self._sums.loss + float(losses.sum()) * size,
                self._sums.correct + int(correct.sum()),
                self._sums.images + size * len(losses),
                self._sums.seconds + self._end - begin,
                {
                    name: self._sums.measures.get(name, 0.0) + float(np.asarray(values, np.float64).sum())
                    for name, values in measured.measures.items()
                },
            )

    def shown(self) -> dict[str, Any]:
        """The fields of the progress bar, of the steps that were read."""
        sums = self._sums
        return {"loss": sums.mean_loss, "accuracy": sums.accuracy, "images_per_second": sums.images_per_second}


class MetricsWriter:
    """Writes numbers by step to `metrics.jsonl` (an object a line) and to TensorBoard's event files."""

    def __init__(self, file: epath.Path, lines: list[str], events: "SummaryWriter"):
        self._file, self._lines, self._events = file, lines, events

    def write(self, step: int, **values: float) -> None:
        """One line of values by name (`train_loss`, `test_accuracy`)."""
        self._lines.append(json.dumps({"step": step, **values}) + "\n")
        partial = self._file.with_name(f"{FILE_NAME}.partial")
        partial.write_text("".join(self._lines))
        partial.replace(self._file)
        for name, value in values.items():
            self._events.add_scalar(name, value, step)


@contextlib.contextmanager
def open_writer(workdir: epath.Path, *, after_step: int) -> Iterator[MetricsWriter]:
    """A writer that goes on behind `after_step`; what an interrupted run wrote beyond it is dropped."""
    from tensorboardX import SummaryWriter

    file = workdir / FILE_NAME
    written = file.read_text().splitlines(keepends=True) if file.exists() else []
    kept = [line for line in written if line.endswith("\n") and json.loads(line)["step"] <= after_step]
    events = SummaryWriter(str(workdir), purge_step=after_step + 1 if written else None)
    with contextlib.closing(events):
        yield MetricsWriter(file, kept, events)


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
