"""Reading a traced program: every equation that runs, and from which weights alone its operands were computed."""

import dataclasses
import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from jax import lax
from jax.extend import core

from nncompress_jax.axes.contraction import PRODUCTS
from nncompress_jax.axes.primitives import RAGGED_DOT
from nncompress_jax.ops.conv import derivative_program
from nncompress_jax.tracing.primitives import branches_of, called_program, scan_operands, while_operands
from nncompress_jax.weights.delayed import OF_FIRST_OPERAND

Source = str | None
"""The weight alone that a value was computed from, by name; None for data, "" for constants."""

NAMES = ("float_convolution", "integer_convolution", "integer_dot")
"""Our own forms of them, in `ops`, as they stand in a program."""


@dataclasses.dataclass(frozen=True)
class Product:
    """A convolution or dot product.

    Attributes:
      operation: "convolution", "depthwise convolution", "grouped convolution", "dot" or "ragged dot".
      macs: multiply-accumulates over the whole batch, each time it runs.
      types: element types of both operands and of the result.
      algorithm: what runs it on this platform: "native", or the name of one of our own.
    """

    operation: str
    macs: int
    types: tuple[str, str, str]
    algorithm: str = "native"


@dataclasses.dataclass(frozen=True)
class Visit:
    """An equation that runs.

    Attributes:
      equation: of the program, or of one inside.
      sources: of its operands.
      repeats: how often it runs.
      product: what it multiplies, if it does.
    """

    equation: Any
    sources: tuple[Source, ...]
    repeats: int
    product: Product | None


def meet(sources: Iterable[Source]) -> Source:
    """Source of what is computed from values with these sources; of two weights, the first.

    Example:
      >>> meet(["Conv_0", ""]), meet(["Conv_0", None]), meet([])
      ('Conv_0', None, '')
    """
    sources = list(sources)
    return None if None in sources else next((source for source in sources if source), "")


def result_sources(equation: Any, sources: Sequence[Source]) -> list[Source]:
    """Sources of an equation's results: a barrier hands each operand on, others compute each result from all."""
    if equation.primitive.name == "optimization_barrier":
        return list(sources)
    return [meet(sources)] * len(equation.outvars)


def walk(jaxpr: Any, sources: Sequence[Source], repeats: int = 1) -> tuple[list[Visit], list[Source]]:
    """Equations of a program and of those inside it, in the order in which they run.

    The body of a `while` loop counts once, `scan` as often as it runs, `cond` by its dearest branch, or by the
    branch of this platform.

    Args:
      jaxpr: the program.
      sources: of its arguments.
      repeats: how often it runs.

    Returns:
      The visits, and the sources of the program's results.
    """
    visits: list[Visit] = []
    known: dict[Any, Source] = dict(zip(jaxpr.invars, sources, strict=True))

    def source_of(atom: Any) -> Source:
        return "" if isinstance(atom, core.Literal) else known.get(atom, "")

    for equation in jaxpr.eqns:
        operands = [source_of(atom) for atom in equation.invars]
        inner = inner_programs(equation)
        if equation.params.get("name") in OF_FIRST_OPERAND:
            results = operands[:1]
        elif inner:
            branches = [
                walk(body, inner_sources(equation, body, operands[len(operands) - len(body.invars) :]), repeats * times)
                for body, times in inner
            ]
            branch, results = max(branches, key=lambda branch: sum(map(_total_macs, branch[0])))
            visits += branch
        else:
            visits.append(Visit(equation, tuple(operands), repeats, product_of(equation)))
            results = result_sources(equation, operands)
        known.update(zip(equation.outvars, results, strict=True))
    return visits, [source_of(atom) for atom in jaxpr.outvars]


def holds(equation: Any, primitives: Collection[Any]) -> bool:
    """Whether one of these operations runs in one of the programs inside an equation."""
    return any(
        visit.equation.primitive in primitives
        for body, _ in inner_programs(equation)
        for visit in walk(body, [None] * len(body.invars))[0]
    )


