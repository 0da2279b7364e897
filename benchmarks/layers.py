"""Where the time of a training step goes: each layer forward and back, beside what the processor multiplies at best.

python benchmarks/layers.py --json=layers.json
python benchmarks/layers.py --networks vgg16 --batch=128
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import measure
import numpy as np
import peers
from jax import lax

import nncompress_jax as nnc
from nncompress_jax import models
from nncompress_jax.commands import cli
from nncompress_jax.commands.timing import fastest
from nncompress_jax.data.augment import normalize, random_crop, random_flip
from nncompress_jax.table import Table
from nncompress_jax.tracing.trace import traced

FORMATS = {
    **{"part": "", "inputs": "", "weight": "", "times": "d", "forward_ms": ".2f", "weight_ms": ".2f"},
    **{"input_ms": ".2f", "forward": ".0f", "weight_gradient": ".0f", "input_gradient": ".0f", "share": ".1%"},
}
"""times: how often the layer is in the network. ms: of one of them; forward, weight_gradient, input_gradient: GFLOP/s.
share: of the sum of all rows. Rows without products have gradients of all operands under input_ms."""

ROUNDS, SECONDS = 3, 0.3
"""Of timing: the best of so many turns, each of so many seconds at least."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which networks."""

    networks: tuple[str, ...] = ("vgg16", "vgg16ds", "vgg16ds_stride")
    """Names of `nncompress_jax.models`."""
    batch: int = 128
    """Images at once."""
    json: Path | None = None
    """Writes what was measured."""


def main(options: Options) -> None:
    """A table for each network, and the whole step beside the sum of its parts."""
    peak = measure.matrix_peak("float32", measure.Turns())
    networks: dict[str, Any] = {}
    for network in options.networks:
        found = rows(network, options.batch)
        total = sum(row["times"] * sum(row[name] or 0 for name in MS) for row in found)
        for row in found:
            row["share"] = row["times"] * sum(row[name] or 0 for name in MS) / total
        step = milliseconds(peers.TRAINING["ours"](network, options.batch))
        title = (
            f"{network}, batch {options.batch}: parts {total:.0f} ms, a step {step:.0f} ms; {peak / 1e9:.0f} GFLOP/s"
        )
        Table(title, FORMATS, found).print()
        networks[network] = {"rows": found, "sum_ms": total, "step_ms": step}
    measure.write(options.json, matrix_peak_float32=peak, batch=options.batch, networks=networks)


MS = ("forward_ms", "weight_ms", "input_ms")


def rows(network: str, batch: int) -> list[dict[str, Any]]:
    """Of each kind of layer, by what it takes; then what has no products."""
    model = models.create(network)
    images = jnp.asarray(peers.images(batch))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    program, _ = traced(functools.partial(model.apply, train=True, mutable=["batch_stats"]), variables, images)
    counts: collections.Counter[Any] = collections.Counter()
    for equation in program.eqns:
        shapes = tuple(atom.aval.shape for atom in equation.invars)
        if equation.primitive in (lax.conv_general_dilated_p, lax.dot_general_p):
            counts[equation.primitive, shapes, tuple(equation.params.items())] += 1
    found = [product(primitive, shapes, params, times) for (primitive, shapes, params), times in counts.items()]
    return [*found, *others(found, batch)]


def product(primitive: Any, shapes: Any, params: Any, times: int) -> dict[str, Any]:
    """A convolution or dot product, in the form that training takes."""
    keys = jax.random.split(jax.random.key(0))
    x, weight = (jax.random.normal(key, shape, jnp.float32) for key, shape in zip(keys, shapes, strict=True))
    run = nnc.inject(lambda weight, x: primitive.bind(x, weight, **dict(params)), fast=True)
    out = jax.eval_shape(run, weight, x)
    given = jnp.ones(out.shape, out.dtype)

    def gradient(place: int) -> Callable[..., Any]:
        def of(weight: Any, x: Any, given: Any) -> Any:
            operands = [weight, x]
            one = lambda operand: run(*[operand if n == place else operands[n] for n in (0, 1)])  # noqa: E731
            return jax.vjp(one, operands[place])[1](given)

        return of

    flops = 2 * math.prod(out.shape) * math.prod(weight.shape) / weight.shape[-1]
    seconds = [compiled(run, weight, x), *(compiled(gradient(place), weight, x, given) for place in (0, 1))]
    speeds = dict(
        zip(("forward", "weight_gradient", "input_gradient"), [flops / s / 1e9 for s in seconds], strict=True)
    )
    sizes = {"inputs": " x ".join(map(str, x.shape)), "weight": " x ".join(map(str, weight.shape)), "times": times}
    return {
        "part": str(primitive),
        "output": out.shape,
        **sizes,
        **dict(zip(MS, [1000 * s for s in seconds], strict=True)),
        **speeds,
    }


def others(found: list[dict[str, Any]], batch: int) -> list[dict[str, Any]]:
    """Normalization with relu of what convolutions give, and augmentation."""
    pixels = jnp.asarray(np.random.default_rng(0).integers(0, 256, (batch, 32, 32, 3), np.uint8))

    def augment(pixels: Any) -> Any:
        key = jax.random.key(0)
        return normalize(random_flip(key, random_crop(key, pixels)), (0.5,) * 3, (0.25,) * 3)

    def normalized(x: Any) -> Any:
        mean = x.mean((0, 1, 2))
        variance = jnp.square(x).mean((0, 1, 2)) - jnp.square(mean)
        return jax.nn.relu((x - mean) * lax.rsqrt(variance + 1e-5))

    outputs: collections.Counter[Any] = collections.Counter()
    for row in found:
        if row["part"] == "conv_general_dilated":
            outputs[row["output"]] += row["times"]
    nothing = dict.fromkeys(["weight_ms", "forward", "weight_gradient", "input_gradient"])
    rows = []
    for shape, times in outputs.items():
        x = jax.random.normal(jax.random.key(0), shape)
        back = compiled(lambda x, given: jax.vjp(normalized, x)[1](given), x, x) - compiled(normalized, x)
        sizes = {"inputs": " x ".join(map(str, shape)), "weight": "", "times": times}
        one = {"forward_ms": 1000 * compiled(normalized, x), "input_ms": 1000 * max(back, 0)}
        rows.append({"part": "batch norm, relu", **sizes, **nothing, **one})
    once = {"inputs": " x ".join(map(str, pixels.shape)), "weight": "", "times": 1, "input_ms": None}
    return [*rows, {"part": "augmentation", **once, **nothing, "forward_ms": 1000 * compiled(augment, pixels)}]


def compiled(function: Callable[..., Any], *operands: Any) -> float:
    """Seconds of a call."""
    program = jax.jit(function)
    return milliseconds(lambda: program(*operands)) / 1000


def milliseconds(work: Callable[[], Any]) -> float:
    """Of a call."""
    (seconds,) = fastest([work], turns=ROUNDS, seconds=SECONDS)
    return 1000 * seconds


if __name__ == "__main__":
    cli.run(main, Options)
