"""One step for a whole weight beside steps that follow the spread of each output channel, at equal squared error.

python benchmarks/steps.py --networks vgg16 vgg16ds --inits vgg16.pth vgg16ds.pth --json=steps.json
"""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import measure
import numpy as np

import nncompress_jax as nnc
from nncompress_jax import models
from nncompress_jax.artifact import frequencies, sections
from nncompress_jax.commands import cli
from nncompress_jax.importers import torch
from nncompress_jax.methods.rate import entropy_bits
from nncompress_jax.table import Table
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Apply
from nncompress_jax.weights.base import is_compressed
from nncompress_jax.weights.quantized import Quantized

FORMATS = {
    **{"network": "", "rate": ".2f", "entropy": ",.0f", "codes": ",", "by_channel": ",", "more": ".1%"},
    **{"contexts": ",", "others": ",", "file": ",", "bfloat16": ",", "folded": ","},
}
"""rate: bits of entropy for each weight. entropy: bytes, zeroth order, of each weight's codes. codes: bytes of all
codes in a file. by_channel: the same, with steps in proportion to the standard deviation of each output channel; bytes
of the steps themselves are not counted. more: by_channel / codes - 1. contexts: bytes of codes, if the model of a
symbol went by its neighbours; the codes as they are where that is less. others: bytes of what is not quantized. file:
of the network, with one step for each weight. bfloat16: likewise, its floats in 16 bits. folded: likewise, after
`batch_norm.fold(weights=False)`."""

HALVINGS = 30
"""Of the range of the steps, a factor of 2^12, until errors are equal."""

IMAGE = jnp.ones((1, 32, 32, 3))

NEIGHBOURS = 4
"""Along each of two axes, of which a code's model goes by."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is quantized."""

    networks: tuple[str, ...] = ("vgg16ds",)
    """Names of models; their weights are at random without --inits."""
    inits: tuple[str, ...] = ()
    """A .pth file of the original project for each."""
    rates: tuple[float, ...] = (1.0, 0.5, 0.25)
    """Bits of entropy for each weight."""
    json: Path | None = None
    """Writes the figures here, with machine, versions and date."""


def main(options: Options) -> None:
    """Prints a table."""
    inits = options.inits or [None] * len(options.networks)
    rows = []
    for name, init in zip(options.networks, inits, strict=True):
        network = models.create(name)
        variables = torch.load(init, model=name) if init else drawn(network)
        rows += [{"network": name, "rate": rate} | compared(network.apply, variables, rate) for rate in options.rates]
    Table("bytes, at equal squared error", FORMATS, rows).print()
    measure.write(options.json, steps=rows)


def drawn(network: Any) -> Any:
    """Kernels from a Laplace distribution; positive numbers where variances may be."""
    random = np.random.default_rng(0)

    def new(leaf: Any) -> jax.Array:
        numbers = random.laplace(size=leaf.shape) if leaf.ndim > 1 else random.uniform(0.5, 2, leaf.shape)
        return jnp.asarray(numbers, jnp.float32)

    return jax.tree.map(new, jax.eval_shape(network.init, jax.random.key(0), IMAGE))


def compared(apply: Apply, variables: Any, rate: float) -> dict[str, Any]:
    """The columns behind the rate."""
    small = nnc.compress(variables, nnc.quantize(rate=rate))
    floats = dict(named_leaves(variables))
    leaves = dict(named_leaves(small, is_compressed))
    sums = dict.fromkeys(("entropy", "codes", "by_channel", "contexts", "others"), 0.0)
    for path, leaf in leaves.items():
        if not isinstance(leaf, Quantized):
            sums["others"] += nnc.stored_size(leaf)
            continue
        codes, weight = np.asarray(leaf.codes), np.asarray(floats[path], np.float64)
        sums["entropy"] += entropy_bits(codes) * codes.size / 8
        size = nnc.stored_size(codes)
        sums["codes"] += size
        sums["contexts"] += min(size, size - len(sections.encode(codes)[1]) + by_neighbours(codes))
        sums["by_channel"] += nnc.stored_size(by_channel(weight, np.asarray(leaf.scale).item()))
    folded = nnc.compress(small, nnc.batch_norm.fold(weights=False), apply=apply, batches=[IMAGE])
    sizes = {
        "file": file_bytes(small, None),
        "bfloat16": file_bytes(small, "bfloat16"),
        "folded": file_bytes(folded, "bfloat16"),
    }
    whole = {name: int(value) if name != "entropy" else value for name, value in sums.items()}
    return whole | sizes | {"more": sums["by_channel"] / sums["codes"] - 1}


def by_channel(weight: np.ndarray, step: float) -> np.ndarray:
    """Codes with steps in proportion to the spread of each output channel, as far off in all as those of one step.

    Args:
      weight: [..., O] float64.
      step: the one for all.

    Returns:
      [..., O] int8.
    """
    spread = weight.std(axis=tuple(range(weight.ndim - 1)), keepdims=True) + 1e-12
    target = rounded(weight, step)[1]
    middle = np.log2(step / np.sqrt((spread**2).mean()))
    least, most = middle - 6, middle + 6
    for _ in range(HALVINGS):
        tried = (least + most) / 2
        error = rounded(weight, spread * 2**tried)[1]
        least, most = (least, tried) if error > target else (tried, most)
    return rounded(weight, spread * 2**least)[0]


def by_neighbours(codes: np.ndarray) -> float:
    """Bytes, if each code had a model for the number of nonzero codes among twelve that come before it.

    Args:
      codes: [..., I, O] int8: neighbours are four each along I and O, and all at the same I and O, as four at most.
    """
    there = (codes != 0).reshape(-1, *codes.shape[-2:])
    count = np.minimum(np.cumsum(there, axis=0) - there, 4)
    for distance in range(1, NEIGHBOURS + 1):
        count[:, distance:] += there[:, :-distance]
        count[:, :, distance:] += there[:, :, :-distance]
    symbols = codes.view(np.uint8).ravel() ^ 128
    counts = np.bincount(256 * count.ravel() + symbols, minlength=256 * (count.max() + 1)).reshape(-1, 256)
    return sum(frequencies.fitted(each)[1] for each in counts if each.any()) / 8


def rounded(weight: np.ndarray, step: Any) -> tuple[np.ndarray, float]:
    """Codes, and the squared error of all."""
    codes = np.clip(np.rint(weight / step), -127, 127)
    return codes.astype(np.int8), float(np.square(codes * step - weight).sum())


def file_bytes(small: Any, floats: Any) -> int:
    """Of `nnc.save`."""
    with tempfile.TemporaryDirectory() as folder:
        nnc.save(Path(folder, "a.nnc"), small, floats=floats)
        return Path(folder, "a.nnc").stat().st_size


if __name__ == "__main__":
    cli.run(main, Options)
