"""Timing contenders side by side: each in a process of its own, in turns, so that a busy moment meets all of them."""

import dataclasses
import datetime
import importlib.metadata
import json
import math
import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import peers
from rich.progress import track

# A process that only looks must leave the device to those that measure.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

PACKAGES = ("jax", "jaxlib", "flax", "numpy", "torch", "onnxruntime")


@dataclasses.dataclass(frozen=True)
class Turns:
    """How contenders are timed.

    Attributes:
      rounds: turns of each.
      seconds: a turn takes at least so long, and three calls.
      together: all are ready at once and take turns; else one after the other, as some devices demand.
    """

    rounds: int = 3
    seconds: float = 1.0
    together: bool = True


@dataclasses.dataclass(frozen=True)
class Timing:
    """Of one contender.

    Attributes:
      seconds: a call, the median of the fastest round: what else the machine does only adds.
      peak_mib: the most memory that its process held, in MiB.
      missing: why there is no timing.
    """

    seconds: float | None = None
    peak_mib: float | None = None
    missing: str = ""


def side_by_side(task: str, network: str, batch: int, contenders: Sequence[str], turns: Turns) -> dict[str, Timing]:
    """Times contenders on one network and batch size.

    Args:
      task: a key of `peers.TASKS`.
      network: its name.
      batch: B.
      contenders: keys of the task's.
      turns: how.
    """
    if not turns.together:
        turns = dataclasses.replace(turns, together=True)
        alone = [side_by_side(task, network, batch, [name], turns) for name in contenders]
        return {name: timing for each in alone for name, timing in each.items()}
    workers = {name: _Worker(task, network, batch, name) for name in contenders}  # one gets ready at a time
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(turns.rounds):
        for name, worker in workers.items():
            if not worker.missing:
                times[name].append(worker.answer(turns.seconds))
    return {
        name: Timing(missing=worker.missing) if worker.missing else Timing(min(times[name]), worker.answer(None))
        for name, worker in workers.items()
    }


def first_result(task: str, network: str, batch: int, name: str) -> Timing:
    """Seconds that a contender in a new process takes to make ready, compile and give its first result."""
    worker = _Worker(task, network, batch, name)
    if worker.missing:
        return Timing(missing=worker.missing)
    return Timing(worker.first_result_s, worker.answer(None))


class _Worker:
    """A process that makes a contender ready and times it when it is asked to."""

    def __init__(self, task: str, network: str, batch: int, name: str):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        context.Process(target=_serve, args=(task, network, batch, name, theirs), daemon=True).start()
        theirs.close()
        answer = self._received()
        self.missing = answer if isinstance(answer, str) else ""
        self.first_result_s = None if isinstance(answer, str) else answer

    def answer(self, question: float | None) -> Any:
        """Seconds of a call, in a turn of so many seconds; for None, the peak of its memory, and the process ends."""
        self._pipe.send(question)
        return self._received()

    def _received(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            return "its process died"


def _serve(task: str, network: str, batch: int, name: str, pipe: Connection) -> None:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    begin = time.perf_counter()
    try:
        work = peers.TASKS[task][name](network, batch)
        work()
    except Exception as error:  # whatever a peer raises: it is not measured, and the table says why
        pipe.send(f"{type(error).__name__}: {' '.join(str(error).split())[:100]}")
        return
    pipe.send(time.perf_counter() - begin)
    work()  # the first may have been slower in every way
    while (seconds := pipe.recv()) is not None:
        taken: list[float] = []
        while sum(taken) < seconds or len(taken) < 3:
            begin = time.perf_counter()
            work()
            taken.append(time.perf_counter() - begin)
        pipe.send(statistics.median(taken))
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def rows(
    task: str,
    networks: Sequence[str],
    batches: Sequence[int],
    contenders: Sequence[str],
    *,
    operations: dict[str, float],
    peak: float,
    turns: Turns,
) -> list[dict[str, Any]]:
    """A row for each network, batch size and contender; ratios are images/s of the first contender over this one's.

    Args:
      task: a key of `peers.TASKS`.
      networks: their names.
      batches: batch sizes.
      contenders: keys of the task's; the first is the one that the others are compared with.
      operations: for one image, by network; multiplications and additions.
      peak: operations a second of the device's matrix product.
      turns: how they are timed.
    """
    table = []
    for network, batch in track([(n, b) for n in networks for b in batches], task, transient=True):
        timings = side_by_side(task, network, batch, contenders, turns)
        first = timings[contenders[0]].seconds
        for name, timing in timings.items():
            rate = batch / timing.seconds if timing.seconds else None
            table.append(
                {
                    "network": network,
                    "batch": batch,
                    "contender": name,
                    "images_per_s": rate,
                    "ratio": timing.seconds / first if timing.seconds and first else None,
                    "share_of_peak": rate * operations[network] / peak if rate else None,
                    "peak_mib": timing.peak_mib,
                    "not_measured": timing.missing,
                }
            )
    return table


FORMATS = {
    "network": "",
    "batch": ",",
    "contender": "",
    "images_per_s": ",.0f",
    "ratio": ".2f",
    "share_of_peak": ".3f",
    "peak_mib": ",.0f",
    "not_measured": "",
}


def write(file: Path | None, **results: Any) -> None:
    """The results with machine, versions and date, as JSON."""
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({**machine(), **results}, indent=2) + "\n")


