"""Names and parameters of JAX's own primitives, where JAX documents none: what a new JAX may change stands here."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax.extend import core

CALLS = ("jit", "pjit", "closed_call", "core_call")
"""Primitives that call a program on their operands, once."""

REMATS = ("remat2", "checkpoint")
"""The same, computed anew for derivatives."""

CUSTOM_DERIVATIVES = ("custom_jvp_call", "custom_vjp_call")
"""The same, with a derivative of their own."""

ELEMENT_PROGRAMS = {"reduce", "reduce_window", "pallas_call"}
"""Primitives whose inner program runs on elements or blocks, not on their operands."""

PER_DEVICE = {"shard_map"}
"""Primitives whose inner program runs on each device's share of their operands."""


class Loop(NamedTuple):
    """How the operands of a loop are divided: `constants`, then `carried` values, then what `scan` walks along."""

    constants: int
    carried: int


def scan_operands(params: Mapping[str, Any]) -> Loop:
    """Of a `scan`: JAX before 0.11 stores the counts, later ones a tree of the operands."""
    if "num_consts" in params:
        return Loop(params["num_consts"], params["num_carry"])
    constants, carried, _ = params["ft_in"].update(params["jaxpr"].in_avals).unpack()
    return Loop(len(list(constants)), len(list(carried)))


def while_operands(params: Mapping[str, Any]) -> Loop:
    """Of the body of a `while`, whose operands stand behind `cond_nconsts` constants of its condition."""
    return Loop(params["body_nconsts"], len(params["body_jaxpr"].out_avals))


def called_program(equation: Any) -> Any:
    """The program, closed, that an equation runs once on all its operands, or on each device's share; None: none."""
    if equation.primitive.name in ("scan", "while", "cond", *ELEMENT_PROGRAMS):
        return None
    found = next((equation.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in equation.params), None)
    return None if found is None else closed(found)


def closed(program: Any) -> Any:
    """With its constants, as some primitives keep it and some do not."""
    return program if hasattr(program, "consts") else core.ClosedJaxpr(program, ())


def branches_of(equation: Any) -> list[Any]:
    """Of a `cond`; of one that is decided by platform, the branch of this one."""
    branches, platforms = equation.params["branches"], equation.params.get("branches_platforms")
    if platforms is None:
        return list(branches)
    backend = jax.default_backend()
    here = {"cuda", "rocm"} if backend == "gpu" else {backend}
    taken = [branch for branch, names in zip(branches, platforms, strict=True) if names is None or here & set(names)]
    return taken[:1]
