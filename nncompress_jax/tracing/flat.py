"""A program without programs inside: calls are written out, and scans along weights turn by turn."""

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from nncompress_jax.axes.contraction import PRODUCTS
from nncompress_jax.tracing.primitives import CALLS, CUSTOM_DERIVATIVES, REMATS, called_program, closed, scan_operands
from nncompress_jax.tracing.program import holds
from nncompress_jax.weights.base import run


class _Value(NamedTuple):
    value: Any
    is_data: bool


def flattened(program: Any, is_data: Sequence[bool]) -> Any:
    """The same program in single equations, but for loops and branches that data go through.

    Args:
      program: closed.
      is_data: of each of its arguments; the others are weights.

    Returns:
      A closed program of the same arguments and results. Scans of layers, which walk along weights, are unrolled.
    """

    def written_out(*values: Any) -> list[Any]:
        pairs = [_Value(value, data) for value, data in zip(values, is_data, strict=True)]
        return [pair.value for pair in _run(program, pairs)]

    return jax.make_jaxpr(written_out)(*[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in program.in_avals])


def evaluate(equations: Iterable[Any], known: dict[Any, Any]) -> None:
    """Runs equations of a flat program, and adds what they compute to what is known.

    Args:
      equations: in the order in which they run.
      known: values by variable; compressed weights follow their rules, floats take the form that is fastest.

    Example:
      >>> program = jax.make_jaxpr(lambda x: x + 1)(1.0).jaxpr
      >>> known = {program.invars[0]: 2.0}
      >>> evaluate(program.eqns, known)
      >>> known[program.outvars[0]].item()
      3.0
    """
    for equation in equations:
        values = [atom.val if isinstance(atom, core.Literal) else known[atom] for atom in equation.invars]
        params = equation.primitive.get_bind_params(equation.params)
        with equation.ctx.manager:
            results = run(equation.primitive, values, params)
        known.update(zip(equation.outvars, results if equation.primitive.multiple_results else [results], strict=True))


def _run(program: Any, values: Sequence[_Value]) -> list[_Value]:
    jaxpr = program.jaxpr
    known = dict(zip(jaxpr.invars, values, strict=True))
    known |= {variable: _Value(value, False) for variable, value in zip(jaxpr.constvars, program.consts, strict=True)}

    def read(atom: Any) -> _Value:
        return _Value(atom.val, False) if isinstance(atom, core.Literal) else known[atom]

    for equation in jaxpr.eqns:
        with equation.ctx.manager if equation.ctx else contextlib.nullcontext():
            results = _step(equation, [read(atom) for atom in equation.invars])
        known |= dict(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _step(equation: Any, values: list[_Value]) -> list[_Value]:
    name = equation.primitive.name
    if name in (*CALLS, *REMATS, *CUSTOM_DERIVATIVES):
        return _run(called_program(equation), values)
    if name == "scan":
        loop = scan_operands(equation.params)
        along_weights = any(not x.is_data for x in values[sum(loop) :])
        if along_weights and holds(equation, PRODUCTS):
            return _unrolled(equation.params, loop, values)
    results = equation.primitive.bind(*[x.value for x in values], **equation.primitive.get_bind_params(equation.params))
    data = any(x.is_data for x in values)
    return [_Value(x, data) for x in (results if equation.primitive.multiple_results else [results])]


def _unrolled(params: Any, loop: Any, values: list[_Value]) -> list[_Value]:
    constants, carry, along = values[: loop.constants], values[loop.constants : sum(loop)], values[sum(loop) :]
    turns = range(params["length"])
    columns: list[list[_Value]] = []
    for turn in reversed(turns) if params["reverse"] else turns:
        rows = [_Value(lax.index_in_dim(x.value, turn, keepdims=False), x.is_data) for x in along]
        results = _run(closed(params["jaxpr"]), [*constants, *carry, *rows])
        carry = results[: loop.carried]
        columns.append(results[loop.carried :])
    if params["reverse"]:
        columns.reverse()
    stacked = [_Value(jnp.stack([x.value for x in column]), True) for column in zip(*columns, strict=True)]
    return [*carry, *stacked]
