"""Tests a network: accuracy and confusion by class, as floats, on 8-bit integers, or as the original simulated them.

python experiments/evaluate.py --workdir=W
python experiments/evaluate.py --workdir=W --quantize=int8 --calibration_batches=10
python experiments/evaluate.py --checkpoint=model.pth --dataset=cifar10
python experiments/evaluate.py --file=model.onnx
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import tyro

import nncompress_jax as nnc
from nncompress_jax.commands import cli
from nncompress_jax.commands.initial import Images, trained
from nncompress_jax.commands.served import opened
from nncompress_jax.data import sources
from nncompress_jax.methods import minmax
from nncompress_jax.report import plots
from nncompress_jax.table import Table
from nncompress_jax.training.evaluation import Evaluation, evaluate
from nncompress_jax.training.setup import calibration_batches, preprocessing
from nncompress_jax.tree import stored_bytes
from nncompress_jax.types import Apply, Variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(cli.Printed):
    """What is tested on what."""

    workdir: str | None = None
    """Of a training run: its latest checkpoint is tested, on its data set."""
    checkpoint: str | None = None
    """A file of torch (.pth, .pt, .ckpt) or .safetensors; of the projects that `nncompress_jax.importers` knows."""
    file: Path | None = None
    """Of `nncompress compress` or `nncompress export`: what is served is tested, .onnx files by onnxruntime."""
    model: str | None = None
    """The network that --checkpoint is of; by default the keys in it tell."""
    images: tyro.conf.OmitArgPrefixes[Images] = dataclasses.field(default_factory=Images)
    batch_size: int = 100
    """Images a batch; the simulation's ranges are those of a batch."""
    quantize: str = "none"
    """none; int8: weights and activations as true 8-bit integers; minmax: the original project's simulation, of
    weights, batch statistics and activations."""
    calibration_batches: int = 0
    """With int8: so many batches of training images set static ranges; 0: each image brings its own."""
    bits: int = 8
    """Of the simulation."""
    picture: Path | None = None
    """Draws the confusion into this PNG file; by default confusion-QUANTIZE.png in the workdir, if it is local."""


class Tested(NamedTuple):
    """A network, what it is tested on, and what makes its inputs of pixels."""

    apply: Apply
    variables: Variables
    dataset: sources.Dataset
    preprocess: Callable[[Any], Any]


def main(options: Options) -> dict[str, Any]:
    """Tests on the whole test split and prints a row for each class."""
    given = {name: value for name in ("workdir", "checkpoint", "file") if (value := getattr(options, name))}
    if len(given) != 1:
        raise nnc.InputError("expected one of --workdir, --checkpoint and --file")
    ((_, init),) = given.items()
    apply, variables, dataset, preprocess = _served(options) if options.file else _trained(init, options)
    result = evaluate(apply, variables, dataset.test, preprocess, batch_size=options.batch_size, description="testing")
    title = f"{init} on {dataset.name}, {_in_words(options)}"
    _table(result, dataset.class_names, f"{title}: rows are true classes, columns predictions").print()
    print(
        f"accuracy {result.accuracy:.4f} ({result.correct} of {result.count}), "
        f"{result.images_per_second:.0f} images/s, {_bytes(options, variables):,} bytes as stored"
    )
    picture = options.picture
    if picture is None and options.workdir and "://" not in options.workdir:
        picture = Path(options.workdir, f"confusion-{options.quantize}.png")
    if picture:
        plots.confusion(result.confusion, dataset.class_names, f"{title}\naccuracy {result.accuracy:.4f}", picture)
        print(f"picture: {picture}")
    found = {"accuracy": result.accuracy, "correct": result.correct, "count": result.count}
    found |= {"images_per_second": result.images_per_second, "bytes": _bytes(options, variables)}
    return found | {"dataset": dataset.name, "confusion": result.confusion.tolist()}


def _served(options: Options) -> Tested:
    """The network in a file, as it is."""
    assert options.file is not None
    if options.quantize != "none":
        raise nnc.InputError(f"--quantize={options.quantize} is for --workdir and --checkpoint; a file is what it is")
    apply, variables, info, preprocess = opened(options.file)
    images = dataclasses.replace(options.images, dataset=options.images.dataset or info.dataset)
    if not info.image_shape:
        raise nnc.InputError(f"{options.file}: names no shape of images")
    return Tested(apply, variables, images.load(None, info.image_shape[0]), preprocess)


def _trained(init: str, options: Options) -> Tested:
    source = trained(init, model=options.model, images=options.images)
    apply, variables = _quantized(source.network.apply, nnc.convert(source.variables), source.dataset, options)
    return Tested(apply, variables, source.dataset, preprocessing(source.dataset))


def _quantized(
    apply: Apply, variables: Variables, dataset: sources.Dataset, options: Options
) -> tuple[Apply, Variables]:
    if options.calibration_batches and options.quantize != "int8":
        raise nnc.InputError(f"--calibration_batches is for --quantize=int8, not {options.quantize}")
    if options.quantize == "none":
        return apply, variables
    if options.quantize == "minmax":
        return minmax.simulate(apply, options.bits), minmax.quantize_variables(variables, options.bits)
    if options.quantize != "int8":
        raise nnc.InputError(f"unknown quantization {options.quantize!r}; choose one of none, int8, minmax")
    if options.bits != 8:
        raise nnc.InputError(f"--bits={options.bits} is for --quantize=minmax; int8 has 8")
    if not options.calibration_batches:
        return nnc.inject(apply), nnc.compress(variables)
    batches = calibration_batches(dataset, options.calibration_batches, options.batch_size)
    method = nnc.quantize(ranges=nnc.calibration.mean_squared_error)
    return nnc.inject(apply), nnc.compress(variables, method, apply=apply, batches=batches)


def _bytes(options: Options, variables: Variables) -> int:
    return options.file.stat().st_size if options.file else stored_bytes(variables)


def _in_words(options: Options) -> str:
    if options.quantize == "int8":
        static = f"static from {options.calibration_batches} batches" if options.calibration_batches else "dynamic"
        return f"int8, ranges {static}"
    if options.file:
        return "as it is served"
    return "float32" if options.quantize == "none" else f"simulated {options.bits} bits ({options.quantize})"


def _table(result: Evaluation, class_names: tuple[str, ...], title: str) -> Table:
    """A row for each class: how many, how many right, and, where they fit on a page, which predictions."""
    counts = result.confusion
    predictions = class_names if len(class_names) <= 20 else ()
    rows = [
        {"class": name, "images": int(counts[i].sum()), "accuracy": counts[i, i] / max(counts[i].sum(), 1)}
        | {predicted: int(counts[i, j]) for j, predicted in enumerate(predictions)}
        for i, name in enumerate(class_names)
    ]
    formats = {"class": "", "images": ",", "accuracy": ".4f"} | dict.fromkeys(predictions, "d")
    return Table(title, formats, rows)
