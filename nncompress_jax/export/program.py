"""Goes through a traced program, and writes what depends on data into a graph; what does not is computed.

The program is traced for two numbers of examples. Where the two have different sizes, the size goes with the number.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend import core

from nncompress_jax.errors import InputError
from nncompress_jax.export.equations import (
    Equation,
    Rule,
    known_array,
    literal,
    stored,
    with_codes,
)
from nncompress_jax.export.values import Known, Value, Writer
from nncompress_jax.leaves import is_key
from nncompress_jax.programs.sizes import FIXED, Batch, Sizes, differing, merged
from nncompress_jax.tracing.primitives import (
    CALLS,
    CUSTOM_DERIVATIVES,
    REMATS,
    branches_of,
    called_program,
    closed,
    scan_operands,
    while_operands,
)

LONGEST_LOOP = 1000
"""Turns of a loop that are written one after the other."""


class Translation:
    """Writes programs.

    Attributes:
      writer: into what.
      rules: by name of the primitive.
      refused: what could not be written: for each operation and module, why.
    """

    def __init__(self, writer: Writer, rules: Mapping[str, Rule]) -> None:
        self.writer, self.rules = writer, rules
        self.refused: dict[tuple[str, str], str] = {}

    def run(self, programs: Sequence[Any], values: Sequence[Value], outer: str = "") -> list[Value]:
        """Results of a program, traced twice, on values."""
        first, second = (program.jaxpr for program in programs)
        if [e.primitive.name for e in first.eqns] != [e.primitive.name for e in second.eqns]:
            raise InputError(f"apply does other things with another number of examples; {FIXED}")
        known: dict[Any, Value] = dict(zip(first.invars, values, strict=True))
        for variable, constant, other in zip(first.constvars, *(program.consts for program in programs), strict=True):
            if np.shape(constant) != np.shape(other) or not np.array_equal(constant, other):
                raise InputError(
                    f"apply holds an array that goes with the number of examples, {np.shape(constant)}; {FIXED}"
                )
            known[variable] = known_array(constant)
        needed = _needed(first)

        def read(atom: Any) -> Value:
            return literal(atom) if isinstance(atom, core.Literal) else known[atom]

        for one, other in zip(first.eqns, second.eqns, strict=True):
            if not needed.isdisjoint(one.outvars):
                scope = "/".join(part for part in (outer, str(one.source_info.name_stack)) if part)
                operands = [read(atom) for atom in one.invars]
                results = self.step(one, other, operands, scope)
                known |= zip(one.outvars, results, strict=True)
        return [read(atom) for atom in first.outvars]

    def step(self, one: Any, other: Any, values: Sequence[Any], scope: str) -> Sequence[Value]:
        """Results of one equation."""
        name = one.primitive.name
        if what := differing(one, other):
            return self._refuse(name, scope, f"{what} goes with the number of examples; {FIXED}", one)
        if name in (*CALLS, *REMATS, *CUSTOM_DERIVATIVES):
            return self.run([called_program(one), called_program(other)], values, scope)
        if name in _CONTROL:
            return _CONTROL[name](self, one, other, values, scope)
        shapes = [merged(a.aval.shape, b.aval.shape) for a, b in zip(one.outvars, other.outvars, strict=True)]
        dtypes = [stored(x.aval.dtype) for x in one.outvars]
        equation = Equation(name, one.params, other.params, shapes, dtypes, scope)
        if any(value is REFUSED for value in values):
            return [REFUSED] * len(one.outvars)
        is_known = all(isinstance(value, Known) for value in values) and name not in KEPT
        if is_known and not any(isinstance(size, Batch) for x in (*values, *equation.shapes) for size in _sizes(x)):
            return with_codes(equation, values, computed(one, values))
        return self.written(equation, list(values))

    def written(self, equation: Equation, values: list[Value]) -> Sequence[Value]:
        rule = self.rules.get(equation.name)
        self.writer.graph.scope = equation.scope
        result = rule(self.writer, equation, values) if rule else "no such operation is known"
        if isinstance(result, str):
            self.refused[equation.name, equation.scope] = result
            return [REFUSED] * len(equation.shapes)
        return result if isinstance(result, list) else [result]

    def scan(self, one: Any, other: Any, values: Sequence[Value], scope: str) -> Sequence[Value]:
        params = one.params
        length = merged([params["length"]], [other.params["length"]])[0]
        if isinstance(length, Batch) or length > LONGEST_LOOP:
            return self._refuse("scan", scope, "a loop of many turns, or of as many as there are examples", one)
        constants, carried = scan_operands(params)
        last = constants + carried
        carry, rows = list(values[constants:last]), values[last:]
        bodies = [closed(params["jaxpr"]), closed(other.params["jaxpr"])]
        columns: list[list[Value]] = []
        for turn in range(length)[:: -1 if params["reverse"] else 1]:
            row = [self.row(x, turn) for x in rows]
            results = self.run(bodies, [*values[:constants], *carry, *row], scope)
            carry = list(results[:carried])
            columns.append(list(results[carried:]))
        if params["reverse"]:
            columns.reverse()
        return [*carry, *(self.stacked(column) for column in zip(*columns, strict=True))]

    def row(self, value: Value, turn: int) -> Value:
        """One of what a loop walks along."""
        if isinstance(value, Known):
            return Known(value.whole[turn], value.shape[1:])
        shape = value.shape[1:]
        equation = Equation("one turn", {"turn": turn}, {}, [shape], [value.dtype], "")
        return self.written(equation, [value])[0]

    def stacked(self, values: Sequence[Value]) -> Value:
        """What a loop gives in each turn, one after the other."""
        if all(isinstance(value, Known) for value in values):
            return known_array(np.stack([value.whole for value in values]))  # type: ignore[union-attr]
        shape = (len(values), *values[0].shape)
        equation = Equation("all turns", {}, {}, [shape], [values[0].dtype], "")
        return self.written(equation, list(values))[0]

    def while_loop(self, one: Any, other: Any, values: Sequence[Value], scope: str) -> Sequence[Value]:
        params, count = one.params, one.params["cond_nconsts"]
        constants, _ = while_operands(params)
        tests = [closed(each.params["cond_jaxpr"]) for each in (one, other)]
        bodies = [closed(each.params["body_jaxpr"]) for each in (one, other)]
        carry = list(values[count + constants :])
        for _ in range(LONGEST_LOOP):
            (goes_on,) = self.run(tests, [*values[:count], *carry], scope)
            if not isinstance(goes_on, Known):
                return self._refuse("while", scope, "the number of its turns depends on data", one)
            if not goes_on.array.item():
                return carry
            carry = self.run(bodies, [*values[count : count + constants], *carry], scope)
        return self._refuse("while", scope, "a loop of many turns", one)

    def cond(self, one: Any, other: Any, values: Sequence[Value], scope: str) -> Sequence[Value]:
        index, *operands = values
        branches = [[closed(x) for x in branches_of(each)] for each in (one, other)]
        if len(branches[0]) == 1:
            return self.run([each[0] for each in branches], operands, scope)
        if isinstance(index, Known):
            taken = int(np.clip(index.array.item(), 0, len(branches[0]) - 1))
            return self.run([each[taken] for each in branches], operands, scope)
        results = [self.run(pair, operands, scope) for pair in zip(*branches, strict=True)]
        found: list[Value] = []
        for column in zip(*results, strict=True):
            equation = Equation("select_n", {}, {}, [column[0].shape], [column[0].dtype], scope)
            found += self.written(equation, [index, *column])
        return found

    def _refuse(self, name: str, scope: str, reason: str, equation: Any) -> list[Value]:
        self.refused[name, scope] = reason
        return [REFUSED] * len(equation.outvars)


_CONTROL: dict[str, Callable[..., Sequence[Value]]] = {
    "scan": Translation.scan,
    "while": Translation.while_loop,
    "cond": Translation.cond,
}

KEPT = ("dequantized", "rounded")
"""Operations that are not computed, though their operands are known."""

REFUSED = Known(np.zeros(()), ())
"""In the place of what cannot be written."""


def computed(equation: Any, values: Sequence[Any]) -> list[Value]:
    """Results of an equation of known operands, computed in the types that the program has."""
    params = equation.primitive.get_bind_params(equation.params)
    pairs = zip(values, equation.invars, strict=True)
    arrays = [value.whole if is_key(atom.aval) else value.whole.astype(atom.aval.dtype) for value, atom in pairs]
    with np.errstate(invalid="ignore"), equation.ctx.manager if equation.ctx else contextlib.nullcontext():
        results = equation.primitive.bind(*arrays, **params)
    results = results if equation.primitive.multiple_results else [results]
    return [known_array(result) for result in results]


def _sizes(x: Any) -> Sizes:
    return x.shape if isinstance(x, Known) else x


def _needed(jaxpr: Any) -> set[Any]:
    """Variables that results depend on."""
    found = {atom for atom in jaxpr.outvars if not isinstance(atom, core.Literal)}
    for equation in reversed(jaxpr.eqns):
        if not found.isdisjoint(equation.outvars):
            found |= {atom for atom in equation.invars if not isinstance(atom, core.Literal)}
    return found
