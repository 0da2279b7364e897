"""Goes through a network once, from place to place, and changes leaves on the way.

Networks run side by side, batch by batch: the one that changes, and references, which stay. At each place what meets
there is shown for all batches, and leaves may be replaced; what follows is computed with the new ones.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.extend import core

from nncompress_jax.bars import tracked
from nncompress_jax.errors import InputError
from nncompress_jax.inputs import arguments, is_array
from nncompress_jax.leaves import native
from nncompress_jax.tracing.flat import evaluate, flattened
from nncompress_jax.tracing.trace import traced_closed
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Apply
from nncompress_jax.weights.base import bind, dense, is_compressed

Pairs = Iterator[tuple[list[Any], ...]]
"""For each batch, operands of an equation in the network that changes, and in each reference."""


@dataclasses.dataclass(frozen=True)
class Stop:
    """A place in a program.

    Attributes:
      equation: of the flat program.
      operands: what the weights of the first walk alone say of each; None for data.
      place: of the equation in the flat program.
    """

    equation: Any
    operands: Sequence[Any]
    place: int

    @property
    def data(self) -> int:
        """The first operand that is data."""
        return next(n for n, operand in enumerate(self.operands) if operand is None)


Choice = Callable[[Stop], bool]
"""Whether to stop there."""

Visit = Callable[[Stop, Pairs], Mapping[str, Any]]
"""Of a place and what meets there, leaves by path that are different from there on: dense arrays."""


@dataclasses.dataclass(frozen=True, eq=False)
class Walk:
    """A way through a network, from one chosen place to the next; what it compiles serves as often as it is gone.

    Attributes:
      apply: of (variables, *inputs).
      choice: of equations with data and a weight among their operands, those to stop at, before they run.
      shown: by path, what stands in a leaf's place in `Stop.operands`.
    """

    apply: Apply
    choice: Choice
    shown: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    _programs: dict[Any, "_Program"] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def through(
        self,
        variables: Any,
        batches: Sequence[Any],
        visit: Visit,
        *,
        references: Sequence[Any] | None = None,
        as_dense: bool = True,
    ) -> None:
        """Runs the network on all batches.

        In memory are, for each network and batch, the values that are needed behind the present place.

        Args:
          variables: any tree; each time one with leaves of the same paths and shapes, and the same other leaves.
          batches: inputs; each a tuple of apply's further arguments, or the only one.
          visit: what is done at a place; it takes the operands of all batches.
          references: trees with leaves at the same paths, of networks that stay; by default the variables as they are.
          as_dense: whether compressed weights count as dense arrays; else they multiply by their own rules.
        """
        trees = (variables, *((variables,) if references is None else references))
        networks = [_leaves(tree, as_dense) for tree in trees]
        runs = []
        for batch in batches:
            inputs = arguments(batch)
            key = str(jax.tree.map(lambda x: (x.shape, x.dtype) if is_array(x) else x, inputs))
            if key not in self._programs:
                known = {**networks[0], **self.shown}
                self._programs[key] = _Program(self.apply, variables, inputs, self.choice, known)
            arrays = [x for x in jax.tree.leaves(inputs) if is_array(x)]
            runs.append(_Run(self._programs[key], arrays, len(networks)))
        counts = {len(each.program.stops) for each in runs}
        if len(counts) > 1:
            raise InputError(
                f"apply multiplies {sorted(counts)} times, as its inputs' shapes are; give batches of one shape"
            )
        weights = {id(each.program): [_Weights(each.program, own) for own in networks] for each in runs}

        def pairs(place: int) -> Pairs:
            for each in runs:
                yield each.operands(place, weights[id(each.program)])

        for place in tracked(range(max(counts, default=0)), "layer by layer"):
            changed = visit(runs[0].program.stops[place], pairs(place))
            for own, *_ in weights.values():
                own.replace(changed)


def _leaves(tree: Any, as_dense: bool) -> dict[str, Any]:
    found = [(path, leaf) for path, leaf in named_leaves(tree, is_compressed) if _is_leaf(leaf)]
    return {path: dense(native(leaf)) if as_dense else native(leaf) for path, leaf in found}


def _is_leaf(leaf: Any) -> bool:
    return is_compressed(leaf) or is_array(leaf)


class _Program:
    """A flat program, cut into pieces at the places where it stops."""

    def __init__(self, apply: Apply, variables: Any, inputs: Any, choice: Choice, shown: Mapping[str, Any]) -> None:
        paths = [path for path, leaf in named_leaves(variables, is_compressed) if _is_leaf(leaf)]
        closed = traced_closed(
            apply, variables, *inputs, stand_in=lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        )
        count = len(closed.jaxpr.invars) - len(paths)
        flat = flattened(closed, [False] * len(paths) + [True] * count)
        self.jaxpr, self.consts = flat.jaxpr, dict(zip(flat.jaxpr.constvars, flat.consts, strict=True))
        self.leaves = dict(zip(self.jaxpr.invars, paths, strict=False))
        self.inputs = self.jaxpr.invars[len(paths) :]
        self.depends: dict[Any, frozenset[str] | None] = dict.fromkeys(self.inputs)
        self.depends |= {variable: frozenset([path]) for variable, path in self.leaves.items()}
        self.makers: dict[Any, Any] = {}
        data = [(n, equation) for n, equation in enumerate(self.jaxpr.eqns) if self._is_of_data(equation)]
        known = _Weights(self, shown)
        self.stops: list[Stop] = []
        pieces: list[list[Any]] = [[]]
        for place, equation in data:
            operands = [known.value(atom) if self.of_weights(atom) else None for atom in equation.invars]
            stop = Stop(equation, operands, place)
            if any(x is not None for x in operands) and choice(stop):
                self.stops.append(stop)
                pieces.append([])
            pieces[-1].append(equation)
        self.pieces = [_Piece(self, piece, pieces[i + 1 :]) for i, piece in enumerate(pieces[:-1])]

    def _is_of_data(self, equation: Any) -> bool:
        met = [self.depends.get(atom, frozenset()) for atom in equation.invars if not isinstance(atom, core.Literal)]
        is_data = None in met
        depends = None if is_data else frozenset().union(*met)  # type: ignore[arg-type]
        self.depends |= dict.fromkeys(equation.outvars, depends)
        if not is_data:
            self.makers |= dict.fromkeys(equation.outvars, equation)
        return is_data

    def of_weights(self, atom: Any) -> bool:
        """Whether a value is known without data."""
        return isinstance(atom, core.Literal) or self.depends.get(atom, frozenset()) is not None


class _Piece:
    """Equations from one stop to the next, as one compiled function."""

    def __init__(self, program: _Program, equations: Sequence[Any], later: Sequence[Sequence[Any]]) -> None:
        made = {variable for equation in equations for variable in equation.outvars}
        met = dict.fromkeys(x for equation in equations for x in equation.invars if not isinstance(x, core.Literal))
        used = [variable for variable in met if variable not in made]
        behind = {
            x for piece in later for equation in piece for x in equation.invars if not isinstance(x, core.Literal)
        }
        self.data = [variable for variable in used if not program.of_weights(variable)]
        self.weights = [variable for variable in used if program.of_weights(variable)]
        self.results = [v for equation in equations for v in equation.outvars if v in behind]
        self.behind = behind
        self.run = jax.jit(functools.partial(self._run, equations))

    def _run(self, equations: Sequence[Any], data: Sequence[Any], weights: Sequence[Any]) -> list[Any]:
        known = dict(zip([*self.data, *self.weights], [*data, *weights], strict=True))
        evaluate(equations, known)
        return [known[variable] for variable in self.results]


class _Weights:
    """Values that leaves alone make, computed when they are asked for, and again when a leaf has changed."""

    def __init__(self, program: _Program, leaves: Mapping[str, Any]) -> None:
        self.program, self.leaves = program, dict(leaves)
        self.known: dict[Any, Any] = dict(program.consts)

    def value(self, atom: Any) -> Any:
        if isinstance(atom, core.Literal):
            return atom.val
        if atom in self.program.leaves:
            return self.leaves[self.program.leaves[atom]]
        if atom not in self.known:
            equation = self.program.makers[atom]
            params = equation.primitive.get_bind_params(equation.params)
            results = bind(equation.primitive, [self.value(x) for x in equation.invars], params)
            results = results if equation.primitive.multiple_results else [results]
            self.known |= zip(equation.outvars, results, strict=True)
        return self.known[atom]

    def replace(self, leaves: Mapping[str, Any]) -> None:
        self.leaves |= leaves
        stale = [v for v in self.known if not (self.program.depends.get(v) or frozenset()).isdisjoint(leaves)]
        for variable in stale:
            del self.known[variable]


class _Run:
    """One batch in all networks."""

    def __init__(self, program: _Program, inputs: Sequence[Any], networks: int) -> None:
        self.program = program
        self.values = [dict(zip(program.inputs, inputs, strict=True)) for _ in range(networks)]

    def operands(self, place: int, weights: Sequence[_Weights]) -> tuple[list[Any], ...]:
        """At a stop, after what comes before it."""
        piece, equation = self.program.pieces[place], self.program.stops[place].equation
        found = []
        for values, own in zip(self.values, weights, strict=True):
            results = piece.run([values[x] for x in piece.data], [own.value(x) for x in piece.weights])
            values |= zip(piece.results, results, strict=True)
            for variable in [*values]:
                if variable not in piece.behind:
                    del values[variable]
            found.append([own.value(x) if self.program.of_weights(x) else values[x] for x in equation.invars])
        return tuple(found)
