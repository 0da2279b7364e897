"""Compresses a trained network into one file, tests what it has become, and says how small it is.

nncompress compress --init=runs/W --recipe=quantize:8 --out=model.nnc
nncompress compress --init=vgg16.pth --dataset=cifar10 --recipe=prune:0.9+cluster:4 --out=model.nnc
nncompress compress --init=runs/W --auto=bytes:0.03 --out=model.nnc
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import tyro

import nncompress_jax as nnc
from nncompress_jax.commands import cli
from nncompress_jax.commands.initial import Images, Trained, trained
from nncompress_jax.data.sources import Dataset
from nncompress_jax.models.own import OwnNetwork
from nncompress_jax.search.auto import Found
from nncompress_jax.training.evaluation import evaluate
from nncompress_jax.training.setup import calibration_batches, preprocessing
from nncompress_jax.tree import stored_bytes
from nncompress_jax.types import Method, Variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(cli.Printed):
    """Which network, compressed how, into which file."""

    init: str
    """The trained network: the workdir of a run, a file of torch (.pth, .pt, .ckpt), or .safetensors."""
    out: Path
    """The file, as model.nnc."""
    recipe: str | None = "quantize:8"
    """How it is compressed: words of `nnc.recipe` with a number each, joined by +, as prune:0.9+cluster:4. Of bits:
    quantize, cluster; rate (bits of entropy for each weight). step (between neighbouring values). Of sparsity: prune,
    prune_global. Of multiply-accumulates, the share that stays: channels, factorize, tucker; of values: hash. Without a
    number: binarize, ternarize, unused (leaves out channels that only zeros multiply). For training: fake_quantize
    (bits), target_rate, price, fake_binarize, fake_ternarize, dense. None: as it was trained."""
    auto: str | None = None
    """Instead of a recipe a budget, as bytes:0.03, macs:0.5+bytes:0.05 or max_drop:0.005; see `nnc.auto`. Accuracy is
    measured on training images that calibration has not seen."""
    model: str | None = None
    """The network that a file is of; by default the keys in it tell."""
    images: tyro.conf.OmitArgPrefixes[Images] = dataclasses.field(default_factory=Images)
    calibration_batches: int = 4
    """Batches of 64 training images at most, for recipes that look at data; 16 are a good number for --auto."""
    examples: int = 5000
    """Training images on which --auto=max_drop measures, at most."""
    floats: Literal["as they are", "bfloat16", "float16"] = "as they are"
    """How floats are stored: biases, scales, batch statistics, and weights that are not compressed."""


def main(options: Options) -> dict[str, Any]:
    """Compresses, tests on the test split, and writes the file."""
    source = trained(options.init, model=options.model, images=options.images)
    network, dataset = source.network, source.dataset
    small = nnc.convert(source.variables)
    if options.auto or options.recipe:
        batch_size = min(64, len(dataset.train) // 4)
        batches = calibration_batches(dataset, options.calibration_batches, batch_size)
        seen = options.calibration_batches * batch_size
        method = _automatic(options, dataset, seen) if options.auto else nnc.recipe(options.recipe or "")
        small = nnc.compress(source.variables, method, apply=network.apply, batches=batches)
    result = evaluate(network.apply, small, dataset.test, preprocessing(dataset), description="testing")
    recipe = f"auto({options.auto})" if options.auto else options.recipe
    floats = None if options.floats == "as they are" else options.floats
    save(options.out, small, source, accuracy=result.accuracy, recipe=recipe, floats=floats)
    written, whole = options.out.stat().st_size, stored_bytes(nnc.decompress(small))
    print(
        f"{options.out}: {written:,} bytes, {written / whole:.4f} of {whole:,} as floats; "
        f"test accuracy {result.accuracy:.4f} on {dataset.name}"
    )
    found = {"file": str(options.out), "bytes": written, "float_bytes": whole}
    return found | {"accuracy": result.accuracy, "dataset": dataset.name, "recipe": recipe}


def save(
    file: Path,
    small: Variables,
    source: Trained,
    *,
    accuracy: float,
    recipe: str | None,
    floats: Literal["bfloat16", "float16"] | None = None,
) -> None:
    """A compressed network in one file, with all that is needed to classify a picture.

    Args:
      file: to write.
      small: the variables.
      source: what they were made of.
      accuracy: that they have.
      recipe: how they were made.
      floats: as `nnc.save` has it.
    """
    network, dataset = source.network, source.dataset
    if isinstance(network, OwnNetwork):
        of: dict[str, Any] = {"apply": network.apply, "example": np.zeros((2, *dataset.test.image_shape), np.float32)}
    else:
        of = {"model": source.model, "options": {"num_classes": len(dataset.class_names)}}
    nnc.save(
        file,
        small,
        **of,
        image_shape=dataset.test.image_shape,
        mean=dataset.mean,
        deviation=dataset.deviation,
        class_names=dataset.class_names,
        recipe=recipe,
        dataset=dataset.name,
        accuracy=accuracy,
        floats=floats,
    )


def _automatic(options: Options, dataset: Dataset, seen: int) -> Method:
    """The method of a budget in words; accuracy is measured on training images behind those that were seen."""
    budgets: dict[str, Any] = {}
    for part in (options.auto or "").split("+"):
        word, _, number = part.partition(":")
        try:
            budgets[word] = float(number)
        except ValueError:
            budgets[""] = None
    if not budgets.keys() <= {"bytes", "macs", "max_drop"}:
        raise nnc.InputError(f"--auto={options.auto}: expected bytes:0.03, macs:0.5 or max_drop:0.005, joined by +")
    if "max_drop" in budgets:
        rows = np.arange(seen, min(seen + options.examples, len(dataset.train)))
        if not len(rows):
            raise nnc.InputError(
                f"--auto={options.auto}: calibration has seen all {len(dataset.train)} training images; lower "
                "--calibration_batches"
            )
        images, labels = dataset.train.read(rows)
        budgets["examples"] = np.asarray(preprocessing(dataset)(jnp.asarray(images))), labels
    file = options.out.with_suffix(".search.jsonl")
    return nnc.auto(**budgets, file=file, report=_shown)


def _shown(found: Found) -> None:
    if found.table.rows:
        found.table.print()
    if found.drop:
        drop = found.drop
        print(f"accuracy drops by {drop.mean:.4f}, at most {drop.most:.4f}, of {drop.examples:,} training images")
