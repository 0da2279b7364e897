"""Families of compression side by side: accuracy after compression, and after fine-tuning the compressed network.

python experiments/families.py --model=vgg16ds --inits runs/seed0 runs/seed1 --dataset=digits --epochs=3
python experiments/families.py --model=vgg16 --inits vgg16.pth --dataset=cifar10 --no_fine_tuning

Networks that were trained from the same data with several seeds make the spread. Stages of a recipe that are divided by
a slash are fine-tuned one after the other, as Deep Compression is; without fine-tuning they are one chain.
"""

import dataclasses
import statistics
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

import nncompress_jax as nnc
from nncompress_jax import models
from nncompress_jax.commands import cli
from nncompress_jax.commands.initial import initial_variables
from nncompress_jax.data import sources
from nncompress_jax.methods.selection import LeftAlone
from nncompress_jax.table import Table
from nncompress_jax.training.config import Config
from nncompress_jax.training.evaluation import evaluate
from nncompress_jax.training.loop import train
from nncompress_jax.training.setup import load_dataset, preprocessing
from nncompress_jax.tree import stored_bytes

FORMATS = {
    "recipe": "",
    "bytes": ",",
    "share": ".3f",
    "macs": ",",
    "accuracy": ".4f",
    "spread": ".4f",
    "fine_tuned": ".4f",
    "fine_tuned_spread": ".4f",
}
"""Share: of the float network's bytes. Spread: the highest accuracy less the lowest, over the networks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which networks, compressed how; --epochs, --batch_size and --learning_rate are those of the fine-tuning."""

    config: tyro.conf.OmitArgPrefixes[Config]
    inits: tuple[str, ...]
    """Workdirs of trained networks, or .pth files."""
    recipes: tuple[str, ...] = (
        *("none", "quantize:8", "fake_quantize:8", "quantize:4", "fake_quantize:4", "quantize:2", "fake_quantize:2"),
        *("fake_binarize", "cluster:4", "prune_global:0.8", "prune_global:0.9", "prune_global:0.95", "factorize:0.5"),
        "prune_global:0.9/cluster:4",
    )
    """Of `nnc.recipe`, or none; stages divided by a slash."""
    no_fine_tuning: bool = False
    """Test the compressed networks as they are."""
    out: Path = Path("runs/families")
    """Folder for the runs and the table (Markdown, CSV, JSON)."""


def main(options: Options) -> None:
    """Compresses, tests, fine-tunes and tests again; finished runs are not repeated."""
    warnings.simplefilter("once", LeftAlone)
    dataset = load_dataset(options.config)
    rows: list[dict[str, Any]] = []
    for recipe in options.recipes:
        results = [compared(options, dataset, init, recipe) for init in options.inits]
        row = {"recipe": recipe, "bytes": results[0]["bytes"], "macs": results[0]["macs"]}
        row["share"] = row["bytes"] / (rows or [row])[0]["bytes"]
        rows.append(row | over(results, "accuracy", "spread") | over(results, "fine_tuned", "fine_tuned_spread"))
        print(Table("", FORMATS, rows[-1:]).markdown().splitlines()[-1], flush=True)
    title = f"{options.config.model} on the test split of {options.config.dataset}, {len(options.inits)} networks"
    table = Table(title, FORMATS, rows)
    table.print()
    table.write(options.out, f"{options.config.model}-{options.config.dataset}")


def over(results: list[dict[str, Any]], name: str, spread: str) -> dict[str, float | None]:
    """Mean and spread of a figure over the networks."""
    values = [result[name] for result in results]
    if None in values:
        return {name: None, spread: None}
    return {name: statistics.fmean(values), spread: max(values) - min(values)}


def compared(options: Options, dataset: sources.Dataset, init: str, recipe: str) -> dict[str, Any]:
    """Accuracy before and after fine-tuning, and what is stored in the end."""
    network = models.named(options.config.model, num_classes=len(dataset.class_names))
    tuned: float | None = None
    stages = [recipe.replace("/", "+")] if options.no_fine_tuning else recipe.split("/")
    for stage in stages:
        folder = options.out / f"{Path(init).stem}-{stage.replace(':', '').replace('.', '')}"
        recipe_of = None if stage == "none" else stage
        config = dataclasses.replace(options.config, init=init, recipe=recipe_of, workdir=str(folder))
        variables = initial_variables(config)
        assert variables is not None
        converted = nnc.convert(variables)
        result = evaluate(
            network.apply, converted, dataset.test, preprocessing(dataset), description=f"testing {recipe}"
        )
        if not options.no_fine_tuning:
            run = train(config, variables)
            init, tuned = str(run.workdir), run.evaluation.accuracy
    image = jax.ShapeDtypeStruct((1, *dataset.test.image_shape), np.float32)
    cost = nnc.cost(network.apply, converted, image)
    return {"accuracy": result.accuracy, "fine_tuned": tuned, "bytes": stored_bytes(converted), "macs": cost.macs}


if __name__ == "__main__":
    cli.run(main, Options)
