"""A traced program as one list of equations, of which it is known who reads what."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import jax
from jax.extend import core

from nncompress_jax.inputs import is_array
from nncompress_jax.tracing.flat import flattened
from nncompress_jax.tracing.trace import traced_closed
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Apply
from nncompress_jax.weights.base import is_compressed

OUTPUT = -1
"""The reader of what a program returns."""


@dataclasses.dataclass(frozen=True)
class Graph:
    """A flat program of a network.

    Attributes:
      program: closed, as `flattened` makes it.
      paths: of the leaves, the program's first arguments.
      needed: places of the equations of whose results something returned is made.
    """

    program: Any
    paths: tuple[str, ...]
    needed: frozenset[int]

    @property
    def equations(self) -> Sequence[Any]:
        """In the order in which they run; of a program's equations it is known by their places in this list."""
        return self.program.jaxpr.eqns

    def readers(self) -> dict[Any, set[int]]:
        """Of each variable, the places of the equations that read it; `OUTPUT` for the end of the program."""
        readers: dict[Any, set[int]] = {}
        for place in self.needed:
            for variable in _variables(self.equations[place].invars):
                readers.setdefault(variable, set()).add(place)
        for variable in _variables(self.program.jaxpr.outvars):
            readers.setdefault(variable, set()).add(OUTPUT)
        return readers

    def makers(self) -> dict[Any, int]:
        """Of each variable that an equation computes, the place of that equation."""
        return {variable: place for place in sorted(self.needed) for variable in self.equations[place].outvars}


def graph(apply: Apply, variables: Any, *inputs: Any) -> Graph:
    """The flat program of a network.

    Args:
      apply: of (variables, *inputs).
      variables: any tree of arrays, `jax.ShapeDtypeStruct`, or compressed weights, which count as the dense array.
      *inputs: likewise.

    Raises:
      InputError: where apply cannot be traced with these arguments.

    Example:
      >>> import jax.numpy as jnp
      >>> found = graph(lambda w, x: jax.nn.relu(x @ w["a"]), {"a": jnp.ones((3, 2))}, jnp.ones((1, 3)))
      >>> found.paths, [equation.primitive.name for equation in found.equations]
      (('a',), ['dot_general', 'max'])
    """
    closed = traced_closed(
        apply, variables, *inputs, stand_in=lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    )
    paths = [path for path, leaf in named_leaves(variables, is_compressed) if is_compressed(leaf) or is_array(leaf)]
    data = len(closed.jaxpr.invars) - len(paths)
    program = flattened(closed, [False] * len(paths) + [True] * data)
    wanted, needed = set(_variables(program.jaxpr.outvars)), set()
    for place, equation in reversed([*enumerate(program.jaxpr.eqns)]):
        if equation.effects or not wanted.isdisjoint(equation.outvars):
            wanted.update(_variables(equation.invars))
            needed.add(place)
    return Graph(program, tuple(paths), frozenset(needed))


def _variables(atoms: Iterable[Any]) -> list[Any]:
    return [atom for atom in atoms if not isinstance(atom, core.Literal)]
