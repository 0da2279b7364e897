"""Which algorithm runs each operation fastest on this CPU, by shape class; writes the table that the package reads.

python benchmarks/kernels.py --json=kernels.json
python benchmarks/kernels.py --write
"""

import dataclasses
import functools
import itertools
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import measure
import numpy as np
from rich.progress import track

from nncompress_jax.commands import cli
from nncompress_jax.errors import InputError
from nncompress_jax.ops import algorithms, gradients, kernels, quantizer
from nncompress_jax.ops.windows import Window
from nncompress_jax.table import Table

FILE = Path(kernels.__file__).with_name("kernels.json")

DENSE, DEPTHWISE = ("native", "patches", "patches in blocks"), ("native", "patches", "shifts", "shifts in blocks")
HOPELESS = 4
"""A candidate that took so many times the fastest's seconds is not timed again."""
SAME = 1.05
"""Of candidates that take no longer than this times the fastest's seconds, the first counts."""


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Of a convolution: images of `side` pixels along each axis, kernels of `taps`, as many zeros around as fit."""

    side: int
    inputs: int
    outputs: int
    taps: int = 3
    groups: int = 1
    axes: int = 2
    dilation: int = 1

    def __str__(self) -> str:
        return f"{'x'.join([str(self.side)] * self.axes)}, {self.inputs} to {self.outputs}"

    @property
    def window(self) -> Window:
        edges = (self.taps // 2, self.taps // 2 + self.dilation - 1)
        ones = (1,) * self.axes
        return Window(ones, (edges,) * self.axes, (self.dilation,) * self.axes, ones, self.groups)

    def operands(self, batch: int, dtype: str) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        """Images, kernel."""
        kernel = (*(self.taps,) * self.axes, self.inputs // self.groups, self.outputs)
        images = (batch, *(self.side,) * self.axes, self.inputs)
        return jax.ShapeDtypeStruct(images, dtype), jax.ShapeDtypeStruct(kernel, dtype)


CONVOLUTIONS = (
    *(Shapes(32, 3, 64), Shapes(32, 64, 64), Shapes(32, 64, 3), Shapes(16, 128, 128), Shapes(16, 64, 3)),
    *(Shapes(8, 128, 256), Shapes(8, 256, 256), Shapes(4, 128, 256), Shapes(4, 512, 512), Shapes(2, 512, 512)),
    *(Shapes(32, 16, 64, 1), Shapes(32, 64, 64, 1), Shapes(16, 128, 128, 1), Shapes(8, 128, 256, 1)),
    *(Shapes(8, 256, 256, 1), Shapes(4, 512, 512, 1), Shapes(2, 512, 512, 1)),
    *(Shapes(side, wide, wide, 3, wide) for side, wide in ((32, 64), (16, 128), (8, 256), (4, 512), (2, 512))),
    *(Shapes(16, 64, 64, groups=4), Shapes(256, 64, 64, axes=1), Shapes(8, 32, 32, axes=3)),
    Shapes(8, 64, 64, dilation=2),
)
BATCHES = {"convolution": (32, 1), "kernel gradient": (128, 1)}


@dataclasses.dataclass(frozen=True)
class Case:
    """An operation on some shapes."""

    operation: str
    dtype: str
    batch: int
    shapes: Shapes

    @property
    def shape_class(self) -> str:
        return kernels.convolution_class(*self.shapes.operands(self.batch, self.dtype), self.shapes.window)

    @property
    def candidates(self) -> tuple[str, ...]:
        """Algorithms that can run it."""
        if self.shapes.groups != self.shapes.inputs:
            return DENSE
        return tuple(name for name in DEPTHWISE if (self.operation, name) != ("kernel gradient", "patches"))

    def operands(self) -> list[jax.Array]:
        """Images and kernel; for a gradient, the cotangent too."""
        shapes = list(self.shapes.operands(self.batch, self.dtype))
        if self.operation == "kernel gradient":
            shapes.append(jax.eval_shape(functools.partial(algorithms.native, window=self.shapes.window), *shapes))
        return [random(x) for x in shapes]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    operations: tuple[str, ...] = tuple(BATCHES)
    """convolution, kernel gradient."""
    kinds: tuple[str, ...] = ()
    """The first words of shape classes, as window, pointwise, depthwise; by default all."""
    passes: int = 3
    """Times that all cases are gone through: where memory comes to lie decides, too, and the fastest call counts."""
    rounds: int = 3
    """Turns of each candidate in a pass."""
    seconds: float = 0.05
    """Of a turn, at least."""
    json: Path | None = None
    """Writes the figures here, with machine, versions and date."""
    write: bool = False
    """Writes the fastest into the package's table, for this version of JAX."""


