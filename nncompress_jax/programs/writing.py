"""From what JAX traces to JSON."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from nncompress_jax.errors import InputError
from nncompress_jax.inputs import arguments, examples_in, is_array
from nncompress_jax.leaves import DTYPES, as_array, is_key
from nncompress_jax.programs import kinds
from nncompress_jax.programs.operations import DERIVATIVES, LEFT_OUT, OPERATIONS, SAME
from nncompress_jax.programs.sizes import (
    EXAMPLES,
    FIXED,
    SIZES,
    Batch,
    differing_parameter,
    merged,
    resized,
    size_of_both,
)
from nncompress_jax.tracing.primitives import (
    CALLS,
    CUSTOM_DERIVATIVES,
    REMATS,
    called_program,
    closed,
    scan_operands,
)
from nncompress_jax.tracing.trace import traced_closed
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Apply
from nncompress_jax.weights.base import is_compressed


def program_to_dict(
    apply: Apply, variables: Any, example: Any, *, any_batch: bool = True
) -> tuple[dict[str, Any], list[Any]]:
    """The program that a function runs on uncompressed variables, as `docs/format.md` has it.

    Args:
      apply: of (variables, *inputs).
      variables: compressed or not: their shapes count.
      example: inputs: a tuple of apply's further arguments, or the only one.
      any_batch: whether the first axis of inputs takes any length; else it has the one of the example.

    Returns:
      The program, and the arrays that it holds. Under `constants` an empty object stands for each, where a file
      has what its section is.

    Raises:
      InputError: for operations that are not in the list, all of them by name and module, and for results that are not
        arrays in dicts, lists and tuples.
    """
    inputs = arguments(example)
    examples = examples_in(inputs)
    variables = jax.tree.map(as_array, variables, is_leaf=is_compressed)
    outputs: list[Any] = []

    def called(*args: Any) -> Any:
        result = apply(*args)
        outputs.append(result)
        return result

    programs, shapes = [], []
    for count in EXAMPLES if any_batch else (examples, examples):
        given = tuple(resized(each, examples, count) for each in inputs)
        programs.append(traced_closed(called, variables, *given, stand_in=_dense))
        shapes.append([(path, leaf) for path, leaf in named_leaves(given) if is_array(leaf)])
    first, second = programs
    count = len(first.jaxpr.invars) - len(shapes[0])
    described = [_input(*pair) for pair in zip(*shapes, strict=True)]
    writer = _Writer()
    body = writer.body(first, second)
    if writer.refused:
        found = "; ".join(f"{name} in {scope or 'apply'}: {why}" for (name, scope), why in writer.refused.items())
        raise InputError(f"no program can be written of {found}")
    results = body.pop("results")
    node, rest = _output(outputs[-1], results, "")
    assert not rest
    about = {"variables": count, "inputs": described, "outputs": node}
    held: list[Any] = [{} for _ in writer.arrays]
    return about | body | {"scopes": list(writer.scopes), "constants": held}, writer.arrays


def _dense(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _input(one: tuple[str, Any], other: tuple[str, Any]) -> list[Any]:
    (path, x), (_, y) = one, other
    dtype = {"key": str(jax.random.key_impl(x))} if is_key(x) else x.dtype.name
    return [path, dtype, kinds.to_json(merged(x.shape, y.shape))]


def _output(tree: Any, results: list[Any], path: str) -> tuple[Any, list[Any]]:
    """A node for each of the dicts, lists and tuples that arrays are in, and the results that are left."""
    if tree is None:
        return {"none": True}, results
    if isinstance(tree, Mapping) and all(type(name) is str for name in tree):
        fields = {}
        for name in sorted(tree):
            fields[name], results = _output(tree[name], results, f"{path}/{name}")
        return {"dict": fields}, results
    if type(tree) in (list, tuple):
        nodes = []
        for place, each in enumerate(tree):
            node, results = _output(each, results, f"{path}/{place}")
            nodes.append(node)
        return {type(tree).__name__: nodes}, results
    if is_array(tree):
        return {"value": results[0]}, results[1:]
    raise InputError(
        f"apply returns a {type(tree).__name__}{f' at {path[1:]}' if path else ''}; "
        "expected arrays in dicts with names, lists and tuples: pass apply=lambda variables, *inputs: ..."
    )


@dataclasses.dataclass
class _Body:
    """Of a program: what is written so far."""

    known: dict[Any, Any]
    count: int
    operations: list[Any] = dataclasses.field(default_factory=list)


class _Writer:
    """Of one program and those inside it.

    Attributes:
      arrays: that the program holds.
      scopes: modules that operations stand in, with their numbers.
      refused: what could not be written: for each operation and module, why.
    """

    def __init__(self) -> None:
        self.arrays: list[Any] = []
        self.scopes: dict[str, int] = {"": 0}
        self.refused: dict[tuple[str, str], str] = {}

    def body(self, first: Any, second: Any, scope: str = "") -> dict[str, Any]:
        """A program whose values are numbered from 0: its operands first."""
        operands = list(range(len(first.jaxpr.invars)))
        body = _Body({}, len(operands))
        results = self.inlined(body, first, second, operands, scope)
        return {"operations": body.operations, "results": results}

    def inlined(self, body: _Body, first: Any, second: Any, operands: Sequence[Any], outer: str) -> list[Any]:
        """Writes all that a program does to these operands, and gives what its results are called."""
        one, other = first.jaxpr, second.jaxpr
        if [e.primitive.name for e in one.eqns] != [e.primitive.name for e in other.eqns]:
            raise InputError(f"apply does other things with another number of examples; {FIXED}")
        names: dict[Any, Any] = dict(zip(one.invars, operands, strict=True))
        for variable, x, y in zip(one.constvars, first.consts, second.consts, strict=True):
            names[variable] = self.constant(x, y)

        def name_of(atom: Any, twin: Any) -> Any:
            return self.literal(atom, twin) if isinstance(atom, core.Literal) else names[atom]

        for equation, twin in zip(one.eqns, other.eqns, strict=True):
            scope = "/".join(part for part in (outer, str(equation.source_info.name_stack)) if part)
            given = [name_of(*pair) for pair in zip(equation.invars, twin.invars, strict=True)]
            names |= zip(equation.outvars, self.step(body, equation, twin, given, scope), strict=True)
        return [name_of(*pair) for pair in zip(one.outvars, other.outvars, strict=True)]

    def step(self, body: _Body, one: Any, other: Any, operands: list[Any], scope: str) -> list[Any]:
        name, results = one.primitive.name, len(one.outvars)
        try:
            if name in SAME:
                return operands
            if name in (*CALLS, *REMATS):
                return self.inlined(body, called_program(one), called_program(other), operands, scope)
            if name in _CONTROL:
                params = _CONTROL[name](self, one, other, scope)
                return self.added(
                    body, "call" if name in CUSTOM_DERIVATIVES else name, operands, params, scope, results
                )
            return self.added(body, name, operands, _params(one, other), scope, results)
        except _RefusedError as error:
            self.refused[name, scope] = str(error)
            return [0] * results

    def added(
        self, body: _Body, name: str, operands: list[Any], params: dict[str, Any], scope: str, results: int
    ) -> list[int]:
        written: list[Any] = [name, operands]
        place = self.scopes.setdefault(scope, len(self.scopes))
        if params or place:
            written.append(params)
        if place:
            written.append(place)
        body.operations.append(written)
        body.count += results
        return list(range(body.count - results, body.count))

    def constant(self, first: Any, second: Any) -> Any:
        if np.shape(first) != np.shape(second) or not (is_key(first) or np.array_equal(first, second)):
            raise InputError(f"apply holds an array that goes with the number of examples, {np.shape(first)}; {FIXED}")
        if is_key(first):
            raise InputError("apply holds a random key; pass it as an argument")
        self.arrays.append(first)
        return {"constant": len(self.arrays) - 1}

    def literal(self, atom: Any, twin: Any) -> list[Any]:
        dtype, first, second = atom.aval.dtype.name, np.asarray(atom.val).item(), np.asarray(twin.val).item()
        if dtype not in DTYPES or isinstance(first, complex):
            raise InputError(f"a number of type {dtype}, of which no file holds any")
        if first == second or first != first:
            return [dtype, kinds.to_json(first)]
        whole = first == int(first) and second == int(second)
        found = size_of_both(int(first), int(second)) if whole else None
        if not isinstance(found, Batch):
            raise InputError(f"the number {first} goes with the number of examples; {FIXED}")
        return [dtype, kinds.to_json(found)]

    def scan(self, one: Any, other: Any, scope: str) -> dict[str, Any]:
        constants, carried = scan_operands(one.params)
        length = size_of_both(one.params["length"], other.params["length"])
        body = self.body(closed(one.params["jaxpr"]), closed(other.params["jaxpr"]), scope)
        about = {"length": kinds.to_json(length), "reverse": one.params["reverse"]}
        return about | {"constants": constants, "carried": carried, "body": body}

    def cond(self, one: Any, other: Any, scope: str) -> dict[str, Any]:
        branches = [[closed(each) for each in equation.params["branches"]] for equation in (one, other)]
        if one.params.get("branches_platforms") is not None:
            raise _RefusedError("another program for each platform")
        return {"branches": [self.body(x, y, scope) for x, y in zip(*branches, strict=True)]}

    def derived(self, one: Any, other: Any, scope: str) -> dict[str, Any]:
        """A function with a derivative of its own."""
        program = called_program(one)
        name = getattr(program.jaxpr.debug_info, "func_name", "")
        known = {"derivative": name} if name in DERIVATIVES else {}
        return known | {"body": self.body(program, called_program(other), scope)}

    def while_loop(self, one: Any, other: Any, scope: str) -> dict[str, Any]:
        raise _RefusedError("a loop without a fixed number of turns")


_CONTROL: dict[str, Callable[[_Writer, Any, Any, str], dict[str, Any]]] = {
    **{"scan": _Writer.scan, "cond": _Writer.cond, "while": _Writer.while_loop},
    **dict.fromkeys(CUSTOM_DERIVATIVES, _Writer.derived),
}


class _RefusedError(Exception):
    """Why an operation cannot be written."""


def _params(one: Any, other: Any) -> dict[str, Any]:
    name = one.primitive.name
    if name not in OPERATIONS:
        raise _RefusedError("not in the list of operations")
    if what := differing_parameter(one.params, other.params):
        raise _RefusedError(f"{what} goes with the number of examples; {FIXED}")
    listed, found = OPERATIONS[name].params, {}
    for parameter, value in one.params.items():
        if value is None or parameter in LEFT_OUT:
            continue
        if parameter not in listed:
            raise _RefusedError(f"{parameter}={str(value)[:60]}")
        try:
            both = kinds.of_both(value, other.params[parameter]) if parameter in SIZES else value
            found[parameter] = kinds.to_json(both)
            listed[parameter](found[parameter])
        except InputError as error:
            raise _RefusedError(f"{parameter}: {error}") from None
        except ValueError:
            raise _RefusedError(f"{parameter}={str(value)[:60]}") from None
    return found
