"""What cut channels give: images/s with fewer multiply-accumulates, beside the whole network in the same run.

python benchmarks/channels.py --json=channels.json
"""

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import measure

import nncompress_jax as nnc
from nncompress_jax import models
from nncompress_jax.commands import cli
from nncompress_jax.table import Table

FORMATS = {
    **{"network": "", "batch": "", "macs": ".3f", "round_to": "d"},
    **{"weights": "", "images_per_s": ",.0f", "ratio": ".2f"},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    networks: tuple[str, ...] = ("vgg16", "vgg16ds", "vgg16ds_stride")
    """Names of models."""
    batches: tuple[int, ...] = (1, 32, 128)
    """Images in a batch."""
    macs: tuple[float, ...] = (0.7, 0.5, 0.3)
    """Shares of the multiply-accumulates that stay."""
    round_to: tuple[int, ...] = (1, 16)
    """Numbers of channels are multiples of each of these."""
    rounds: int = 5
    """In each, every contender runs in turn."""
    seconds: float = 0.5
    """Of a contender in a round, at least; three calls at least."""
    json: Path | None = None
    """Writes the figures here, with machine, versions and date."""


def main(options: Options) -> None:
    """Prints a table; weights are at random, and the smallest filters go."""
    rows = [row for name in options.networks for batch in options.batches for row in compared(options, name, batch)]
    Table("inference: as ChannelPruned weights, in 8 bits, and as the narrower network", FORMATS, rows).print()
    measure.write(options.json, inference=rows)


def compared(options: Options, name: str, batch: int) -> list[dict[str, Any]]:
    """The whole network, and what is left of it, on the same images."""
    network, images = models.create(name), jax.random.normal(jax.random.key(1), (batch, 32, 32, 3))
    variables = jax.jit(network.init)(jax.random.key(0), images)
    whole = nnc.cost(network.apply, variables, images).macs
    contenders: dict[tuple[float, int, str], Any] = {(1.0, 1, "dense"): program(network, variables, images)}
    contenders[1.0, 1, "int8"] = program(network, quantized(network, variables, images), images)
    for share, multiple in itertools.product(options.macs, options.round_to):
        method = nnc.prune_channels(macs=share, round_to=multiple)
        small = nnc.compress(variables, method, apply=network.apply, batches=[images])
        shrunken = nnc.shrink(small)
        cut = nnc.cost(network.apply, small, images).macs / whole, multiple
        contenders[*cut, "ChannelPruned"] = program(network, small, images)
        contenders[*cut, "ChannelPruned of int8"] = program(network, quantized(network, small, images), images)
        contenders[*cut, "shrunken"] = program(models.fitting(network, shrunken), shrunken, images)
    seconds = in_turns(contenders, options)
    first = seconds[1.0, 1, "dense"]
    return [
        {
            "network": name,
            "batch": batch,
            "macs": macs,
            "round_to": multiple,
            "weights": weights,
            "images_per_s": batch / each,
            "ratio": first / each,
        }
        for (macs, multiple, weights), each in seconds.items()
    ]


def in_turns(contenders: Mapping[Any, Callable[[], Any]], options: Options) -> dict[Any, float]:
    """Seconds of a call, the median of the fastest round: what else the machine does only adds."""
    for run in contenders.values():
        run()
    fastest = dict.fromkeys(contenders, float("inf"))
    for _ in range(options.rounds):
        for name, run in contenders.items():
            times: list[float] = []
            while sum(times) < options.seconds or len(times) < 3:
                begin = time.perf_counter()
                run()
                times.append(time.perf_counter() - begin)
            fastest[name] = min(fastest[name], statistics.median(times))
    return fastest


def quantized(network: Any, variables: Any, images: jax.Array) -> Any:
    """With static ranges."""
    method = nnc.quantize(ranges=nnc.calibration.abs_max)
    return nnc.compress(variables, method, apply=network.apply, batches=[images])


def program(network: Any, variables: Any, images: jax.Array) -> Any:
    """Runs once, compiled."""
    run = jax.jit(nnc.inject(network.apply, fast=True))
    return lambda: jnp.asarray(run(variables, images)).block_until_ready()


if __name__ == "__main__":
    cli.run(main, Options)
