"""Networks that are kept in a folder: a file of each, and a table that says what they are."""

import functools
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import nncompress_jax as nnc
from nncompress_jax.artifact.reader import load
from nncompress_jax.commands.served import opened
from nncompress_jax.commands.timing import fastest
from nncompress_jax.data.sources import Dataset
from nncompress_jax.errors import InputError, NotInstalledError
from nncompress_jax.report import plots
from nncompress_jax.table import Table
from nncompress_jax.training.evaluation import evaluate
from nncompress_jax.training.setup import calibration_batches

FORMATS = {
    **{"file": "", "network": "", "dataset": "", "float": ".2%", "accuracy": ".2%"},
    **{"bytes": ",", "share": ".2%", "macs": ".2f", "jax": ".1f", "onnx": ".1f", "images_per_s": ",.0f"},
    **{"how": "", "epochs": "d", "minutes": ".0f", "seed": "d"},
}
"""float: the accuracy before compression. share: of the float network's bytes. macs: the share that is left. jax, onnx:
times as fast as its own floats, here and in onnxruntime; images_per_s: in onnxruntime. minutes: of all.
"""

BATCH, TURNS, SECONDS = 32, 5, 0.5
"""Of timing: images at once; turns of each network, one after the other, and the seconds of a turn at least."""

TOLERANCE = 0.001
"""Of accuracy, and one image at least: floats are not the same to the last bit on all processors."""

TITLE = "Compressed networks, and their accuracy on the test split of their data set"
TABLE, PAGE, PICTURE = "table.json", "README.md", "results.png"

PUBLISHED = (
    {"name": "Oktay 2020", "smaller": 590, "lost": 0.100 - 0.066},
    {"name": "MIRACLE 2019", "smaller": 60_000 / 417, "lost": 0.066 - 0.066},
    {"name": "DeepCABAC 2020", "smaller": 60_000 / 960, "lost": 0.090 - 0.066},
    {"name": "LilNetX 2023", "smaller": 800, "lost": 0.100 - 0.066},
    {"name": "LilNetX 2023", "smaller": 465, "lost": 0.074 - 0.066},
)
"""Of VGG16 on CIFAR-10, by what is published of each: 590 times, 417 KB, 960 KB, 800 and 465 times. Errors less 6.6 %,
that of the uncompressed network of Oktay et al. 2020, "Scalable Model Compression by Entropy Penalized
Reparameterization", which need not be the others'.
"""


def rows(folder: Path) -> list[dict[str, Any]]:
    """What the table says, a row for each file.

    Args:
      folder: as `keep` writes it.

    Raises:
      InputError: where files and rows differ, all that differs in one line.
    """
    known = _known(folder)
    wrong = [f"{row['file']} is missing" for row in known if not (folder / row["file"]).exists()]
    named = {row["file"] for row in known}
    wrong += [f"{file.name} has no row" for file in sorted(folder.glob("*.nnc")) if file.name not in named]
    for row in known:
        wrong += _differences(folder / row["file"], row) if (folder / row["file"]).exists() else []
    page = folder / PAGE
    if not page.exists() or page.read_text() != _page(known):
        wrong.append(f"{PAGE} is not what {TABLE} says")
    if wrong:
        raise InputError(f"{folder}: {'; '.join(wrong)}; write them again by the command that made them")
    return known


