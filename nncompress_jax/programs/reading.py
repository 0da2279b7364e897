"""From JSON to a function; nothing that a file says is believed before it is checked."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax.errors import ArtifactError
from nncompress_jax.programs import kinds
from nncompress_jax.programs.operations import DERIVATIVES, OPERATIONS
from nncompress_jax.programs.sizes import Batch, Sizes

MOST_OPERATIONS = 2**16
DEEPEST = 16
"""So many programs stand inside one another at most."""

MOST_TURNS = 2**20
"""Of loops inside one another, together."""

CHECKED = 2
"""Examples for which a program is checked."""


@dataclasses.dataclass(frozen=True)
class Input:
    """An array that a program takes beside the variables: where it stands among the arguments, and what it is."""

    path: str
    dtype: np.dtype | str
    shape: Sizes

    def __str__(self) -> str:
        sizes = ["batch" if size == Batch() else str(kinds.to_json(size)) for size in self.shape]
        return f"{self.dtype}[{', '.join(sizes)}]"

    def aval(self, examples: int) -> jax.ShapeDtypeStruct:
        """For so many examples."""
        shape = kinds.at(self.shape, examples)
        if isinstance(self.dtype, str):
            key = jax.eval_shape(lambda: jax.random.key(0, impl=self.dtype))
            return jax.ShapeDtypeStruct(shape, key.dtype)
        return jax.ShapeDtypeStruct(shape, self.dtype)


@dataclasses.dataclass(frozen=True)
class Step:
    """An operation in its place. Operands are numbers of values, `Constant`, or `Number`."""

    name: str
    operands: tuple[Any, ...]
    params: Mapping[str, Any]
    scope: str


@dataclasses.dataclass(frozen=True)
class Body:
    """Steps on values that are numbered from 0, the operands first, and what is handed back."""

    steps: tuple[Step, ...]
    results: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Constant:
    """An array that the file holds for the program."""

    place: int


@dataclasses.dataclass(frozen=True)
class Number:
    """A number in a program; it may go with the number of examples."""

    value: Any
    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class Program:
    """Read, but not yet checked on variables.

    Attributes:
      variables: arrays and weights that it takes first.
      inputs: that it takes next.
      body: what it does.
      outputs: in which dicts, lists and tuples its results are.
      arrays: what stands for its constants.
    """

    variables: int
    inputs: tuple[Input, ...]
    body: Body
    outputs: Any
    arrays: tuple[Any, ...]

    @property
    def description(self) -> str:
        """How many operations it has, and what it takes."""
        return f"{len(self.body.steps)} operations on {', '.join(str(each) for each in self.inputs)}"


def program_from_dict(described: Any) -> Program:
    """What `program_to_dict` gave.

    Raises:
      ArtifactError: for anything else.
    """
    names = {"variables", "inputs", "outputs", "operations", "scopes", "constants"}
    if not isinstance(described, dict) or described.keys() != names:
        raise ArtifactError(f"a program described as {str(described)[:60]}")
    scopes, arrays = described["scopes"], described["constants"]
    lists = type(scopes) is list and type(arrays) is list
    if not lists or any(type(x) is not str for x in scopes) or not all(isinstance(x, dict) for x in arrays):
        raise ArtifactError(f"scopes of a program {str(scopes)[:60]}, constants {str(arrays)[:60]}")
    count = described["variables"]
    if type(count) is not int or count < 0 or type(described["inputs"]) is not list:
        raise ArtifactError(f"{str(count)[:60]} variables of a program, inputs {str(described['inputs'])[:60]}")
    inputs = tuple(map(_input, described["inputs"]))
    if len({each.path for each in inputs}) < len(inputs):
        raise ArtifactError("two inputs of a program at one place")
    reader = _Reader(scopes, len(arrays))
    results: list[Any] = []
    outputs = reader.outputs(described["outputs"], results, 0)
    body = reader.body({"operations": described["operations"], "results": results}, 0, 1)
    return Program(count, inputs, body, outputs, tuple(arrays))


def _input(described: Any) -> Input:
    with _refusing("an input", described):
        path, dtype, shape = kinds.each_of(_text, _dtype_or_key, kinds.sizes)(described)
        return Input(path, dtype, shape)
    raise AssertionError


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError
    return value


def _dtype_or_key(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"key"}:
        return kinds.key_kind(value["key"])
    return kinds.dtype(value)


@contextlib.contextmanager
def _refusing(what: str, described: Any) -> Any:
    try:
        yield
    except ArtifactError:
        raise
    except (ValueError, TypeError, KeyError):
        raise ArtifactError(f"{what} of a program is described as {str(described)[:80]}") from None


@dataclasses.dataclass
class _Reader:
    """Of one program and those inside it.

    Attributes:
      scopes: by number.
      constants: how many there are.
      operations: how many were read.
    """

    scopes: Sequence[str]
    constants: int
    operations: int = 0

    def outputs(self, node: Any, results: list[Any], depth: int) -> Any:
        """The same node, with places among the results for what stands for values."""
        if isinstance(node, dict) and len(node) == 1 and depth < DEEPEST:
            ((kind, content),) = node.items()
            if kind == "value":
                results.append(content)
                return {"value": len(results) - 1}
            if kind == "dict" and isinstance(content, dict):
                return {"dict": {name: self.outputs(each, results, depth + 1) for name, each in content.items()}}
            if kind in ("list", "tuple") and isinstance(content, list):
                return {kind: [self.outputs(each, results, depth + 1) for each in content]}
            if kind == "none" and content is True:
                return node
        raise ArtifactError(f"the output of a program is described as {str(node)[:60]}")

    def body(self, described: Any, depth: int, turns: int) -> Body:
        if not isinstance(described, dict) or described.keys() != {"operations", "results"} or depth > DEEPEST:
            raise ArtifactError(f"a program inside of one is described as {str(described)[:60]}, at depth {depth}")
        operations, results = described["operations"], described["results"]
        if type(operations) is not list or type(results) is not list:
            raise ArtifactError(f"operations {str(operations)[:60]}, results {str(results)[:60]}")
        self.operations += len(operations)
        if self.operations > MOST_OPERATIONS:
            raise ArtifactError(f"a program of more than {MOST_OPERATIONS:,} operations")
        return Body(tuple(self.step(each, depth, turns) for each in operations), tuple(map(self.operand, results)))

    def operand(self, described: Any) -> Any:
        with _refusing("an operand", described):
            if isinstance(described, dict) and described.keys() == {"constant"}:
                place = kinds.integer(described["constant"])
                if not 0 <= place < self.constants:
                    raise ValueError
                return Constant(place)
            if isinstance(described, list):
                dtype, value = kinds.each_of(kinds.dtype, lambda x: x)(described)
                return _number(dtype, value)
            return kinds.integer(described)

    def step(self, described: Any, depth: int, turns: int) -> Step:
        if type(described) is not list or not 2 <= len(described) <= 4:
            raise ArtifactError(f"an operation of a program is described as {str(described)[:60]}")
        missing: list[Any] = [{}, 0][len(described) - 2 :]
        name, operands, params, scope = described + missing
        if type(name) is not str or type(operands) is not list or not isinstance(params, dict):
            raise ArtifactError(f"an operation of a program is described as {str(described)[:60]}")
        if type(scope) is not int or not 0 <= scope < len(self.scopes):
            raise ArtifactError(f"operation {name[:60]} stands in module {str(scope)[:20]} of {len(self.scopes)}")
        values = tuple(map(self.operand, operands))
        with _refusing(f"operation {name[:60]}", params):
            if name in _INSIDE:
                read = _INSIDE[name](self, params, depth, turns)
            elif name in OPERATIONS:
                listed = OPERATIONS[name].params
                if not params.keys() <= listed.keys():
                    raise ValueError
                read = {parameter: listed[parameter](value) for parameter, value in params.items()}
            else:
                raise ArtifactError(f"operation {name[:60]}, which this library has none of")
            return Step(name, values, read, self.scopes[scope])

    def scan(self, params: Any, depth: int, turns: int) -> dict[str, Any]:
        if params.keys() != {"length", "reverse", "constants", "carried", "body"}:
            raise ValueError
        length = kinds.size(params["length"])
        turns *= length.times * CHECKED if isinstance(length, Batch) else max(length, 1)
        if turns > MOST_TURNS or (isinstance(length, int) and length < 0):
            raise ArtifactError(f"a loop of {turns:,} turns, expected {MOST_TURNS:,} at most")
        counts = {name: kinds.integer(params[name]) for name in ("constants", "carried")}
        if min(counts.values()) < 0:
            raise ValueError
        body = self.body(params["body"], depth + 1, turns)
        return counts | {"length": length, "reverse": kinds.flag(params["reverse"]), "body": body}

    def cond(self, params: Any, depth: int, turns: int) -> dict[str, Any]:
        if params.keys() != {"branches"} or type(params["branches"]) is not list or not params["branches"]:
            raise ValueError
        return {"branches": tuple(self.body(each, depth + 1, turns) for each in params["branches"])}

    def call(self, params: Any, depth: int, turns: int) -> dict[str, Any]:
        if not {"body"} <= params.keys() <= {"body", "derivative"}:
            raise ValueError
        derivative = params.get("derivative")
        if derivative is not None and (type(derivative) is not str or derivative not in DERIVATIVES):
            raise ArtifactError(f"the derivative of {str(derivative)[:60]}, which this library has none of")
        return {"derivative": derivative, "body": self.body(params["body"], depth + 1, turns)}


_INSIDE: Mapping[str, Callable[[_Reader, Any, int, int], dict[str, Any]]] = {
    **{"scan": _Reader.scan, "cond": _Reader.cond, "call": _Reader.call},
}
"""Operations with programs inside them."""


def _number(dtype: np.dtype, value: Any) -> Number:
    if isinstance(value, dict):
        return Number(kinds.size(value), dtype)
    number = kinds.number(value)
    if isinstance(number, bool) != (dtype.name == "bool"):
        raise ValueError
    with np.errstate(over="ignore"), contextlib.suppress(OverflowError):
        made = np.asarray(number, dtype)
        if made == number or number != number or jnp.issubdtype(dtype, jnp.floating):
            return Number(made, dtype)
    raise ValueError
