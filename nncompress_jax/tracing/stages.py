"""A program with several outputs, in stages: each computes one output more, and what the others go on with."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from jax.extend import core

from nncompress_jax.errors import InputError
from nncompress_jax.inputs import is_array
from nncompress_jax.tracing.flat import evaluate, flattened
from nncompress_jax.tracing.injection import inject
from nncompress_jax.tracing.trace import traced_with_outputs
from nncompress_jax.types import Apply, Array


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of a program.

    Attributes:
      equations: in the order in which they run; those of weights alone stand in each stage that needs them.
      inputs: what it goes on with, of the stage before; of the first, the program's own inputs.
      outputs: its output, and what the next stage goes on with.
    """

    equations: tuple[Any, ...]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Stages:
    """A divided program.

    Attributes:
      leaves: variables of the program that stand for the arrays of the network.
      constants: by variable, values that the program holds.
      stages: in order.
    """

    leaves: tuple[Any, ...]
    constants: dict[Any, Any]
    stages: tuple[Stage, ...]

    def run(self, number: int, leaves: Sequence[Array], carried: Sequence[Array]) -> tuple[Array, list[Array]]:
        """One stage.

        Args:
          number: of the stage, from 0.
          leaves: the arrays of the network, compressed weights in their parts.
          carried: of the stage before; of the first, the inputs.

        Returns:
          Its output, and what the next stage goes on with.
        """
        stage = self.stages[number]
        known = self.constants | dict(zip(self.leaves, leaves, strict=True))
        known |= dict(zip(stage.inputs, carried, strict=True))

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, core.Literal) else known[atom]

        evaluate(stage.equations, known)
        output, *others = map(read, stage.outputs)
        return output, others


def stages(apply: Apply, variables: Any, *inputs: Any) -> Stages:
    """A network of several outputs, divided behind each.

    Args:
      apply: of (variables, *inputs) to a tuple of arrays, in the order in which they are computed.
      variables: may be compressed.
      *inputs: arrays, or descriptions of them.

    Raises:
      InputError: where apply cannot be traced with these arguments, and for a single output.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"a": jnp.full((2, 2), 2.0), "b": jnp.full((2, 2), 3.0)}
      >>> apply = lambda w, x: ((y := x @ w["a"]).sum(-1), (y @ w["b"]).sum(-1))
      >>> divided = stages(apply, weights, jnp.ones((1, 2)))
      >>> first, carried = divided.run(0, [weights["a"], weights["b"]], [jnp.ones((1, 2))])
      >>> second, _ = divided.run(1, [weights["a"], weights["b"]], carried)
      >>> first.tolist(), carried[0].tolist(), second.tolist()
      ([8.0], [[4.0, 4.0]], [48.0])
    """
    closed, returned = traced_with_outputs(inject(apply, fast=True), variables, *inputs)
    if len(returned) < 2:
        raise InputError("apply returns one array; expected a network with early exits, which returns one for each")
    count = sum(map(is_array, jax.tree.leaves(variables)))
    program = flattened(closed, [place >= count for place in range(len(closed.jaxpr.invars))])
    jaxpr = program.jaxpr
    of_data = _of_data(jaxpr, count)
    number = _numbers(jaxpr)
    made = {variable: place for place, equation in enumerate(jaxpr.eqns) for variable in equation.outvars}
    result, carried = [], tuple(jaxpr.invars[count:])
    for stage, output in enumerate(jaxpr.outvars):
        later = _read_after(jaxpr, number, stage, of_data)
        there = {variable for variable in later if number.get(made.get(variable), -1) <= stage}
        outputs = (output, *sorted(there, key=lambda variable: made.get(variable, -1)))
        result.append(Stage(_needed(jaxpr, outputs, carried), carried, outputs))
        carried = outputs[1:]
    constants = dict(zip(jaxpr.constvars, program.consts, strict=True))
    return Stages(tuple(jaxpr.invars[:count]), constants, tuple(result))


def _of_data(jaxpr: Any, count: int) -> set[Any]:
    """Variables that depend on the inputs."""
    found = set(jaxpr.invars[count:])
    for equation in jaxpr.eqns:
        if any(not isinstance(atom, core.Literal) and atom in found for atom in equation.invars):
            found.update(equation.outvars)
    return found


def _numbers(jaxpr: Any) -> dict[int | None, int]:
    """Of each equation, by its place, the first output that needs it."""
    result: dict[int | None, int] = {}
    for stage, output in enumerate(jaxpr.outvars):
        wanted = {output}
        for place in reversed(range(len(jaxpr.eqns))):
            equation = jaxpr.eqns[place]
            if not wanted.isdisjoint(equation.outvars):
                result.setdefault(place, stage)
                wanted.update(_variables(equation.invars))
    return result


def _read_after(jaxpr: Any, number: dict[int | None, int], stage: int, of_data: set[Any]) -> set[Any]:
    """What later stages read or return, of the data."""
    readers = [equation.invars for place, equation in enumerate(jaxpr.eqns) if number.get(place, -1) > stage]
    return {variable for atoms in (*readers, jaxpr.outvars[stage + 1 :]) for variable in _variables(atoms)} & of_data


def _needed(jaxpr: Any, outputs: Sequence[Any], given: Sequence[Any]) -> tuple[Any, ...]:
    """Equations that make outputs of what is given and of weights."""
    wanted, found = set(_variables(outputs)) - set(given), []
    for equation in reversed(jaxpr.eqns):
        if not wanted.isdisjoint(equation.outvars):
            found.append(equation)
            wanted |= set(_variables(equation.invars)) - set(given)
    return tuple(reversed(found))


def _variables(atoms: Sequence[Any]) -> list[Any]:
    return [atom for atom in atoms if not isinstance(atom, core.Literal)]