def keep(folder: Path, file: Path, row: Mapping[str, Any]) -> None:
    """Copies a file into the folder, if it is not there, and writes its row, instead of one of the same name.

    Args:
      folder: where they are kept; made if it is not there.
      file: of `nnc.save`, whose name may be another.
      row: of `FORMATS`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if file != folder / row["file"]:
        shutil.copyfile(file, folder / row["file"])
    others = [other for other in _known(folder) if other["file"] != row["file"]]
    new = sorted([*others, {name: row.get(name) for name in FORMATS}], key=lambda row: row["file"])
    (folder / TABLE).write_text(Table(TITLE, FORMATS, new).json())
    (folder / PAGE).write_text(_page(new))
    plots.results(new, PUBLISHED, folder / PICTURE)


def tested(file: Path, dataset: Dataset) -> dict[str, Any]:
    """The accuracy of a file on the test split, of how many images, and the share of multiply-accumulates left."""
    apply, variables, info, preprocess = opened(file)
    result = evaluate(apply, variables, dataset.test, preprocess, description=f"testing {file.name}")
    image = np.zeros((1, *info.image_shape), np.float32)
    macs, whole = (nnc.cost(apply, each, image).macs for each in (variables, nnc.decompress(variables)))
    return {"tested": result.accuracy, "images": len(dataset.test), "left": macs / whole}


def speeds(file: Path, dataset: Dataset) -> dict[str, float | None]:
    """How fast a file is, beside the same network with dense floats, in turns, for batches of 32.

    Returns:
      `jax`, `onnx` and `images_per_s` of `FORMATS`; the last two are None where onnxruntime is not installed.
    """
    apply, variables, *_ = opened(file)
    dense, count = nnc.decompress(variables), min(8, len(dataset.train) // BATCH)
    batches = calibration_batches(dataset, count, BATCH)
    run, timed = jax.jit(nnc.inject(apply, fast=True)), functools.partial(fastest, turns=TURNS, seconds=SECONDS)
    small, whole = timed([functools.partial(run, each, batches[0]) for each in (variables, dense)])
    found: dict[str, float | None] = {"jax": whole / small, "onnx": None, "images_per_s": None}
    try:
        with tempfile.TemporaryDirectory() as folder:
            sessions = [_session(f"{folder}/network.onnx", apply, each, batches) for each in (variables, dense)]
    except NotInstalledError:
        return found
    small, whole = timed([functools.partial(each, np.asarray(batches[0])) for each in sessions])
    return found | {"onnx": whole / small, "images_per_s": BATCH / small}


def _session(path: str, apply: Any, variables: Any, batches: Sequence[Any]) -> Callable[[np.ndarray], Any]:
    """Runs the network in onnxruntime, what is quantized on integers."""
    from nncompress_jax.export.runtime import session

    nnc.export_onnx(path, apply, variables, batches[0], batches=batches)
    runs = session(Path(path))
    (name,) = [each.name for each in runs.get_inputs()]
    return lambda images: runs.run(None, {name: images})


def fits(row: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether what was tested is what the row says."""
    near = abs(found["tested"] - row["accuracy"]) <= max(TOLERANCE, 1.5 / found["images"])
    return near and abs(found["left"] - row["macs"]) <= TOLERANCE


def _known(folder: Path) -> list[dict[str, Any]]:
    table = folder / TABLE
    found = json.loads(table.read_text())["rows"] if table.exists() else []
    return [dict.fromkeys(FORMATS) | row for row in found]  # tables of earlier versions had fewer columns


def _differences(file: Path, row: Mapping[str, Any]) -> list[str]:
    info = load(file).info
    found = {"bytes": file.stat().st_size, "accuracy": info.accuracy, "dataset": info.dataset, "network": info.model}
    return [
        f"{file.name} has {name} {value}, its row {row[name]}" for name, value in found.items() if value != row[name]
    ]


def _page(known: Sequence[Mapping[str, Any]]) -> str:
    text = (
        "Written by `python experiments/rate.py ... --keep=results`, and tested by `python experiments/results.py`.\n"
        "`float` is the accuracy before compression, `share` the file's part of the float network's bytes, `macs` the\n"
        "part of its multiply-accumulates that is left; `jax` and `onnx` say how many times as fast as its own floats\n"
        "it is here and in ONNX Runtime, `images_per_s` how fast there, at batch 32 on two CPU cores. `cifar10_jpeg`\n"
        "has CIFAR-10's images as JPEG: these are not accuracies on CIFAR-10. Each file is read by `nnc.load`.\n"
    )
    picture = (
        f"![Accuracy that is lost against times smaller, operations, and speed]({PICTURE})\n\n"
        "Crosses: published files of VGG16 on CIFAR-10, all against the 93.4 % of the uncompressed\n"
        "network in Oktay et al. 2020; another data set than ours.\n"
    )
    return f"# Results\n\n{text}\n{Table(TITLE, FORMATS, known).markdown()}\n{picture}"
