"""What onnxruntime makes of exported networks: accuracy, and on how many images it agrees with this library.

python experiments/export.py --networks vgg16=vgg16.pth vgg16ds=vgg16ds.pth --dataset=cifar10
"""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import nncompress_jax as nnc
from nncompress_jax.commands import cli
from nncompress_jax.commands.initial import Images, Trained, named
from nncompress_jax.export.runtime import served
from nncompress_jax.table import Table
from nncompress_jax.training.setup import calibration_batches, preprocessing
from nncompress_jax.tree import stored_bytes

FORMATS = {
    **{"network": "", "accuracy": ".2%", "int8": ".2%", "exported": ".2%", "agree": ".2%"},
    **{"bytes": ",", "share": ".4f", "integer": "", "others": ""},
}
"""accuracy: of floats. int8: of ours, with static ranges. exported: of the same in onnxruntime. agree: images of which
both say the same. bytes: of the ONNX file; share of the floats'. integer, others: products, by what they run on."""

BATCH_SIZE = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which networks."""

    images: tyro.conf.OmitArgPrefixes[Images]
    networks: tuple[str, ...]
    """MODEL=WEIGHTS: a network by name, and its workdir or .pth file."""
    batches: int = 8
    """Of 128 training images at most, for ranges."""
    out: Path = Path("runs/export")
    """Folder for the table."""


def main(options: Options) -> None:
    """Exports and tests."""
    rows = []
    for trained in named(options.networks, options.images):
        rows.append({"network": trained.model} | measured(trained, options.batches))
        name = trained.dataset.name
    table = Table(f"exported to ONNX, test split of {name}", FORMATS, rows)
    table.print()
    table.write(options.out, f"export-{name}")


def measured(trained: Trained, count: int) -> dict[str, Any]:
    """The other columns."""
    apply, variables, dataset = trained.network.apply, trained.variables, trained.dataset
    batches = calibration_batches(dataset, count, min(128, len(dataset.train) // count))
    method = nnc.quantize(ranges=nnc.calibration.mean_squared_error)
    small = nnc.compress(variables, method, apply=apply, batches=batches)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "network.onnx")
        written = nnc.export_onnx(file, apply, small, batches[0], batches=batches)
        exported = served(file).apply
    labels = dataset.test.read(np.arange(len(dataset.test)))[1]
    floats, own, other = (
        predictions(run, leaves, trained)
        for run, leaves in ((nnc.inject(apply), variables), (nnc.inject(apply), small), (exported, {}))
    )
    accuracies = {"accuracy": floats, "int8": own, "exported": other}
    found: dict[str, Any] = {name: float(np.mean(each == labels)) for name, each in accuracies.items()}
    share = written.size_bytes / stored_bytes(variables)
    found |= {"agree": float(np.mean(own == other)), "bytes": written.size_bytes, "share": share}
    return found | {"integer": written.integer, "others": written.others}


def predictions(apply: Any, variables: Any, trained: Trained) -> np.ndarray:
    """[N] class numbers, of the test split."""
    split, preprocess = trained.dataset.test, preprocessing(trained.dataset)
    run = jax.jit(lambda variables, images: apply(variables, preprocess(images)).argmax(-1))
    starts = range(0, len(split), BATCH_SIZE)
    rows = [np.arange(start, min(start + BATCH_SIZE, len(split))) for start in starts]
    return np.concatenate([np.asarray(run(variables, jnp.asarray(split.read(each)[0]))) for each in rows])


if __name__ == "__main__":
    cli.run(main, Options)
