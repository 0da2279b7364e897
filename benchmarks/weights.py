"""What compressed weights cost beside the compiled program: microseconds a leaf, and memory of a large model.

python benchmarks/weights.py --json=weights.json
"""

import dataclasses
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import measure
import numpy as np

import nncompress_jax as nnc
from nncompress_jax.commands import cli
from nncompress_jax.table import Table
from nncompress_jax.tree import stored_bytes

SIZE = 4096
"""Rows and columns of each layer of the large model."""

RECIPES = (
    *("quantize:8", "quantize:4", "fake_quantize:4", "binarize", "cluster:4", "prune:0.9", "prune:0.9+cluster:4"),
    *("factorize:0.5", "factorize:0.5+quantize:8"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    recipes: tuple[str, ...] = RECIPES
    """Of `nnc.recipe`: the types whose leaves are timed."""
    leaves: int = 100
    """Of the function that is timed."""
    layers: int = 8
    """Of the large model, SIZE x SIZE each (64 MiB as floats)."""
    rounds: int = 5
    """Of 200 calls each; the fastest counts."""
    json: Path | None = None
    """Writes the figures here, with machine, versions and date."""


def main(options: Options) -> None:
    """Prints two tables."""
    leaves = [row for recipe in options.recipes for row in [overhead(options, recipe)]]
    formats = {"recipe": "", "arrays": ",", "plain_us": ".1f", "compressed_us": ".1f", "us_a_leaf": ".2f"}
    Table(f"a call with {options.leaves} leaves: as plain arrays, and as compressed weights", formats, leaves).print()
    large = [memory(options, bits, inputs) for bits in (8, 4, 2) for inputs in (True, False)]
    sizes = ("float_mib", "stored_mib", "temporary_mib", "peak_above_stored_mib", "layer_mib")
    formats = {"bits": "", "inputs": "", **dict.fromkeys(sizes, ",.0f")}
    Table(f"{options.layers} layers, batch 8: memory while it runs", formats, large).print()
    measure.write(options.json, overhead=leaves, memory=large)


def overhead(options: Options, recipe: str) -> dict[str, Any]:
    """Microseconds of a call that computes next to nothing, with the weights and with their parts as a flat list."""
    kernel = np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32)
    tree = {f"layer_{i}": {"kernel": kernel} for i in range(options.leaves)}
    small = jax.block_until_ready(nnc.compress(tree, nnc.recipe(recipe)))
    first = jax.jit(lambda tree: jax.tree.leaves(tree)[0].ravel()[0])
    plain = jax.tree.leaves(small)
    times = {"plain": np.inf, "compressed": np.inf}
    for _ in range(options.rounds):
        for name, argument in (("plain", plain), ("compressed", small)):
            times[name] = min(times[name], _microseconds(first, argument))
    each = (times["compressed"] - times["plain"]) / options.leaves
    row = {"recipe": recipe, "arrays": len(plain), "us_a_leaf": each}
    return row | {f"{name}_us": value for name, value in times.items()}


def memory(options: Options, bits: int, inputs: bool) -> dict[str, Any]:
    """The most memory that a call takes above what lies there before it.

    By the compiler's plan, and by the process's own high-water mark: that does not see what the allocator had kept.

    Args:
      options: how large.
      bits: of the weights.
      inputs: whether products run on integers; else on floats, made from the codes.
    """
    size, random = SIZE, np.random.default_rng(0)
    weights, method = {}, nnc.quantize(bits=bits, inputs=inputs)
    for layer in range(options.layers):  # never more than one as floats
        kernel = {"kernel": random.standard_normal((size, size), np.float32) / np.float32(size**0.5)}
        weights[f"layer_{layer}"] = jax.block_until_ready(nnc.compress(kernel, method))

    def apply(weights: Any, x: jax.Array) -> jax.Array:
        for layer in range(options.layers):
            x = jax.nn.relu(x @ weights[f"layer_{layer}"]["kernel"])
        return x

    program = jax.jit(nnc.inject(apply)).lower(weights, jnp.ones((8, size))).compile()
    plan = program.memory_analysis()
    assert plan is not None
    x = jnp.ones((8, size))
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    before = _status("VmRSS")
    jax.block_until_ready(program(weights, x))
    one = size * size * 4 / 2**20
    return {
        "bits": bits,
        "inputs": "int8" if inputs else "float32",
        "float_mib": options.layers * one,
        "stored_mib": stored_bytes(weights) / 2**20,
        "temporary_mib": plan.temp_size_in_bytes / 2**20,
        "peak_above_stored_mib": _status("VmHWM") - before,
        "layer_mib": one,
    }


def _microseconds(function: Callable[[Any], Any], argument: Any) -> float:
    function(argument)
    begin = time.perf_counter()
    for _ in range(200):
        function(argument)
    return (time.perf_counter() - begin) / 200 * 1e6


def _status(name: str) -> float:
    """MiB of this process, as Linux counts."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


if __name__ == "__main__":
    cli.run(main, Options)