def stable_sources(body: Any, sources: Sequence[Source], first: int, count: int) -> list[Source]:
    """Sources of what enters a loop's body, in every turn: data once a turn makes it data.

    Args:
      body: the program of one turn; it hands `count` values on, its first results.
      sources: of its arguments in the first turn.
      first: place of the values handed on among its arguments.
      count: of them.
    """
    stable = list(sources)
    while True:
        _, results = walk(body, stable)
        carried = stable[first : first + count]
        stable[first : first + count] = [meet(pair) for pair in zip(carried, results[:count], strict=True)]
        if stable[first : first + count] == carried:
            return stable


def inner_sources(equation: Any, body: Any, sources: Sequence[Source]) -> Sequence[Source]:
    """Sources of what enters a program inside an equation, in every turn if it is a loop."""
    params = equation.params
    if equation.primitive.name == "scan":
        return stable_sources(body, sources, *scan_operands(params))
    if equation.primitive.name == "while":
        return stable_sources(body, sources, *while_operands(params))
    return sources


def _total_macs(visit: Visit) -> int:
    return visit.product.macs * visit.repeats if visit.product else 0


def inner_programs(equation: Any) -> list[tuple[Any, int]]:
    """Programs inside an equation and how often each runs; of several, one runs."""
    params = equation.params
    if _is_named(equation):
        return []
    if equation.primitive.name == "scan":
        return [(params["jaxpr"].jaxpr, params["length"])]
    if equation.primitive.name == "while":
        return [(params["body_jaxpr"].jaxpr, 1)]
    if equation.primitive.name == "cond":
        return [(branch.jaxpr, 1) for branch in branches_of(equation)]
    program = called_program(equation) or derivative_program(equation)
    return [] if program is None else [(program.jaxpr, 1)]


def _is_named(equation: Any) -> bool:
    return equation.primitive.name == "jit" and equation.params["name"] in NAMES


def product_of(equation: Any) -> Product | None:
    """What an equation multiplies, if it does."""
    if _is_named(equation):
        return _named_product(equation)
    if equation.primitive not in PRODUCTS:
        return None
    left, right = (atom.aval for atom in equation.invars[:2])
    output = equation.outvars[0].aval
    types = (left.dtype.name, right.dtype.name, output.dtype.name)
    if equation.primitive is lax.dot_general_p:
        (contracted, _), _ = equation.params["dimension_numbers"]
        return Product("dot", output.size * math.prod(left.shape[axis] for axis in contracted), types)
    if equation.primitive is RAGGED_DOT:
        numbers = equation.params["ragged_dot_dimension_numbers"]
        (_, contracted), (_, batch) = numbers.dot_dimension_numbers
        met = {*contracted, *batch, *numbers.rhs_group_dimensions}
        free = math.prod(size for axis, size in enumerate(right.shape) if axis not in met)
        return Product("ragged dot", left.size * free, types)
    groups = equation.params["feature_group_count"]
    features, inputs = (right.shape[axis] for axis in equation.params["dimension_numbers"].rhs_spec[:2])
    kind = "convolution" if groups == 1 else "depthwise convolution" if inputs == 1 else "grouped convolution"
    taps = output.size * right.size // features
    return Product(kind, taps // math.prod(equation.params["lhs_dilation"]), types)


def _named_product(equation: Any) -> Product:
    """The operation is that of the branch for all other platforms; the algorithm, the name of this platform's."""
    choice = next(inner for inner in equation.params["jaxpr"].jaxpr.eqns if inner.primitive.name == "cond")
    (chosen,) = branches_of(choice)
    (native,) = (step for step in choice.params["branches"][-1].jaxpr.eqns if step.primitive.name == "jit")
    (product,) = (p for p in map(product_of, native.params["jaxpr"].jaxpr.eqns) if p)
    (algorithm,) = (step.params["name"] for step in chosen.jaxpr.eqns if step.primitive.name == "jit")
    return dataclasses.replace(product, algorithm=algorithm.removesuffix("_dot"))
