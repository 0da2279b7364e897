"""Running a program that was read, as the function that it was written from."""

import contextlib
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nncompress_jax.errors import ArtifactError, InputError
from nncompress_jax.inputs import is_array
from nncompress_jax.leaves import as_array, is_key, is_number, native
from nncompress_jax.programs import kinds
from nncompress_jax.programs.operations import DERIVATIVES, OPERATIONS
from nncompress_jax.programs.reading import CHECKED, Body, Constant, Input, Number, Program, Step
from nncompress_jax.programs.sizes import Batch
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Apply
from nncompress_jax.weights.base import is_compressed

Values = list[Any]
Check = Callable[[Any], None]
"""Of each result."""


def apply_of(
    program: Program, variables: Sequence[tuple[str, Any]], constants: Sequence[Any], *, max_bytes: int = sys.maxsize
) -> Apply:
    """The function of (variables, *inputs) that a program was written from.

    It is an ordinary function of JAX, for dense arrays: `inject` makes it run on compressed ones.

    Args:
      program: of a file.
      variables: of the same file, as of `leaves_of`: their paths, shapes and types are those that the function takes.
      constants: arrays of the program.
      max_bytes: that a result of one operation may have.

    Raises:
      ArtifactError: where the program does not fit the variables, or is none.
    """
    numbers = {path: leaf for path, leaf in variables if is_number(leaf)}
    expected = {path: _description(leaf) for path, leaf in variables if path not in numbers}
    if len(expected) != program.variables:
        raise ArtifactError(f"a program of {program.variables} variables, where the file has {len(expected)}")

    def apply(variables: Any, *inputs: Any) -> Any:
        found = dict(leaves_of(variables))
        for path, number in numbers.items():
            if found.get(path) != number:
                raise InputError(f"variables: {path} is {found.get(path)}, expected {number}, as the program has it")
        for path, (shape, dtype) in expected.items():
            if path not in found or _description(found[path]) != (shape, dtype):
                what = f"{found[path].dtype}{list(found[path].shape)}" if path in found else "none"
                raise InputError(f"variables: {path} is {what}, expected {dtype}{list(shape)}, as the program has it")
        given, examples = _given(program.inputs, inputs)
        run = _Run(constants, examples)
        results = run.body(program.body, [*(found[path] for path in expected), *given])
        return _outputs(program.outputs, results)

    _check(program, expected, constants, max_bytes)
    return apply


def leaves_of(variables: Any) -> list[tuple[str, Any]]:
    """Arrays, compressed weights and numbers among the leaves, with their paths, in the order of a program."""
    leaves = [(path, native(as_array(leaf))) for path, leaf in named_leaves(variables, is_compressed)]
    return [(path, leaf) for path, leaf in leaves if is_compressed(leaf) or is_array(leaf) or is_number(leaf)]


def _description(leaf: Any) -> tuple[tuple[int, ...], Any]:
    dtype = leaf.dtype if is_key(leaf) else jax.dtypes.canonicalize_dtype(leaf.dtype)
    return tuple(leaf.shape), dtype


