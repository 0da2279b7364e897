"""Compares networks as floats, on true 8-bit integers, and with the original project's simulation, in its table.

python experiments/compare.py                           # trains VGG16 and VGG16-DS, or goes on with their runs
python experiments/compare.py --workdirs runs/a runs/b  # takes the networks from their latest checkpoints
"""

import dataclasses
import platform
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from etils import epath

import nncompress_jax as nnc
from nncompress_jax.commands import cli
from nncompress_jax.commands.initial import Images, trained
from nncompress_jax.methods import minmax
from nncompress_jax.report import plots
from nncompress_jax.table import Table
from nncompress_jax.training import checkpoint
from nncompress_jax.training.config import Config, Settings, read
from nncompress_jax.training.evaluation import evaluate
from nncompress_jax.training.loop import train
from nncompress_jax.training.setup import calibration_batches, preprocessing
from nncompress_jax.tree import stored_bytes

FORMATS = {
    "model": "",
    "quantization": "",
    "accuracy": ".4f",
    "parameters": ",",
    "macs": ",",
    "bytes": ",",
    "training_s": ".0f",
    "images_per_s": ".0f",
}
"""Bytes are those of all parameters and batch statistics as they are stored."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(cli.Printed):
    """Which networks, and how those are trained that are not there yet."""

    settings: tyro.conf.OmitArgPrefixes[Settings] = dataclasses.field(default_factory=Settings)
    models: tuple[str, ...] = ("vgg16", "vgg16ds")
    """Networks to train; each into the workdir that train.py would choose."""
    workdirs: tuple[str, ...] = ()
    """Training runs to take networks from, instead of --models and how to train them."""
    bits: int = 8
    """Of the simulation."""
    calibration_batches: int = 10
    """Batches of training images that set the static ranges of int8."""
    batch_size_of_test: int = 100
    """Images a batch; the simulation's ranges are those of a batch."""
    out: Path = Path("runs/compare")
    """Folder for the table (Markdown, CSV, JSON) and the picture."""


def main(options: Options) -> list[dict[str, Any]]:
    """Trains what is missing, tests everything, prints and writes the table."""
    settings = dataclasses.asdict(options.settings)
    workdirs = options.workdirs or [train(Config(model=model, **settings)).workdir for model in options.models]
    names = {read(workdir).dataset for workdir in workdirs}
    if len(names) > 1:
        raise nnc.InputError(f"the workdirs are of several data sets ({', '.join(sorted(names))}), expected one")
    rows = [row for workdir in workdirs for row in compare(epath.Path(workdir), options)]

    title = f"Test split of {names.pop()}; {jax.device_count()} x {jax.devices()[0].device_kind}, {platform.machine()}"
    table = Table(title, FORMATS, rows)
    table.print()
    table.write(options.out, "table")
    plots.accuracy_by_bytes(rows, title, options.out / "accuracy_by_bytes.png")
    print(f"table and picture: {options.out}")
    return rows


def compare(workdir: epath.Path, options: Options) -> list[dict[str, Any]]:
    """A row for the network as it is, and one for each way to quantize it."""
    source = trained(str(workdir), images=Images(data_dir=options.settings.data_dir))
    network, variables, dataset = source.network, source.variables, source.dataset
    training_seconds = checkpoint.load_progress(workdir).training_seconds
    cost = nnc.cost(network.apply, variables, jnp.zeros((1, *dataset.test.image_shape)))
    apply = nnc.inject(network.apply)
    batches = calibration_batches(dataset, options.calibration_batches, options.batch_size_of_test)
    static = nnc.quantize(ranges=nnc.calibration.mean_squared_error)
    variants = {
        "none": (network.apply, variables),
        "int8, dynamic activations": (apply, nnc.compress(variables)),
        "int8, static activations": (apply, nnc.compress(variables, static, apply=apply, batches=batches)),
        f"minmax, {options.bits} bits": (
            minmax.simulate(network.apply, options.bits),
            minmax.quantize_variables(variables, options.bits),
        ),
    }
    rows = []
    for quantization, (apply, weights) in variants.items():
        description, size = f"testing {source.model}, quantization: {quantization}", options.batch_size_of_test
        result = evaluate(
            apply, weights, dataset.test, preprocessing(dataset), batch_size=size, description=description
        )
        rows.append(
            {
                "model": source.model,
                "quantization": quantization,
                "accuracy": result.accuracy,
                "parameters": cost.parameters,
                "macs": cost.macs,
                "bytes": stored_bytes(weights),
                "training_s": training_seconds if quantization == "none" else None,
                "images_per_s": result.images_per_second,
            }
        )
    return rows