def main(options: Options) -> None:
    """Prints a table."""
    if unknown := set(options.operations) - BATCHES.keys():
        raise InputError(f"unknown operation {min(unknown)!r}; choose of {', '.join(BATCHES)}")
    times: dict[Case, dict[str, float]] = {}
    for case in track(cases(options.operations, options.kinds) * options.passes, "kernels", transient=True):
        here, before = in_turns(case, options), times.get(case, {})
        times[case] = {name: min(seconds, before.get(name, math.inf)) for name, seconds in here.items()}
    rows = []
    for case, of_case in times.items():
        best = min(of_case.values())
        fastest = next(name for name, seconds in of_case.items() if seconds <= SAME * best)
        row = {"operation": f"{case.operation} {case.dtype}", "class": case.shape_class}
        row["shapes"] = f"{case.batch} of {case.shapes}"
        milliseconds = {name: 1e3 * of_case[name] if name in of_case else None for name in algorithms.ALGORITHMS}
        rows.append(row | milliseconds | {"fastest": fastest})
    formats = {"operation": "", "class": "", "shapes": "", **dict.fromkeys(algorithms.ALGORITHMS, ".3f"), "fastest": ""}
    Table(f"ms a call, jax {jax.__version__}", formats, rows).print()
    measure.write(options.json, kernels=rows)
    if options.write:
        table = json.loads(FILE.read_text()) if FILE.exists() else {}
        minor = ".".join(jax.__version__.split(".")[:2])
        for operation, classes in winners(rows).items():
            table.setdefault(minor, {}).setdefault(operation, {}).update(classes)
        FILE.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")


def cases(operations: tuple[str, ...], kinds: tuple[str, ...] = ()) -> list[Case]:
    """Each class once."""
    found: dict[tuple[str, str, str], Case] = {}
    for operation in operations:
        dtypes = ("int8", "float32") if operation == "convolution" else ("float32",)
        for dtype, shapes, batch in itertools.product(dtypes, CONVOLUTIONS, BATCHES[operation]):
            case = Case(operation, dtype, batch, shapes)
            if not kinds or case.shape_class.partition(",")[0] in kinds:
                found.setdefault((operation, dtype, case.shape_class), case)
    return list(found.values())


def _convolution(name: str, window: Window, images: jax.Array, kernel: jax.Array) -> Any:
    """With what stands behind it in a network: ReLU; of codes, the rounding to the next codes."""
    if images.dtype == jnp.int8:
        sums = algorithms.ALGORITHMS[name](images, kernel, window, element_type=jnp.int32)
        return quantizer.quantize(jax.nn.relu(sums.astype(jnp.float32)), (), jnp.float32(300))[0].codes
    return jax.nn.relu(algorithms.ALGORITHMS[name](images, kernel, window))


def _kernel_gradient(name: str, window: Window, *operands: jax.Array) -> Any:
    return gradients.KERNEL_GRADIENTS[name](*operands, window)


WORK: dict[str, Callable[..., Any]] = {
    "convolution": _convolution,
    "kernel gradient": _kernel_gradient,
}


def in_turns(case: Case, options: Options) -> dict[str, float]:
    """Seconds of the fastest call: what else the machine does only adds."""
    operands = case.operands()
    programs = {name: compiled(case, name) for name in case.candidates}
    for program in programs.values():
        jax.block_until_ready(program(*operands))
    times = dict.fromkeys(programs, math.inf)
    for _ in range(options.rounds):
        best = min(times.values())
        for name in [name for name in programs if times[name] in (math.inf, best) or times[name] < HOPELESS * best]:
            begin = time.perf_counter()
            while (start := time.perf_counter()) < begin + options.seconds:
                jax.block_until_ready(programs[name](*operands))
                times[name] = min(times[name], time.perf_counter() - start)
    return times


@functools.cache
def compiled(case: Case, name: str) -> Any:
    """One for all passes."""
    return jax.jit(functools.partial(WORK[case.operation], name, case.shapes.window))


def winners(rows: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """The fastest by operation and class; and by the kind of class, the one that is nearest to the fastest there."""
    table: dict[str, dict[str, str]] = {}
    slowdowns: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        operation, shape_class = row["operation"], row["class"]
        table.setdefault(operation, {})[shape_class] = row["fastest"]
        times = {name: row[name] for name in algorithms.ALGORITHMS if row[name] is not None}
        sums = slowdowns.setdefault((operation, shape_class.partition(",")[0]), dict.fromkeys(times, 0.0))
        for name, milliseconds in times.items():
            sums[name] += math.log(milliseconds / min(times.values()))
    for (operation, kind), sums in slowdowns.items():
        table[operation].setdefault(kind, min(sums, key=lambda name: sums[name]))
    return table


def random(shape: jax.ShapeDtypeStruct) -> jax.Array:
    """Codes in int8, else normal."""
    generator = np.random.default_rng(0)
    if shape.dtype == jnp.int8:
        return jnp.asarray(generator.integers(-127, 128, shape.shape, np.int8))
    return jnp.asarray(generator.standard_normal(shape.shape, np.float32))


if __name__ == "__main__":
    cli.run(main, Options)