def _given(expected: Sequence[Input], inputs: tuple[Any, ...]) -> tuple[list[Any], int]:
    """Arrays in the order of the program, and how many examples they hold."""
    found = {path: leaf for path, leaf in named_leaves(inputs) if is_array(leaf)}
    if found.keys() != {each.path for each in expected}:
        names = [each.path for each in expected]
        raise InputError(f"inputs at {', '.join(found) or 'no place'}, expected {', '.join(names) or 'none'}")
    examples = 1
    for each in expected:
        shape = tuple(found[each.path].shape)
        batch = next((n for n, size in enumerate(each.shape) if isinstance(size, Batch)), None)
        if batch is not None and batch < len(shape):
            examples = max(shape[batch] // each.shape[batch].times, 1)  # type: ignore[union-attr]
            break
    for each in expected:
        x = found[each.path]
        if _description(x) != _description(each.aval(examples)):
            raise InputError(f"input {each.path}: {x.dtype}{list(x.shape)}, expected {each}")
    return [native(found[each.path]) for each in expected], examples


def _outputs(node: Any, results: Values) -> Any:
    ((kind, content),) = node.items()
    if kind == "value":
        return results[content]
    if kind == "dict":
        return {name: _outputs(each, results) for name, each in content.items()}
    return None if kind == "none" else {"list": list, "tuple": tuple}[kind](_outputs(each, results) for each in content)


def _check(program: Program, expected: Any, constants: Sequence[Any], max_bytes: int) -> None:
    """Runs a program on shapes alone."""

    def small(result: Any) -> None:
        size = math.prod(result.shape) * (4 if is_key(result) else result.dtype.itemsize)
        if size > max_bytes:
            raise ArtifactError(f"a result of {size:,} bytes, more than the {max_bytes:,} that may be; see max_bytes=")

    avals = [jax.ShapeDtypeStruct(*each) for each in expected.values()]
    run = _Run(constants, CHECKED, small)
    jax.eval_shape(
        lambda *values: run.body(program.body, [*values]), *avals, *(x.aval(CHECKED) for x in program.inputs)
    )


class _Run:
    """Of one call.

    Attributes:
      constants: arrays of the program.
      examples: in the inputs.
      check: of each result; where it is given, what fails is the file's fault.
    """

    def __init__(self, constants: Sequence[Any], examples: int, check: Check | None = None) -> None:
        self.constants, self.examples, self.check = constants, examples, check

    def body(self, body: Body, values: Values) -> Values:
        for step in body.steps:
            if self.check is None:
                values += self.step(step, values)
                continue
            try:
                results = self.step(step, values)
                for result in results:
                    self.check(result)
            except ArtifactError:
                raise
            except Exception as error:  # whatever JAX raises where an operation and its operands do not go together
                line = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise ArtifactError(f"operation {step.name} of the program: {line[:120]}") from None
            values += results
        return [self.value(each, values) for each in body.results]

    def value(self, operand: Any, values: Values) -> Any:
        if isinstance(operand, Constant):
            return self.constants[operand.place]
        if isinstance(operand, Number):
            number = operand.value
            return jnp.asarray(number.times * self.examples if isinstance(number, Batch) else number, operand.dtype)
        if not 0 <= operand < len(values):
            raise ArtifactError(f"value {operand} of {len(values)} in the program")
        return values[operand]

    def step(self, step: Step, values: Values) -> Values:
        operands = [self.value(each, values) for each in step.operands]
        params = {name: kinds.at(value, self.examples) for name, value in step.params.items()}
        with jax.named_scope(step.scope) if step.scope else contextlib.nullcontext():
            if step.name in _INSIDE:
                return _INSIDE[step.name](self, operands, **params)
            results = OPERATIONS[step.name].run(*operands, **params)
        return list(results) if isinstance(results, list | tuple) else [results]

    def scan(self, operands: Values, *, constants: int, carried: int, length: int, reverse: bool, body: Body) -> Values:
        fixed, carry, rows = operands[:constants], operands[constants:][:carried], operands[constants + carried :]

        def turn(carry: Values, row: Values) -> tuple[Values, Values]:
            results = self.body(body, [*fixed, *carry, *row])
            return results[:carried], results[carried:]

        carry, columns = lax.scan(turn, carry, rows, length=length, reverse=reverse)
        return [*carry, *columns]

    def cond(self, operands: Values, *, branches: tuple[Body, ...]) -> Values:
        index, *others = operands
        return lax.switch(index, [lambda *values, body=body: self.body(body, [*values]) for body in branches], *others)

    def call(self, operands: Values, *, derivative: str | None, body: Body) -> Values:
        """A function with a derivative of its own: forward as the file has it."""
        called = jax.custom_jvp(lambda *values: self.body(body, [*values]))

        @called.defjvp
        def _(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
            if derivative is None:
                raise InputError("a function with a derivative of its own, which the file does not hold")
            (result,) = called(*primals)
            return [result], [jax.jvp(DERIVATIVES[derivative], primals, tangents)[1]]

        return called(*operands)


_INSIDE: dict[str, Callable[..., Values]] = {"scan": _Run.scan, "cond": _Run.cond, "call": _Run.call}
