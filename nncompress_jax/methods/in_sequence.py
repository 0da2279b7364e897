"""Weights replaced one after the other, in the order of the program, by what keeps their outputs closest.

Each is solved for on the inputs that the replaced weights before it leave, and for the outputs that the network had.

Source: of the order, Frantar et al. 2023, "GPTQ", section 3; of the outputs, Li et al. 2025, "GPTAQ".
"""

import collections
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

import equinox as eqx
import jax

from nncompress_jax.axes.contraction import PRODUCTS
from nncompress_jax.methods.second_order import Problem, problem_of
from nncompress_jax.methods.selection import LeftAlone, exchanged, inner_replaced, network, replaced, taken
from nncompress_jax.tracing.grams import Gram, Sums, collected, grams, sums
from nncompress_jax.tracing.injection import inject
from nncompress_jax.tracing.numbered import innermost, is_numbered, numbered, path_of
from nncompress_jax.tracing.observations import Meeting
from nncompress_jax.tracing.sequence import Pairs, Stop, Walk
from nncompress_jax.tracing.trace import kinds
from nncompress_jax.tree import Where, named_leaves
from nncompress_jax.types import Apply, Array, Context
from nncompress_jax.weights.base import dense, is_compressed

Make = Callable[[str, Array, Problem | None], Any]
"""Of (path, array, problem) what takes the array's place; without a problem, where nothing is known of its inputs."""

UNKNOWN = "no batch reached it, or it is computed with before it multiplies; it becomes what it does without batches"


def replaced_in_sequence(
    variables: Any, where: Where, make: Make, *, makes: type, context: Context, reference: Any = None
) -> Any:
    """As `selection.replaced`, with what is to be solved for each weight.

    The inputs of a weight that multiplies at several places, or in turns of a loop, are those of the network as it was.
    Of weights of which nothing is known a warning says so.

    Args:
      variables, where, makes, context: as of `replaced`.
      make: what takes a leaf's place.
      reference: variables whose outputs are to be kept, arrays of the same shapes; by default the same.

    Raises:
      InputError: as `replaced` does, where `apply` or `batches` are missing, and for too few rows of data.
    """
    apply, _ = network(context, "second order")
    paths = taken(variables, where, makes=makes, context=context)
    if chains := {path for path, leaf in named_leaves(variables, is_compressed) if path in paths and _is_chain(leaf)}:
        return _factor_by_factor(variables, paths, chains, make, makes, context, reference)
    leaves = {path: leaf for path, leaf in named_leaves(variables, is_compressed) if path in paths}
    reference = variables if reference is None else reference
    products, walk = _way(apply, variables, leaves, context)
    places = products.paths

    solver = _Solver(reference, leaves, make, makes, context)

    def visit(stop: Stop, pairs: Pairs) -> Mapping[str, Any]:
        path = places[stop.place]
        counts = collections.Counter(places.values())
        if counts[path] == 1:
            solver.solve(path, products.gram(stop, pairs, len(context.batches)))
            return {path: dense(solver.made[path])}
        collections.deque(pairs, 0)  # the networks go on
        if path in solver.made:
            return {}
        several = [other for other, count in counts.items() if count > 1]
        solver.solve_apart(several)
        return {other: dense(solver.made[other]) for other in several}

    walk.through(variables, context.batches, visit, references=[reference])
    solver.solve_apart(leaves.keys() - solver.made.keys())
    return exchanged(variables, solver.made)


def _is_chain(leaf: Any) -> bool:
    return is_compressed(innermost(leaf))


