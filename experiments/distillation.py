"""Does a teacher help? Compressed networks that are fine-tuned with and without one, side by side.

python experiments/distillation.py --model=vgg16ds --inits runs/seed0 runs/seed1 --dataset=digits --epochs=3
python experiments/distillation.py --model=vgg16ds --inits net.pth --teachers none self vgg16=vgg16.pth --epochs=1

Every compressed network is fine-tuned for as many epochs, in batches of the same images, whoever teaches it.
"""

import dataclasses
import statistics
from pathlib import Path
from typing import Any

import tyro

from nncompress_jax.commands import cli
from nncompress_jax.commands.initial import initial_variables
from nncompress_jax.commands.teacher import objective_of
from nncompress_jax.commands.turns import turns_of
from nncompress_jax.errors import InputError
from nncompress_jax.measurements import Measurements
from nncompress_jax.table import Table
from nncompress_jax.training.config import Config, what
from nncompress_jax.training.loop import train

FORMATS = {"recipe": "", "teacher": "", "accuracy": ".4f", "spread": ".4f", "gain": "+.4f", "lowest_gain": "+.4f"}
"""Spread: the highest accuracy less the lowest. Gain: over the same network and seed without a teacher, the mean and
the lowest."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which networks, compressed how, taught by whom; --epochs and --learning_rate are those of the fine-tuning."""

    config: tyro.conf.OmitArgPrefixes[Config]
    inits: tuple[str, ...]
    """Workdirs of trained networks, or files of weights."""
    recipes: tuple[str, ...] = ("fake_quantize:2", "prune_global:0.95", "channels:0.5")
    """Of `nnc.recipe`; turns divided by a slash."""
    teachers: tuple[str, ...] = ("none", "self")
    """none; self, the network before it was compressed; or MODEL=WEIGHTS."""
    seeds: tuple[int, ...] = (0,)
    """Of the fine-tuning of each network."""
    out: Path = Path("runs/distillation")
    """Folder for the runs and the table (Markdown, CSV, JSON)."""


def main(options: Options) -> None:
    """Fine-tunes, tests, and compares; finished runs are not repeated."""
    if "none" not in options.teachers:
        raise InputError(f"--teachers {' '.join(options.teachers)}: expected none among them, to compare with")
    measurements = Measurements(options.out / "measurements.jsonl")
    rows: list[dict[str, Any]] = []
    for recipe in options.recipes:
        runs = {
            teacher: [
                measured(measurements, options, init, recipe, teacher, seed)
                for init in options.inits
                for seed in options.seeds
            ]
            for teacher in options.teachers
        }
        for teacher, found in runs.items():
            gains = [one - other for one, other in zip(found, runs["none"], strict=True)]
            rows.append(
                {
                    "recipe": recipe,
                    "teacher": teacher.partition("=")[0],
                    "accuracy": statistics.fmean(found),
                    "spread": max(found) - min(found),
                    "gain": statistics.fmean(gains),
                    "lowest_gain": min(gains),
                }
            )
            print(Table("", FORMATS, rows[-1:]).markdown().splitlines()[-1], flush=True)
    config, count = options.config, len(options.inits) * len(options.seeds)
    table = Table(f"{config.model} on the test split of {config.dataset}, {count} runs each", FORMATS, rows)
    table.print()
    table.write(options.out, f"{config.model}-{config.dataset}")


def measured(measurements: Measurements, options: Options, init: str, recipe: str, teacher: str, seed: int) -> float:
    """Test accuracy after fine-tuning."""
    model, _, place = teacher.rpartition("=")
    learnt: dict[str, Any] = {} if teacher == "none" else {"teacher": place, "teacher_model": model or None}
    words = [Path(init).stem, recipe, Path(place).stem, f"seed{seed}"]
    folder = options.out / "-".join(words).replace(":", "").replace("/", "-")
    config = dataclasses.replace(options.config, init=init, recipe=recipe, seed=seed, workdir=str(folder), **learnt)

    def figures() -> dict[str, float]:
        run = train(config, initial_variables(config), objective_of(config), turns_of(config))
        return {"accuracy": run.evaluation.accuracy}

    return measurements.of(what(config), figures)["accuracy"]


if __name__ == "__main__":
    cli.run(main, Options)
