"""Files of compressed networks: bytes and seconds beside the usual ways to store the same weights, on one core.

python benchmarks/artifact.py --json=artifact.json
python benchmarks/artifact.py --init=vgg16.pth --recipes quantize:8 prune_global:0.9+cluster:4   # a trained network
"""

import dataclasses
import functools
import importlib
import importlib.util
import io
import lzma
import os
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import measure
import numpy as np
import safetensors.numpy

import nncompress_jax as nnc
from nncompress_jax import models
from nncompress_jax.artifact.contents import contents
from nncompress_jax.commands import cli
from nncompress_jax.importers import torch
from nncompress_jax.table import Table
from nncompress_jax.tree import stored_bytes

FORMATS = {"weights": "", "as": "", "bytes": ",", "share": ".4f", "save_s": ".2f", "load_s": ".2f"}
"""share: of the bytes of the float network. entropy: of every part, zeroth order, with no header at all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is written."""

    network: str = "vgg16"
    """Name of a model; its weights are at random, as Laplace draws them, without --init."""
    init: str | None = None
    """A .pth file of the original project."""
    recipes: tuple[str, ...] = ("quantize:8", "prune_global:0.9+cluster:4")
    """Of `nnc.recipe`."""
    rounds: int = 3
    """Each way is taken so often; the fastest counts."""
    slow: bool = True
    """Try xz and gzip at their best, too: a minute."""
    json: Path | None = None
    """Writes the figures here, with machine, versions and date."""


def main(options: Options) -> None:
    """Prints a table."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    variables = torch.load(options.init, model=options.network) if options.init else drawn(options.network)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for recipe in options.recipes:
            small = jax.block_until_ready(nnc.compress(variables, nnc.recipe(recipe)))
            rows += compared(small, recipe, stored_bytes(variables), Path(folder), options)
    source = options.init or "random weights"
    Table(f"{options.network}, {source}, one core", FORMATS, rows).print()
    measure.write(options.json, artifact=rows)


def drawn(network: str) -> Any:
    """Weights whose distribution is about that of a trained network."""
    model, random = models.create(network), np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 32, 32, 3)))
    return jax.tree.map(lambda leaf: jnp.asarray(random.laplace(size=leaf.shape), jnp.float32), shapes)


def compared(small: Any, recipe: str, whole: int, folder: Path, options: Options) -> list[dict[str, Any]]:
    """A row for each way."""
    parts = {f"{i}": np.asarray(part) for i, part in enumerate(jax.tree.leaves(small))}
    file = folder / "a"
    ways: dict[str, tuple[Callable[[], Any], Callable[[], Any] | None]] = {
        "nnc.save, nnc.load": (lambda: nnc.save(file, small), lambda: jax.block_until_ready(nnc.load(file).variables)),
        "numpy savez_compressed": (functools.partial(compressed_by_numpy, parts, file), lambda: dict(np.load(file))),
        "safetensors": (
            lambda: safetensors.numpy.save_file(parts, file),
            lambda: safetensors.numpy.load_file(file),
        ),
    }
    ways |= packed(parts, file, options.slow)
    rows: list[dict[str, Any]] = []
    for name, (save, load) in ways.items():
        seconds = [fastest(each, options.rounds if name in FAST else 1) if each else None for each in (save, load)]
        rows.append({"as": name, "bytes": file.stat().st_size, "save_s": seconds[0], "load_s": seconds[1]})
    nnc.save(file, small)
    entropy = contents(file)[1].rows[-1]["entropy_bytes"]
    rows.append({"as": "entropy", "bytes": round(entropy), "save_s": None, "load_s": None})
    return [{"weights": recipe} | row | {"share": row["bytes"] / whole} for row in rows]


FAST = ("nnc.save, nnc.load", "numpy savez_compressed", "safetensors", "safetensors, zstd -3")


def compressed_by_numpy(parts: Mapping[str, Any], file: Path) -> None:
    """Through an open file: a path would be given a suffix."""
    with open(file, "wb") as opened:
        np.savez_compressed(opened, **parts)


def packed(parts: Mapping[str, np.ndarray], file: Path, slow: bool) -> dict[str, Any]:
    """The bytes of safetensors, through what packs any bytes."""
    plain = safetensors.numpy.save(dict(parts))

    def zipped() -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            archive.writestr("a", plain)

    def unzipped() -> Any:
        with zipfile.ZipFile(io.BytesIO(file.read_bytes())) as archive:
            return safetensors.numpy.load(archive.read("a"))

    ways: dict[str, Any] = {}
    zstandard: Any = importlib.import_module("zstandard") if importlib.util.find_spec("zstandard") else None
    for level in (3, 19) if zstandard else ():
        if level == 3 or slow:
            ways[f"safetensors, zstd -{level}"] = (
                lambda level=level: file.write_bytes(zstandard.ZstdCompressor(level).compress(plain)),
                lambda: safetensors.numpy.load(zstandard.ZstdDecompressor().decompress(file.read_bytes())),
            )
    if slow:
        ways |= {
            "safetensors, zip -9": (zipped, unzipped),
            "safetensors, gzip -9": (
                lambda: file.write_bytes(zlib.compress(plain, 9)),
                lambda: safetensors.numpy.load(zlib.decompress(file.read_bytes())),
            ),
            "safetensors, xz -9": (
                lambda: file.write_bytes(lzma.compress(plain, preset=9)),
                lambda: safetensors.numpy.load(lzma.decompress(file.read_bytes())),
            ),
        }
    return ways


def fastest(run: Callable[[], Any], rounds: int) -> float:
    """Seconds, of the fastest round: what else the machine does only adds."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times)


if __name__ == "__main__":
    cli.run(main, Options)
