"""How much each group of channels can lose: accuracy against the share that is cut, as a table and a picture.

python experiments/sensitivity.py --model=vgg16ds --init=runs/digits --dataset=digits

What is measured is written at once; the same command goes on where it stopped.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import nncompress_jax as nnc
from nncompress_jax import models
from nncompress_jax.commands import cli
from nncompress_jax.commands.initial import initial_variables
from nncompress_jax.data.split import InMemory
from nncompress_jax.errors import InputError
from nncompress_jax.report import plots
from nncompress_jax.training.config import Config
from nncompress_jax.training.evaluation import evaluate
from nncompress_jax.training.setup import load_dataset, preprocessing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """A trained network, named by --init, and what is cut of it."""

    config: tyro.conf.OmitArgPrefixes[Config]
    rates: tuple[float, ...] = (0.25, 0.5, 0.75, 0.9)
    """Shares of a group's channels that go, those of the smallest norm first."""
    images: int = 1000
    """Test images to measure on, the first ones."""
    out: Path = Path("runs/sensitivity")
    """Folder for the measurements, the table (Markdown, CSV, JSON) and the picture."""


def main(options: Options) -> None:
    """Measures what is not measured yet."""
    variables = initial_variables(options.config)
    if variables is None or options.config.init is None:
        raise InputError("--init is missing: the trained network, a workdir or a .pth file")
    dataset = load_dataset(options.config)
    network = models.fitting(models.named(options.config.model, num_classes=len(dataset.class_names)), variables)
    preprocess = preprocessing(dataset)
    split = InMemory(*dataset.test.read(np.arange(min(options.images, len(dataset.test)))))
    name = f"{options.config.model}-{options.config.dataset}-{Path(options.config.init).stem}"
    title = f"{options.config.model}, {len(split)} test images of {options.config.dataset}"
    table = nnc.sensitivity(
        network.apply,
        variables,
        lambda cut: evaluate(network.apply, cut, split, preprocess).accuracy,
        batches=[jax.ShapeDtypeStruct((1, *split.image_shape), jnp.float32)],
        rates=options.rates,
        file=options.out / f"{name}.jsonl",
        title=title,
    )
    table.print()
    table.write(options.out, name)
    plots.sensitivity(table.rows, title, options.out / f"{name}.png")


if __name__ == "__main__":
    cli.run(main, Options)
