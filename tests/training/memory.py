"""A data set of 224x224 images in 1,000 classes, several times larger than the memory that training is allowed.

python -m tests.training.memory --images=60000 --limit_mb=2500

Training stops on SIGTERM in the middle of its epoch, goes on, and ends.
"""

import dataclasses
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import tensorflow_datasets as tfds
import tyro

from tests.prepared import write_prepared
from tests.training.kills import steps

CLASSES = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How large, and what is allowed."""

    images: int = 60_000
    """To train on."""
    limit_mb: int = 2500
    """Of writable memory of the process (RLIMIT_DATA): more is refused by the kernel."""
    batch_size: int = 32
    """Images a step."""
    folder: Path | None = None
    """Where the data set and the run are; by default a folder that is removed in the end."""


def write(folder: Path, count: int) -> None:
    """Noise of 256x256 as JPEG: ten kinds of it for each class, which come again and again."""
    random = np.random.default_rng(0)

    def image(label: int) -> bytes:
        noise = random.integers(0, 128, (256, 256, 3), np.uint8) + np.uint8(label * 127 // CLASSES)
        return cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()

    kinds = [{"image": image(i % CLASSES), "label": i % CLASSES} for i in range(min(count, 10 * CLASSES))]
    examples = [kinds[i % len(kinds)] for i in range(count)]
    features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=CLASSES)}
    write_prepared(folder, "large", features, {"train": examples, "test": examples[:256]})


def train(folder: Path, options: Options) -> subprocess.Popen:
    """A run within the limit."""
    command = [sys.executable, "-m", "tests.training.command", "--model=narrowest", "--dataset=large", "--epochs=1"]
    command += ["--image_size=224", f"--batch_size={options.batch_size}", "--learning_rate=0.01", "--platform=cpu"]
    command += [
        f"--data_dir={folder / 'data'}",
        f"--workdir={folder / 'run'}",
        "--checkpoint_steps=50",
        "--stream=True",
    ]
    limit = ["bash", "-c", f'ulimit -d {options.limit_mb * 1000}; exec "$@"', "bash"]
    with (folder / "run.log").open("a") as log:
        return subprocess.Popen([*limit, *command], stdout=log, stderr=log)


def main(options: Options) -> None:
    """Prints sizes, times and the most memory that was resident."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        if not (folder / "data").exists():
            write(folder / "data", options.images)
        stored = sum(file.stat().st_size for file in (folder / "data").rglob("*") if file.is_file())
        decoded = options.images * 224 * 224 * 3
        print(
            f"{stored / 1e6:,.0f} MB stored, {decoded / 1e6:,.0f} MB decoded, {options.limit_mb:,} MB allowed",
            flush=True,
        )

        begin = time.monotonic()
        process = train(folder, options)
        while not any(step >= 100 for step in steps(folder / "run")):
            assert process.poll() is None, (folder / "run.log").read_text()
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 75
        assert train(folder, options).wait() == 0, (folder / "run.log").read_text()
        log = (folder / "run.log").read_text()
        saved, went_on = (re.search(f"{words} step (\\d+)", log) for words in ("saved at", "goes on from"))
        assert saved
        assert went_on
        assert saved[1] == went_on[1]
        resident = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
        print(
            f"stopped and went on at step {saved[1]} of {options.images // options.batch_size}; {log.splitlines()[-1]}"
        )
        print(f"{time.monotonic() - begin:.0f} s; at most {resident:,.0f} MB resident; {os.cpu_count()} processors")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