def demands(networks: Sequence[str]) -> dict[str, tuple[float, float]]:
    """What one image asks of a machine: (operations, bytes), by network; counted elsewhere, so that no device is taken.

    Operations are multiplications and additions, forward; bytes those of every layer's output in float32, written once
    and read once.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return dict(zip(networks, pool.map(_demand, networks), strict=True))


def _demand(network: str) -> tuple[float, float]:
    import jax

    import nncompress_jax as nnc

    model, image = nnc.models.create(network), jax.ShapeDtypeStruct((1, *peers.SHAPE), np.float32)
    cost = nnc.cost(model.apply, jax.eval_shape(model.init, jax.random.key(0), image), image)
    return 2.0 * cost.macs, 2.0 * 4 * sum(math.prod(layer.output_shape) for layer in cost.layers if layer.macs)


def floors(demand: dict[str, tuple[float, float]], peak: float, bandwidth: float) -> list[dict[str, Any]]:
    """The least milliseconds for one image of a large batch: by operations, by bytes, and images/s by the larger."""
    table = []
    for network, (operations, size) in demand.items():
        times = {"ms_by_operations": 1e3 * operations / peak, "ms_by_bytes": 1e3 * size / bandwidth}
        millions = {"million_operations": operations / 1e6, "million_bytes": size / 1e6}
        table.append({"network": network, **millions, **times, "images_per_s": 1e3 / max(times.values())})
    return table


FLOOR_FORMATS = {
    "network": "",
    "million_operations": ",.1f",
    "million_bytes": ".2f",
    "ms_by_operations": ".3f",
    "ms_by_bytes": ".3f",
    "images_per_s": ",.0f",
}


def matrix_peak(dtype: str, turns: Turns) -> float:
    """Operations a second of a large matrix product."""
    timing = side_by_side("peak", "", 0, [dtype], turns)[dtype]
    return 2.0 * peers.MATRIX**3 / timing.seconds if timing.seconds else math.nan


def bandwidth(turns: Turns) -> float:
    """Bytes a second that a sum of two large arrays reads and writes."""
    timing = side_by_side("peak", "", 0, ["bandwidth"], turns)["bandwidth"]
    return 3.0 * peers.LARGE_BYTES / timing.seconds if timing.seconds else math.nan


def machine() -> dict[str, Any]:
    """What the figures are of."""
    import jax

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "-"
    return {
        "date": datetime.date.today().isoformat(),
        "processor": f"{os.cpu_count()} x {_processor()}",
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "python": platform.python_version(),
        "versions": versions,
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
