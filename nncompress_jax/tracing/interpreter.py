"""Runs a traced program on values that may be compressed weights.

An equation that touches no compressed weight runs as it is. One that does goes to the weight's rule, by `quax`. Inside
equations that hold programs of their own (`jit`, `remat`, `scan`, `cond`, `while`, functions with derivatives of
their own) the same goes on.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from nncompress_jax.axes.contraction import PRODUCTS
from nncompress_jax.ops.fast import FAST, has_fast_form
from nncompress_jax.ops.ste import rounded_errors
from nncompress_jax.tracing.observations import Meeting, Observation, Observations, Statistic
from nncompress_jax.tracing.primitives import (
    CALLS,
    CUSTOM_DERIVATIVES,
    PER_DEVICE,
    REMATS,
    called_program,
    scan_operands,
    while_operands,
)
from nncompress_jax.tracing.program import Source, holds, meet, result_sources, stable_sources
from nncompress_jax.types import Array
from nncompress_jax.weights.base import bind, dense, is_compressed, on_dense
from nncompress_jax.weights.channel_pruned import (
    ChannelPruned,
    common,
    conforming,
    on_fills,
)
from nncompress_jax.weights.channel_pruned_elementwise import ELEMENTWISE

Results = tuple[list[Any], list[Source], Observations]


@dataclasses.dataclass(frozen=True)
class Interpreter:
    """Runs programs on values that may be compressed weights.

    Every method takes values with their sources (the weight, by path, that a value was computed from) and returns
    results, their sources, and what was observed.

    Attributes:
      statistic: of each place where a weight multiplies data; None: nothing is observed.
      fast: float operations run in the forms of `FAST`.
      error_bits: of the gradients that come back to the outputs of products; None: they stay as they are.
      channels: arrays of one value are `ChannelPruned` without any channel, so that they do not bring back channels
        that others lack.
    """

    statistic: Statistic | None = None
    fast: bool = False
    error_bits: int | None = None
    channels: bool = False

    def run(self, program: Any, values: Sequence[Any], sources: Sequence[Source]) -> Results:
        jaxpr = program.jaxpr
        seen: Observations = {}
        known = dict(zip(jaxpr.invars, zip(values, sources, strict=True), strict=True))
        known |= {variable: (value, "") for variable, value in zip(jaxpr.constvars, program.consts, strict=True)}

        def read(atoms: Sequence[Any]) -> tuple[list[Any], list[Source]]:
            pairs = [(atom.val, "") if isinstance(atom, core.Literal) else known[atom] for atom in atoms]
            return [value for value, _ in pairs], [source for _, source in pairs]

        for equation in jaxpr.eqns:
            scope = str(equation.source_info.name_stack)
            with jax.named_scope(scope) if scope else contextlib.nullcontext(), equation.ctx.manager:
                results, result_sources, observed = self.step(equation, *read(equation.invars))
            known |= dict(zip(equation.outvars, zip(results, result_sources, strict=True), strict=True))
            for path, observations in observed.items():
                seen.setdefault(path, []).extend(observations)
        return *read(jaxpr.outvars), seen

    def step(self, equation: Any, values: list[Any], sources: list[Source]) -> Results:
        compressed, watched = any(map(is_compressed, values)), self.statistic is not None and any(sources)
        inside = _WITH_PROGRAMS.get(equation.primitive.name)
        if inside and (compressed or watched or (self.fast and holds(equation, FAST)) or self.error_bits):
            return inside(self, equation, values, sources)
        if self.channels and equation.primitive is lax.broadcast_in_dim_p and not jnp.ndim(values[0]):
            results: list[Any] = [ChannelPruned.uniform(values[0], equation.params["shape"])]
        elif equation.primitive in ELEMENTWISE and not any(map(jnp.ndim, values)):  # zero is known to be zero
            results = on_fills(lambda *values: _bound(equation, values), values)
        elif compressed and equation.primitive.name in PER_DEVICE:
            results = on_dense(
                equation.primitive, values, _params(equation), reason=f"no rule for {equation.primitive}"
            )
        elif self.fast and not compressed and has_fast_form(equation.primitive, values, equation.params):
            results = [FAST[equation.primitive](*values, **equation.params)]
        else:
            results = _bound(equation, values)
        if self.error_bits and equation.primitive in PRODUCTS:
            results = [rounded_errors(dense(result), self.error_bits) for result in results]
        seen = self.observed(equation, values, sources) if watched else {}
        return results, result_sources(equation, sources), seen

    def observed(self, equation: Any, values: list[Any], sources: list[Source]) -> Observations:
        if self.statistic is None or equation.primitive not in PRODUCTS or None not in sources[:2]:
            return {}
        data = sources.index(None)
        path = sources[1 - data]
        if not path:
            return {}
        met = Meeting(path, dense(values[data]), values[1 - data], 1 - data, equation.primitive, equation.params)
        return {path: [Observation(self.statistic(met), jnp.array(True))]}

    def traceable(self, program: Any, sources: Sequence[Source]) -> tuple[Callable[..., Any], list[Source]]:
        """The program as a function of its values, to (results, observations); once it ran, the list holds sources."""
        result_sources: list[Source] = []

        def body(*values: Any) -> tuple[list[Any], Observations]:
            results, result_sources[:], seen = self.run(program, values, sources)
            return results, seen

        return body, result_sources

    def call(self, equation: Any, values: list[Any], sources: list[Source]) -> Results:
        return self.run(called_program(equation), values, sources)

    def remat(self, equation: Any, values: list[Any], sources: list[Source]) -> Results:
        body, result_sources = self.traceable(called_program(equation), sources)
        options = {name: equation.params[name] for name in ("policy", "prevent_cse")}
        results, seen = jax.checkpoint(body, **options)(*values)
        return results, result_sources, seen

    def scan(self, equation: Any, values: list[Any], sources: list[Source]) -> Results:
        params = equation.params
        first, carried = scan_operands(params)
        last = first + carried
        constants, carry, rows = values[:first], values[first:last], values[last:]
        rows = [row.stacked(params["length"]) if is_compressed(row) else row for row in rows]
        sources = stable_sources(params["jaxpr"].jaxpr, sources, first, carried)
        body, result_sources = self.traceable(params["jaxpr"], sources)

        def iteration(carry: list[Any], rows: list[Any]) -> tuple[list[Any], Any]:
            results, seen = body(*constants, *carry, *rows)
            return results[: len(carry)], (results[len(carry) :], seen)

        row = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), rows)
        carry, iteration = _stable(iteration, carry, row)
        options = {name: params[name] for name in ("length", "reverse", "unroll")}
        carry, (columns, seen) = lax.scan(iteration, carry, rows, **options)
        return [*carry, *columns], result_sources, seen

    def while_loop(self, equation: Any, values: list[Any], sources: list[Source]) -> Results:
        params = equation.params
        first, last = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        sources[first:] = stable_sources(params["body_jaxpr"].jaxpr, sources[first:], *while_operands(params))
        blind = dataclasses.replace(self, statistic=None)
        test, _ = blind.traceable(params["cond_jaxpr"], [*sources[:first], *sources[last:]])
        body, result_sources = blind.traceable(params["body_jaxpr"], sources[first:])

        def iteration(carry: list[Any], _: None) -> tuple[list[Any], None]:
            return body(*values[first:last], *carry)[0], None

        carry, iteration = _stable(iteration, values[last:], None)
        carry = lax.while_loop(
            lambda carry: dense(test(*values[:first], *carry)[0][0]), lambda carry: iteration(carry, None)[0], carry
        )
        return carry, result_sources, {}

    def cond(self, equation: Any, values: list[Any], sources: list[Source]) -> Results:
        index, *operands = values
        programs = [self.traceable(program, sources[1:]) for program in equation.params["branches"]]
        shapes = [jax.eval_shape(body, *operands) for body, _ in programs]
        alike = [
            len(set(map(jax.tree.structure, outputs))) == 1 for outputs in zip(*(out for out, _ in shapes), strict=True)
        ]

        def branch(taken: int) -> Callable[..., Any]:
            def body(*operands: Any) -> tuple[list[Any], Observations]:
                results, seen = programs[taken][0](*operands)
                blank = [jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape) for _, shape in shapes]
                blank[taken] = seen
                paths = dict.fromkeys(path for observations in blank for path in observations)
                everywhere = {path: [o for some in blank for o in some.get(path, [])] for path in paths}
                return [x if same else dense(x) for x, same in zip(results, alike, strict=True)], everywhere

            return body

        branches = [branch(taken) for taken in range(len(programs))]
        platforms = equation.params.get("branches_platforms")
        if platforms is None:
            results, seen = lax.switch(index, branches, *operands)
        else:
            cases = {
                name: run for names, run in zip(platforms, branches, strict=True) for name in names or ("default",)
            }
            results, seen = lax.platform_dependent(*operands, **cases)
        every_source = zip(*(result_sources for _, result_sources in programs), strict=True)
        return results, [meet(each) for each in every_source], seen

    def tangents(self, equation: Any, primals: Sequence[Any], tangents: Sequence[Any], results: Sequence[Any]) -> Any:
        """By the derivative that a function brings along, of results that may lack channels."""

        def own(*values: Any) -> list[Any]:
            return _bound(equation, [*map(dense, values)])

        if any(isinstance(result, ChannelPruned) for result in results):
            pairs = jax.jvp(lambda *values: [*map(_dense_inside, values)], tuple(primals), tuple(tangents))
            flat = [x for each in pairs for x in each]
            stand_ins = [jax.ShapeDtypeStruct(x.shape, x.dtype) if is_compressed(x) else x for x in flat]
            half = len(primals)
            program = jax.make_jaxpr(lambda *flat: jax.jvp(own, flat[:half], flat[half:])[1])(*stand_ins)
            found = dataclasses.replace(self, statistic=None).run(program, flat, [""] * len(flat))[0]
        else:
            found = jax.jvp(own, tuple(primals), tuple(tangents))[1]
        return [conforming(tangent, result) for tangent, result in zip(found, results, strict=True)]

    def custom_derivative(self, equation: Any, values: list[Any], sources: list[Source]) -> Results:
        """Forward by the rules; the derivative is the function's own, at the materialised operands."""
        body, result_sources = self.traceable(called_program(equation), sources)
        results, seen = jax.eval_shape(body, *values)
        if any(is_compressed(result) and not isinstance(result, ChannelPruned) for result in results):
            results, seen = body(*values)  # it hands a weight on: there is no dense result to differentiate
            return results, result_sources, seen
        called = jax.custom_jvp(body)

        @called.defjvp
        def _(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
            results, seen = called(*primals)
            return (results, seen), (
                self.tangents(equation, primals, tangents, results),
                jax.tree.map(_no_tangent, seen),
            )

        results, seen = called(*values)
        return results, result_sources, seen


_WITH_PROGRAMS: dict[str, Callable[..., Results]] = {
    **dict.fromkeys(CALLS, Interpreter.call),
    **dict.fromkeys(REMATS, Interpreter.remat),
    **dict.fromkeys(CUSTOM_DERIVATIVES, Interpreter.custom_derivative),
    "scan": Interpreter.scan,
    "while": Interpreter.while_loop,
    "cond": Interpreter.cond,
}
"""By the primitive's name: jax exports few of these primitives."""


def _bound(equation: Any, values: Sequence[Any]) -> list[Any]:
    """Results of one equation, by the rules of the compressed weights among its operands."""
    results = bind(equation.primitive, values, _params(equation))
    return list(results) if equation.primitive.multiple_results else [results]


def _params(equation: Any) -> dict[str, Any]:
    return equation.primitive.get_bind_params(equation.params)


def _dense_inside(x: Any) -> Any:
    return dataclasses.replace(x, values=dense(x.values)) if isinstance(x, ChannelPruned) else dense(x)


def _stable(iteration: Callable[..., Any], carry: list[Any], row: Any) -> tuple[list[Any], Callable[..., Any]]:
    """A loop's carry, and its body, such that each compressed weight in the carry keeps its structure or is dense."""

    def stays(before: Any, after: Any) -> bool:
        return len({jax.tree.structure(before), jax.tree.structure(after)}) == 1

    while True:
        after, _ = jax.eval_shape(iteration, carry, row)
        stable = [x if stays(x, y) else common(x, y) for x, y in zip(carry, after, strict=True)]
        if all(stays(x, y) for x, y in zip(carry, stable, strict=True)):
            break
        carry = stable

    def handing_on(carry: list[Any], row: Any) -> tuple[list[Any], Any]:
        after, rest = iteration(carry, row)
        return [y if stays(x, y) else conforming(y, x) for x, y in zip(carry, after, strict=True)], rest

    return carry, handing_on


def _no_tangent(x: Array) -> Any:
    return jnp.zeros_like(x) if jnp.issubdtype(x.dtype, jnp.inexact) else np.zeros(x.shape, jax.dtypes.float0)
