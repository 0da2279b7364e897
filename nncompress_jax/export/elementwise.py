"""Operations that take entries of their operands one by one."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncompress_jax.export.equations import Equation, Rule
from nncompress_jax.export.values import Known, Tensor, Value, Writer, largest

UNARY = {
    **{"neg": "Neg", "exp": "Exp", "log": "Log", "tanh": "Tanh", "logistic": "Sigmoid", "erf": "Erf", "sqrt": "Sqrt"},
    **{"abs": "Abs", "sign": "Sign", "floor": "Floor", "ceil": "Ceil", "sin": "Sin", "cos": "Cos", "tan": "Tan"},
    **{"asin": "Asin", "acos": "Acos", "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh", "asinh": "Asinh"},
    **{"acosh": "Acosh", "atanh": "Atanh"},
}
BINARY = {"add": "Add", "add_any": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "pow": "Pow"}
LOGICAL = {"and": "And", "or": "Or", "xor": "Xor"}
COMPARISONS = {"eq": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual"}
SAME = (
    "copy",
    "reduce_precision",
    "copy_p",
    "stop_gradient",
    "materialised",
    "name",
    "sharding_constraint",
    "pvary",
    "pcast",
    "mesh_cast",
)
"""What changes nothing."""


def combined(
    writer: Writer, operation: str, values: Sequence[Value], equation: Equation, dtype: Any = None, **attributes: Any
) -> Tensor:
    """A node that combines operands entry by entry."""
    shape = equation.shape
    names, order, sizes = writer.aligned(values, len(shape))
    options: Any = {"order": order, "sizes": largest(sizes)}
    return writer.made(operation, names, shape, dtype or equation.dtype, **options, **attributes)


def scalar(value: float, dtype: Any) -> Known:
    """A number."""
    return Known(np.asarray(value, dtype), ())


def _same(operation: str) -> Rule:
    """An operation of ONNX that does the same."""
    return lambda writer, equation, values: combined(writer, operation, values, equation)


def _logical(operation: str) -> Rule:
    def rule(writer: Writer, equation: Equation, values: list[Value]) -> Value:
        name = operation if equation.dtype == bool else f"Bitwise{operation}"
        return combined(writer, name, values, equation)

    return rule


def _not(writer: Writer, equation: Equation, values: list[Value]) -> Value:
    return combined(writer, "Not" if equation.dtype == bool else "BitwiseNot", values, equation)


def _comparison(operation: str) -> Rule:
    return lambda writer, equation, values: combined(writer, operation, values, equation, bool)


def _different(writer: Writer, equation: Equation, values: list[Value]) -> Value:
    return combined(writer, "Not", [combined(writer, "Equal", values, equation, bool)], equation, bool)


def _is(value: Value, number: float) -> bool:
    return isinstance(value, Known) and value.array.size > 0 and bool((value.array == number).all())


def _maximum(writer: Writer, equation: Equation, values: list[Value]) -> Value:
    others = [value for value in values if not _is(value, 0)]
    if len(others) == 1 and equation.dtype == np.float32:
        return combined(writer, "Relu", others, equation)
    return combined(writer, "Max", values, equation)


def _clamp(writer: Writer, equation: Equation, values: list[Value]) -> Value:
    low, x, high = values
    if all(isinstance(bound, Known) and bound.array.size == 1 for bound in (low, high)):
        names = [writer.tensor(Known(bound.array.reshape(()), ())).name for bound in (low, high)]  # type: ignore[union-attr]
        tensor = writer.tensor(x)
        options: Any = {"order": tensor.order, "sizes": tensor.sizes}
        return writer.made("Clip", [tensor.name, *names], equation.shape, equation.dtype, **options)
    return combined(writer, "Min", [combined(writer, "Max", [low, x], equation), high], equation)


def _reciprocal_root(writer: Writer, equation: Equation, values: list[Value]) -> Value:
    return combined(writer, "Reciprocal", [combined(writer, "Sqrt", values, equation)], equation)


def _square(writer: Writer, equation: Equation, values: list[Value]) -> Value:
    return combined(writer, "Mul", [*values, *values], equation)


def _integer_power(writer: Writer, equation: Equation, values: list[Value]) -> Value:
    exponent = equation.params["y"]
    if exponent == 2:
        return _square(writer, equation, values)
    return combined(writer, "Pow", [*values, scalar(exponent, equation.dtype)], equation)


def _power_of_two(writer: Writer, equation: Equation, values: list[Value]) -> Value:
    return combined(writer, "Pow", [scalar(2, equation.dtype), *values], equation)


def _exp_less_one(writer: Writer, equation: Equation, values: list[Value]) -> Value:
    return combined(writer, "Sub", [combined(writer, "Exp", values, equation), scalar(1, equation.dtype)], equation)


def _log_of_one_more(writer: Writer, equation: Equation, values: list[Value]) -> Value:
    more = combined(writer, "Add", [*values, scalar(1, equation.dtype)], equation)
    return combined(writer, "Log", [more], equation)


def _complementary_error(writer: Writer, equation: Equation, values: list[Value]) -> Value:
    return combined(writer, "Sub", [scalar(1, equation.dtype), combined(writer, "Erf", values, equation)], equation)


def _remainder(writer: Writer, equation: Equation, values: list[Value]) -> Value:
    return combined(writer, "Mod", values, equation, fmod=1)


def _round(writer: Writer, equation: Equation, values: list[Value]) -> Value | str:
    if int(equation.params["rounding_method"]) != 1:
        return "it rounds halves away from zero"
    return combined(writer, "Round", values, equation)


def _is_finite(writer: Writer, equation: Equation, values: list[Value]) -> Value:
    unknown = [combined(writer, operation, values, equation, bool) for operation in ("IsNaN", "IsInf")]
    return combined(writer, "Not", [combined(writer, "Or", unknown, equation, bool)], equation, bool)


def _select(writer: Writer, equation: Equation, values: list[Value]) -> Value:
    which, *cases = values
    result = cases[0]
    for number, case in enumerate(cases[1:], 1):
        is_case = which if which.dtype == bool else _equals(writer, which, number)
        result = combined(writer, "Where", [is_case, case, result], equation)
    return result


def _equals(writer: Writer, value: Value, number: int) -> Value:
    about = Equation("eq", {}, {}, [value.shape], [np.dtype(bool)], "")
    return combined(writer, "Equal", [value, scalar(number, value.dtype)], about, bool)


def _convert(writer: Writer, equation: Equation, values: list[Value]) -> Value:
    return writer.converted(values[0], equation.dtype)


RULES: dict[str, Rule] = {
    **{name: _same(operation) for name, operation in (UNARY | BINARY).items()},
    **{name: _logical(operation) for name, operation in LOGICAL.items()},
    **{name: _comparison(operation) for name, operation in COMPARISONS.items()},
    **dict.fromkeys(SAME, lambda writer, equation, values: values[0]),
    "optimization_barrier": lambda writer, equation, values: values,
    "not": _not,
    "ne": _different,
    "max": _maximum,
    "min": _same("Min"),
    "clamp": _clamp,
    "rsqrt": _reciprocal_root,
    "square": _square,
    "integer_pow": _integer_power,
    "exp2": _power_of_two,
    "expm1": _exp_less_one,
    "log1p": _log_of_one_more,
    "erfc": _complementary_error,
    "rem": _remainder,
    "round": _round,
    "is_finite": _is_finite,
    "select_n": _select,
    "convert_element_type": _convert,
}
"""By the primitive's name."""