def _factor_by_factor(
    variables: Any,
    paths: Collection[str],
    chains: Collection[str],
    make: Make,
    makes: type,
    context: Context,
    reference: Any,
) -> Any:
    """The same in a network in which each array of a weight that holds several is a weight of its own."""
    structure = jax.tree.structure(variables, is_leaf=is_compressed)
    leaves = named_leaves(variables, is_compressed)

    def opened(tree: Any) -> dict[str, Any]:
        parts: dict[str, Any] = {}
        for path, leaf in named_leaves(tree, is_compressed):
            if path in chains:
                inner_replaced(path, leaf, parts.setdefault)
            else:
                parts[path] = leaf
        return parts

    def closed(parts: Mapping[str, Any]) -> Any:
        every = [
            inner_replaced(path, leaf, lambda inner, _: parts[inner]) if path in chains else parts[path]
            for path, leaf in leaves
        ]
        return jax.tree.unflatten(structure, every)

    def factors() -> Context:
        apply = inject(context.apply)  # type: ignore[arg-type]
        return Context(lambda parts, *inputs, **rest: apply(closed(parts), *inputs, **rest), context.batches)

    parts = opened(variables)
    chosen = parts.keys() - ({path for path, _ in leaves} - set(paths))
    inner = context.kept(("factors", frozenset(chains), kinds(variables)), factors)
    before = None if reference is None else opened(reference)
    made = replaced_in_sequence(parts, lambda path: path in chosen, make, makes=makes, context=inner, reference=before)
    return closed(made)


def _way(apply: Apply, variables: Any, leaves: Mapping[str, Any], context: Context) -> tuple["_Products", Walk]:
    """Through all products of these leaves; kept, where entries of arrays alone are numbered."""

    def make() -> tuple[_Products, Walk]:
        products = _Products()
        return products, Walk(apply, products, {path: numbered(path, leaf) for path, leaf in leaves.items()})

    if any(is_compressed(leaf) for leaf in leaves.values()):
        return make()
    return context.kept(("in sequence", frozenset(leaves), kinds(variables)), make)


class _Products:
    """The choice of all products of one numbered weight with data.

    Attributes:
      paths: of the weights, by place.
    """

    def __init__(self) -> None:
        self.paths: dict[int, str] = {}
        self._sums: dict[int, Callable[[Array, Array], Sums | None]] = {}

    def __call__(self, stop: Stop) -> bool:
        weights = [operand for operand in stop.operands[:2] if is_numbered(operand)]
        if stop.equation.primitive not in PRODUCTS or len(weights) != 1 or None not in stop.operands[:2]:
            return False
        self.paths[stop.place] = path_of(weights[0])
        return True

    def gram(self, stop: Stop, pairs: Pairs, batches: int) -> Gram | None:
        """Of what meets a weight in both networks."""
        operand = next(place for place, known in enumerate(stop.operands) if is_numbered(known))
        weight, equation, path = stop.operands[operand], stop.equation, self.paths[stop.place]

        def of_batch(inputs: Array, reference: Array) -> Sums | None:
            met = Meeting(path, inputs, weight, operand, equation.primitive, equation.params)
            return sums(met, inputs, reference, batches, 0)

        run = self._sums.setdefault(stop.place, eqx.filter_jit(of_batch))
        parts = [run(now[1 - operand], first[1 - operand]) for now, first in pairs]
        return collected(part for part in parts if part is not None)


class _Solver:
    """What becomes of leaves, by path."""

    def __init__(
        self,
        reference: Any,
        leaves: Mapping[str, Any],
        make: Make,
        makes: type,
        context: Context,
    ) -> None:
        self.reference, self.leaves, self.make, self.makes = reference, leaves, make, makes
        self.before = dict(named_leaves(reference, is_compressed))
        self.context = context
        self.made: dict[str, Any] = {}

    def solve(self, path: str, gram: Gram | None) -> None:
        leaf, problem = self.leaves[path], None
        if gram is None:
            warnings.warn(f"{path}: {UNKNOWN}", LeftAlone, stacklevel=3)
        else:
            problem = problem_of(path, innermost(self.before[path]), gram)

        def make(inner: str, array: Array) -> Any:
            return self.make(inner, array, problem)

        alone = {path: leaf}
        self.made |= replaced(alone, lambda _: True, make, makes=self.makes, context=self.context)

    def solve_apart(self, paths: Collection[str]) -> None:
        """On the inputs of the network as it was."""
        assert self.context.apply is not None
        found = grams(self.context.apply, self.reference, self.context.batches, paths) if paths else {}
        for path in sorted(paths):
            self.solve(path, found.get(path))
