"""The measured pieces of docs/scale.md: what one process reads, computes, saves and restores.

python benchmarks/scale.py --dataset=cifar10 --json=runs/bench/scale.json
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import jax
import measure
import numpy as np

from nncompress_jax import checksums
from nncompress_jax.commands import cli
from nncompress_jax.data import pictures, prepared, sources
from nncompress_jax.data.split import Split
from nncompress_jax.table import Table
from nncompress_jax.training import checkpoint
from nncompress_jax.training.chunks import compile_chunks
from nncompress_jax.training.config import Config
from nncompress_jax.training.progress import Progress
from nncompress_jax.training.setup import prepare


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    networks: tuple[str, ...] = ("vgg16", "vgg16ds", "vgg16ds_stride")
    """Whose steps and checkpoints."""
    batch_size: int = 128
    """Images a step."""
    dataset: str | None = None
    """A prepared one of 32x32 images, whose reading is measured, too."""
    data_dir: str | None = None
    """Folder of prepared data sets."""
    rounds: int = 5
    """The shortest time counts."""
    json: Path | None = None
    """Where the numbers are written."""


def shortest(action: Callable[[], object], rounds: int) -> float:
    """Seconds."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return min(times)


def reading(options: Options) -> list[dict[str, Any]]:
    """Images that one thread reads in a second: as they are stored, and at the size of larger data sets."""
    split: Split = sources.load("digits").train
    found: list[dict[str, Any]] = []
    rows = np.random.default_rng(0).permutation(len(split))
    if options.dataset:
        builder = prepared.open_builder(options.dataset, options.data_dir)
        split = prepared.StoredSplit(builder, prepared.part(builder, "train"), image_size=None)
        rows = np.random.default_rng(0).permutation(len(split))[:2000]
        seconds = shortest(lambda: split.read(rows), options.rounds)
        found = [{"images": f"{options.dataset}, shuffled", "per second": len(rows) / seconds}]
    tiles = split.read(rows[:192])[0].reshape(12, 16, *split.image_shape)  # a mosaic has a photograph's frequencies
    photo = np.concatenate([np.concatenate(list(row), axis=1) for row in tiles])[:375, :500]
    coded = cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, 90])[1]

    def decode() -> None:
        for _ in range(100):
            decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR_RGB)
            assert decoded is not None
            pictures.resize(decoded, 224)

    name = f"500x375 JPEG of {len(coded) / 1e3:.0f} kB to 224x224"
    return [*found, {"images": name, "per second": 100 / shortest(decode, options.rounds)}]


def training(network: str, options: Options) -> dict[str, Any]:
    """A step, and what a checkpoint takes."""
    with tempfile.TemporaryDirectory() as folder:
        setup = prepare(Config(model=network, dataset="digits", batch_size=options.batch_size, workdir=folder))
        state = setup.initial_state(0)
        chunk = next(compile_chunks(setup, state).after(0))
        jax.block_until_ready(chunk.run(jax.tree.map(jax.numpy.copy, state)))
        copies = iter([jax.tree.map(jax.numpy.copy, state) for _ in range(options.rounds)])
        step_s = shortest(lambda: jax.block_until_ready(chunk.run(next(copies))), options.rounds)
        progress = Progress(0, 10**6, 0.0, 10, setup.image_shape)
        held_s, saved_s = [], []
        with checkpoint.manager(folder, writes=True) as checkpoints:
            for number in range(options.rounds):
                begin = time.perf_counter()
                checkpoint.save(checkpoints, state, dataclasses.replace(progress, steps=number))
                held_s.append(time.perf_counter() - begin)
                checkpoints.wait_until_finished()
                saved_s.append(time.perf_counter() - begin)
            restore_s = shortest(lambda: checkpoint.load_state(checkpoints, state), options.rounds)
    bytes_of = {name: sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) for name, tree in state.variables.items()}
    return {
        "network": network,
        "step s": step_s,
        "gradient MB": bytes_of["params"] / 1e6,
        "state MB": (sum(bytes_of.values()) + sum(leaf.nbytes for leaf in jax.tree.leaves(state.opt_state))) / 1e6,
        "checksums s": shortest(lambda: checksums.of_leaves(state), options.rounds),
        "save holds up s": min(held_s),
        "save s": min(saved_s),
        "restore s": restore_s,
    }


def main(options: Options) -> None:
    """Prints both tables."""
    images, steps = reading(options), [training(network, options) for network in options.networks]
    Table("images that one thread reads in a second", {"images": "", "per second": ",.0f"}, images).print()
    formats = {name: ".1f" if name.endswith("MB") else ".3f" for name in steps[0]} | {"network": ""}
    Table(f"training in batches of {options.batch_size} on {jax.devices()[0].device_kind}", formats, steps).print()
    measure.write(options.json, reading=images, training=steps)


if __name__ == "__main__":
    cli.run(main, Options)
