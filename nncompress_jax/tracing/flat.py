"""A traced program without calls: one list of equations, of which it is known who reads what.

What `jit`, `remat` and functions with derivatives of their own call stands in the list itself. Loops, branches and
programs per device stay single equations.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.extend import core

from nncompress_jax.inputs import is_array
from nncompress_jax.tracing.primitives import CALLS, CUSTOM_DERIVATIVES, REMATS, called_program
from nncompress_jax.tracing.program import inner_programs
from nncompress_jax.tracing.trace import traced_with_constants
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Apply
from nncompress_jax.weights.base import is_compressed

_CALLED = (*CALLS, *REMATS, *CUSTOM_DERIVATIVES)

OUTPUT = -1
"""The reader of what a program returns."""


@dataclasses.dataclass(frozen=True)
class Flat:
    """A program of a network.

    Attributes:
      program: closed; without equations whose results nobody reads.
      paths: of the leaves, the program's first arguments.
    """

    program: Any
    paths: tuple[str, ...]

    @property
    def equations(self) -> Sequence[Any]:
        """In the order in which they run."""
        return self.program.jaxpr.eqns

    def readers(self) -> dict[Any, set[int]]:
        """Of each variable, the places of the equations that read it; `OUTPUT` for the end of the program."""
        readers: dict[Any, set[int]] = {}
        for place, equation in enumerate(self.equations):
            for variable in _variables(equation.invars):
                readers.setdefault(variable, set()).add(place)
        for variable in _variables(self.program.jaxpr.outvars):
            readers.setdefault(variable, set()).add(OUTPUT)
        return readers

    def until(self, *variables: Any) -> Any:
        """The program that returns these of its values instead, of the same arguments."""
        needed = _needed(self.equations, variables)
        jaxpr = self.program.jaxpr
        return _Program(_Equations(jaxpr.invars, jaxpr.constvars, needed, variables), self.program.consts)


@dataclasses.dataclass(frozen=True)
class _Equations:
    """What the interpreter reads of a program."""

    invars: Sequence[Any]
    constvars: Sequence[Any]
    eqns: Sequence[Any]
    outvars: Sequence[Any]


@dataclasses.dataclass(frozen=True)
class _Program:
    """With the values of its constants."""

    jaxpr: _Equations
    consts: Sequence[Any]


def flat(apply: Apply, variables: Any, *inputs: Any) -> Flat:
    """The program of a network, without calls.

    Args:
      apply: of (variables, *inputs).
      variables: any tree of arrays, `jax.ShapeDtypeStruct`, or compressed weights, which count as the dense array.
      *inputs: likewise.

    Raises:
      InputError: where apply cannot be traced with these arguments.

    Example:
      >>> import jax.numpy as jnp
      >>> program = flat(lambda w, x: jax.nn.relu(x @ w["a"]), {"a": jnp.ones((3, 2))}, jnp.ones((1, 3)))
      >>> program.paths, [equation.primitive.name for equation in program.equations]
      (('a',), ['dot_general', 'max'])
    """
    program, _ = traced_with_constants(
        apply, variables, *inputs, stand_in=lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    )
    shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in program.in_avals]
    inlined = jax.make_jaxpr(lambda *values: _evaluated(program, values))(*shapes)
    needed = _needed(inlined.jaxpr.eqns, inlined.jaxpr.outvars)
    jaxpr = inlined.jaxpr
    paths = [path for path, leaf in named_leaves(variables, is_compressed) if is_compressed(leaf) or is_array(leaf)]
    return Flat(
        _Program(_Equations(jaxpr.invars, jaxpr.constvars, needed, jaxpr.outvars), inlined.consts), tuple(paths)
    )


def _evaluated(program: Any, values: Sequence[Any]) -> list[Any]:
    """Results of a program; called programs run as part of it."""
    jaxpr = program.jaxpr
    known: dict[Any, Any] = dict(zip(jaxpr.invars, values, strict=True))
    known |= dict(zip(jaxpr.constvars, program.consts, strict=True))

    def read(atoms: Sequence[Any]) -> list[Any]:
        return [atom.val if isinstance(atom, core.Literal) else known[atom] for atom in atoms]

    for equation in jaxpr.eqns:
        with equation.ctx.manager:
            if equation.primitive.name in _CALLED and inner_programs(equation):
                results = _evaluated(called_program(equation), read(equation.invars))
            else:
                params: Mapping[str, Any] = equation.primitive.get_bind_params(equation.params)
                bound = equation.primitive.bind(*read(equation.invars), **params)
                results = list(bound) if equation.primitive.multiple_results else [bound]
        known |= dict(zip(equation.outvars, results, strict=True))
    return read(jaxpr.outvars)


def _needed(equations: Sequence[Any], wanted: Sequence[Any]) -> list[Any]:
    """Equations of whose results something wanted is made, or that have effects."""
    needed, found = set(_variables(wanted)), []
    for equation in reversed(equations):
        if equation.effects or not needed.isdisjoint(equation.outvars):
            needed.update(_variables(equation.invars))
            found.append(equation)
    return found[::-1]


def _variables(atoms: Sequence[Any]) -> list[Any]:
    return [atom for atom in atoms if not isinstance(atom, core.Literal)]
