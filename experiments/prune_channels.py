"""Criteria for cutting channels side by side: accuracy and speed at several budgets, before and after fine-tuning.

python experiments/prune_channels.py --model=vgg16ds --inits runs/seed0 runs/seed1 --dataset=digits --epochs=1
python experiments/prune_channels.py --model=vgg16 --inits vgg16.pth --dataset=cifar10 --macs 0.7 0.5 --no_fine_tuning
"""

import dataclasses
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import nncompress_jax as nnc
from nncompress_jax import checksums, criteria, models
from nncompress_jax.commands import cli
from nncompress_jax.commands.initial import initial_variables
from nncompress_jax.data import sources
from nncompress_jax.measurements import Measurements
from nncompress_jax.table import Table
from nncompress_jax.training import checkpoint
from nncompress_jax.training.config import Config, what
from nncompress_jax.training.evaluation import evaluate
from nncompress_jax.training.loop import train
from nncompress_jax.training.setup import calibration_batches, load_dataset, preprocessing
from nncompress_jax.types import Variables

FORMATS = {
    **{"criterion": "", "macs": ",", "parameters": ",", "accuracy": ".4f", "spread": ".4f"},
    **{"fine_tuned": ".4f", "fine_tuned_spread": ".4f", "int8": ".4f"},
}
"""Spread: the highest accuracy less the lowest. int8: of the network as it is in the end, static ranges."""

Name = Literal["l1", "l2", "scale", "median", "taylor", "reconstruction", "random"]

BATCHES, BATCH_SIZE = 4, 64
"""Of training images at most, for criteria that look at data, and for static ranges."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which networks, cut how; --epochs, --batch_size and --learning_rate are those of the fine-tuning."""

    config: tyro.conf.OmitArgPrefixes[Config]
    inits: tuple[str, ...]
    """Workdirs of trained networks, or .pth files."""
    criteria: tuple[Name, ...] = ("l1", "l2", "scale", "median", "taylor", "reconstruction", "random")
    """Which channels go: l1, l2, scale (of batch norm), median (geometric), taylor, reconstruction (ThiNet), random."""
    macs: tuple[float, ...] = (0.7, 0.5, 0.3)
    """Shares of the multiply-accumulates that stay."""
    round_to: int = 1
    """Channels that stay, in multiples; 16 suits processors."""
    no_fine_tuning: bool = False
    """Test the networks as they are cut."""
    out: Path = Path("runs/filters")
    """Folder for the runs and the table (Markdown, CSV, JSON)."""


def main(options: Options) -> None:
    """Cuts, tests, fine-tunes and tests again; what is measured is written at once and not repeated."""
    dataset = load_dataset(options.config)
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for criterion, macs in [("none", 1.0), *((each, share) for share in options.macs for each in options.criteria)]:
        results = [compared(options, dataset, init, criterion, macs) for init in options.inits]
        row = {"criterion": criterion} | {name: results[0][name] for name in ("macs", "parameters")}
        for name, spread in (("accuracy", "spread"), ("fine_tuned", "fine_tuned_spread"), ("int8", "")):
            values = [result[name] for result in results]
            known = None not in values
            row |= {name: statistics.fmean(values) if known else None}
            row |= {spread: max(values) - min(values) if known else None} if spread else {}
        rows.append(row)
        print(Table("", FORMATS, rows[-1:]).markdown().splitlines()[-1], flush=True)
    title = f"{options.config.model} on the test split of {options.config.dataset}, {len(options.inits)} networks"
    table = Table(title, FORMATS, rows)
    table.print()
    table.write(options.out, f"{options.config.model}-{options.config.dataset}")


def methods(dataset: sources.Dataset, images: list[jax.Array], seed: int) -> Mapping[str, dict[str, Any]]:
    """What `nnc.prune_channels` is given for each criterion."""
    _, labels = dataset.train.read(np.arange(sum(map(len, images))))
    examples = [(batch, jnp.asarray(own)) for batch, own in zip(images, np.split(labels, len(images)), strict=True)]
    return {
        "l1": {"criterion": criteria.l1},
        "l2": {"criterion": criteria.l2},
        "scale": {"criterion": criteria.batch_norm_scale},
        "median": {"criterion": criteria.geometric_median},
        "taylor": {"criterion": criteria.taylor(cross_entropy, examples)},
        "reconstruction": {"criterion": criteria.reconstruction(images), "reconstruct": True},
        "random": {"criterion": criteria.random(jax.random.key(seed))},
    }


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def compared(options: Options, dataset: sources.Dataset, init: str, criterion: str, macs: float) -> Mapping[str, Any]:
    """Accuracy before and after fine-tuning, and of the end in int8."""
    config = dataclasses.replace(options.config, init=init, recipe=None)
    variables = initial_variables(config)
    assert variables is not None
    cut = {"criterion": criterion, "macs": macs, "round_to": options.round_to}
    run = cut | what(config) | {"init": checksums.of_description(checksums.of_leaves(variables))}
    folder = f"{Path(init).stem}-{criterion}-{macs:g}-{checksums.of_description(run):08x}"
    config = dataclasses.replace(config, workdir=str(options.out / folder))
    return Measurements(options.out / "measurements.jsonl").of(
        run | {"fine_tuning": not options.no_fine_tuning},
        lambda: measured(config, variables, dataset, criterion, options, macs),
    )


def measured(
    config: Config, variables: Variables, dataset: sources.Dataset, criterion: str, options: Options, macs: float
) -> dict[str, Any]:
    """What `compared` gives, computed."""
    name = config.folder().name
    network = models.fitting(models.named(config.model, num_classes=len(dataset.class_names)), variables)
    preprocess = preprocessing(dataset)
    images = calibration_batches(dataset, BATCHES, min(BATCH_SIZE, len(dataset.train) // BATCHES))
    if criterion != "none":
        method = nnc.prune_channels(
            macs=macs, round_to=options.round_to, **methods(dataset, images, config.seed)[criterion]
        )
        variables = nnc.compress(variables, method, apply=network.apply, batches=images)
    result = evaluate(network.apply, variables, dataset.test, preprocess, description=f"testing {name}")
    tuned: float | None = None
    if not options.no_fine_tuning:
        run = train(config, variables)
        variables, tuned = checkpoint.restore(run.workdir), run.evaluation.accuracy
    method = nnc.quantize(ranges=nnc.calibration.mean_squared_error)
    small = nnc.compress(variables, method, apply=network.apply, batches=images)
    int8 = evaluate(network.apply, small, dataset.test, preprocess, description=f"testing {name} int8")
    cost = nnc.cost(network.apply, variables, jax.ShapeDtypeStruct((1, *dataset.test.image_shape), np.float32))
    figures = {"accuracy": result.accuracy, "fine_tuned": tuned, "int8": int8.accuracy}
    return figures | {"macs": cost.macs, "parameters": cost.parameters}


if __name__ == "__main__":
    cli.run(main, Options)
