"""Files of a given size, with and without training: `auto` alone, and trained on while the bits of codes have a price.

python experiments/rate.py --model=vgg16ds_stride --init=net.pth --dataset=cifar10 --shares 0.02 0.01 --epochs=1
python experiments/rate.py --model=vgg16ds --init=runs/digits --dataset=digits --shares 0.02 --epochs=3 --starts plain
python experiments/rate.py --model=vgg16 --init=vgg16.pth --shares 0.005 --macs=0.25 --teacher=self --keep=results

A training run begins with the steps that `auto` finds (or with steps of three bits for each weight), and is brought to
the bits of its codes that fit into the file. Batch normalization is folded, and the file measured, when it is done.
Channels are cut before: as many as serve the size best, or to a share of the operations, with --macs. --keep adds the
files to a folder of results.
"""

import dataclasses
import functools
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import tyro

import nncompress_jax as nnc
from nncompress_jax import checksums
from nncompress_jax.commands import cli, results
from nncompress_jax.commands.compress import save
from nncompress_jax.commands.initial import Images, Trained, trained
from nncompress_jax.commands.teacher import objective_of
from nncompress_jax.measurements import Measurements
from nncompress_jax.methods.channels.unused import without_unused
from nncompress_jax.methods.layout import context_of
from nncompress_jax.methods.steps import base_path
from nncompress_jax.search.cutting import Cutting
from nncompress_jax.search.fitting import whole_bytes
from nncompress_jax.search.reference import Reference
from nncompress_jax.search.stitching import Stitching, file_bytes
from nncompress_jax.table import Table
from nncompress_jax.training import checkpoint
from nncompress_jax.training.config import Config, what
from nncompress_jax.training.evaluation import evaluate
from nncompress_jax.training.loop import train
from nncompress_jax.training.setup import calibration_batches, preprocessing
from nncompress_jax.tree import named_leaves
from nncompress_jax.weights.fake_quantized import FakeQuantized
from nncompress_jax.weights.quantized import Quantized

FORMATS = {
    **{"network": "", "float": ".2%"},
    **{"start": "", "asked": ".2%", "share": ".2%", "bytes": ",", "accuracy": ".2%"},
    **{"trained_bytes": ",", "trained_share": ".2%", "trained_accuracy": ".2%", "gain": "+.2%", "macs": ".2f"},
}
"""float: the accuracy of the network as it was trained. asked: the share that there was to be. share, bytes, accuracy:
of what training began with; the others after it.
macs: the share of the multiply-accumulates that is left.
"""

BATCHES, BATCH_SIZE = 32, 128
"""Of training images, that `auto` and the folding of statistics look at."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which network, how small, and how it trains: --epochs, --batch_size, --learning_rate, --teacher."""

    config: tyro.conf.OmitArgPrefixes[Config]
    shares: tuple[float, ...] = (0.05, 0.02, 0.01)
    """Of the float network's bytes."""
    starts: tuple[str, ...] = ("auto",)
    """auto: steps and codes of the second order; plain: one rate for all weights, rounded to nearest."""
    begin: float = 0.0
    """The least share that training begins with: where a file is to be smaller, the price of bits brings it down, at a
    loss where an epoch or so is all there is."""
    channels: float = 0.0
    """What a code in use costs of a whole channel while it trains, in bits, beside its own, as 0.5."""
    macs: float | None = None
    """The share of multiply-accumulates that stays, by cutting channels; by default what is best for the bytes."""
    keep: Path | None = None
    """A folder as results/, into which the trained files go, with their rows."""
    out: Path = Path("runs/rate")
    """Folder for runs, files and the table; what is measured is written at once and not repeated."""


def main(options: Options) -> None:
    """Compresses, trains, saves, tests."""
    if unknown := set(options.starts) - STARTS.keys():
        raise nnc.InputError(f"starts {', '.join(sorted(unknown))}: expected some of {', '.join(STARTS)}")
    config = options.config
    if config.init is None or config.recipe:
        raise nnc.InputError("expected --init, the trained network, and no --recipe")
    images = Images(dataset=config.dataset, data_dir=config.data_dir)
    source = trained(config.init, model=config.model, images=images)
    measurements = Measurements(options.out / "measurements.jsonl")
    subject = what(config) | {"weights": checksums.of_description(checksums.of_leaves(source.variables))}
    rows: list[dict[str, Any]] = []
    for start in options.starts:
        for share in options.shares:
            one = subject | {"start": start, "share": share, "begin": options.begin, "cut": options.macs}
            one |= {"channels": options.channels}
            found = measurements.of(one, functools.partial(measured, source, options, start, share))
            rows.append({"network": source.model, "start": start, "asked": share} | found)
            print(Table("", FORMATS, rows[-1:]).markdown().splitlines()[-1], flush=True)
            if options.keep:
                kept(options, start, share, rows[-1])
    name = f"rate-{config.model}-{config.dataset}"
    epochs = config.completed_preset().epochs
    table = Table(f"{config.model} on the test split of {config.dataset}, {epochs} epochs", FORMATS, rows)
    table.print()
    table.write(options.out, name)


def measured(source: Trained, options: Options, start: str, share: float) -> dict[str, Any]:
    """Bytes and accuracy of both files."""
    warnings.simplefilter("ignore")
    began = time.monotonic()
    apply, variables, dataset = source.network.apply, source.variables, source.dataset
    size = min(BATCH_SIZE, len(dataset.train) // BATCHES)
    batches = calibration_batches(dataset, BATCHES, size)
    whole, context = whole_bytes(variables), context_of(variables, apply, batches)
    searched = Measurements(options.out / "search.jsonl")
    cutting = Cutting(Reference(variables, context), Stitching(), searched, macs=options.macs)
    reference, begun = STARTS[start](cutting, max(share, options.begin) * whole)
    small = Stitching().finished(without_unused(begun, reference.context), reference)

    small_bytes = file_bytes(small)
    least = small_bytes - coded_bytes(small)
    rate = 8 * (share * whole - least) / entries(small)
    if rate <= 0:
        raise nnc.InputError(f"share {share}: {least:,.0f} bytes are taken by what has no codes; expected more")
    chosen = set(map(base_path, quantized(begun))).__contains__
    method = nnc.fake_quantize(target_rate=min(rate, 8.0), channels=options.channels, where=chosen)
    fake = nnc.compress(begun, method, apply=apply, batches=batches)
    name = named(options, start, share)
    config = dataclasses.replace(options.config, workdir=str(options.out / name))
    run = train(config, fake, objective_of(config))
    tuned = nnc.convert(checkpoint.restore(run.workdir))
    tuned = Stitching().folded(nnc.remove_unused_channels()(tuned, reference.context), reference.context)

    def accuracy(variables: Any) -> float:
        return evaluate(apply, variables, dataset.test, preprocessing(dataset), description="testing").accuracy

    minutes = (time.monotonic() - began) / 60
    before, after = accuracy(small), accuracy(tuned)
    save(options.out / f"{name}.nnc", tuned, source, accuracy=after, recipe=f"target_rate:{rate:.4g}")
    tuned_bytes = file_bytes(tuned)
    figures = {"float": accuracy(variables), "whole": whole}
    figures |= {"bytes": small_bytes, "share": small_bytes / whole, "accuracy": before}
    trained_figures = {"trained_bytes": tuned_bytes, "trained_share": tuned_bytes / whole}
    trained_figures |= {"trained_accuracy": after, "gain": after - before}
    macs = [nnc.cost(apply, each, batches[0]).macs for each in (nnc.decompress(variables), tuned)]
    return figures | trained_figures | {"macs": macs[1] / macs[0], "minutes": minutes}


def named(options: Options, start: str, share: float) -> str:
    """A name for what is made."""
    config = options.config
    cut = f"-macs{options.macs:g}" if options.macs else ""
    cut += f"-channels{options.channels:g}" if options.channels else ""
    cut += f"-begin{options.begin:g}" if options.begin else ""
    cut += "-taught" if config.teacher else ""
    return f"{config.model}-{config.dataset}-{start}{cut}-{share:g}-seed{config.seed}"


def kept(options: Options, start: str, share: float, row: dict[str, Any]) -> None:
    """Adds the file to the folder of results."""
    config, name = options.config, f"{named(options, start, share)}.nnc"
    assert options.keep is not None
    size = (options.out / name).stat().st_size
    fields = {"file": name, "network": row["network"], "dataset": config.dataset, "float": row["float"]}
    fields |= {"accuracy": row["trained_accuracy"], "bytes": size, "share": size / row["whole"]}
    how = f"{start}, then trained to its bits" + (f", taught by {config.teacher}" if config.teacher else "")
    fields |= {"macs": row["macs"], "how": how, "epochs": config.completed_preset().epochs, "seed": config.seed}
    dataset = Images(dataset=config.dataset, data_dir=config.data_dir).load(None, None)
    fields |= {"minutes": row.get("minutes")} | results.speeds(options.out / name, dataset)
    results.keep(options.keep, options.out / name, fields)


def by_auto(cutting: Cutting, budget: float) -> tuple[Reference, Any]:
    """The channels and codes that `auto` chooses, with the batch statistics that training goes on with."""
    small = cutting.within(budget, f"{budget:,.0f} bytes")
    codes, reference = quantized(small.made), cutting.cut(small.macs)
    leaves = [codes.get(path, leaf) for path, leaf in named_leaves(reference.variables)]
    return reference, jax.tree.unflatten(jax.tree.structure(reference.variables), leaves)


def by_one_rate(cutting: Cutting, budget: float) -> tuple[Reference, Any]:
    """Three bits for each weight, whatever the file may take."""
    reference = cutting.cut(cutting.macs or 1.0)
    return reference, nnc.quantize(rate=3.0)(reference.variables, reference.context)


STARTS: dict[str, Callable[[Cutting, float], tuple[Reference, Any]]] = {"auto": by_auto, "plain": by_one_rate}


def quantized(variables: Any) -> dict[str, Quantized]:
    """Weights with codes, by path; of cut channels, what is left of them."""
    leaves = named_leaves(variables, lambda leaf: isinstance(leaf, Quantized))
    return {path: leaf for path, leaf in leaves if isinstance(leaf, Quantized)}


def _fake(variables: Any) -> list[FakeQuantized]:
    """Weights with codes, as those that train."""
    fake = nnc.compress(quantized(variables), nnc.fake_quantize())
    return [leaf for leaf in fake.values() if isinstance(leaf, FakeQuantized)]


def coded_bytes(variables: Any) -> float:
    """That the codes take by their entropy."""
    return sum(float(weight.entropy_bits()) for weight in _fake(variables)) / 8


def entries(variables: Any) -> int:
    """Of all weights with codes."""
    return sum(weight.weight.size for weight in _fake(variables))


if __name__ == "__main__":
    cli.run(main, Options)
