"""What a network costs, read off the program that JAX traces from it."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Apply, Array


@dataclasses.dataclass
class LayerCost:
    """Cost of the weights that share a parent path, and of the operations where they meet data.

    Attributes:
      path: of the layer in its collection (`Conv_0`); empty for products of data with data (attention).
      operation: what multiplies there; "elementwise" where nothing but elementwise operations do.
      output_shape: of the last operation that the layer's weights enter, the batch included; empty if none does.
      parameters: entries of the layer's leaves in `params`.
      macs: multiply-accumulates of convolutions and dot products, for one example.
      resident_bytes: of the layer's leaves in every collection.
    """

    path: str
    operation: str = "elementwise"
    output_shape: tuple[int, ...] = ()
    parameters: int = 0
    macs: int = 0
    resident_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Cost:
    """Totals of a network, and the rows they are summed from, in the order in which they run."""

    layers: tuple[LayerCost, ...]

    @property
    def parameters(self) -> int:
        """Entries of all leaves in `params` (of all leaves, where there is no such collection)."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and dot products, for one example."""
        return sum(layer.macs for layer in self.layers)

    @property
    def resident_bytes(self) -> int:
        """Bytes of all leaves in memory, batch statistics included."""
        return sum(layer.resident_bytes for layer in self.layers)


def cost(apply: Apply, variables: Any, images: Array | jax.ShapeDtypeStruct, *inputs: Any) -> Cost:
    """Parameters, multiply-accumulates and bytes of any function of (variables, images, ...).

    Nothing is computed: the function is traced, and the traced program read. Taps of a convolution that fall
    on padding count; the zeros that a transposed convolution puts between its inputs do not. The body of a
    `while` loop counts once, `scan` as often as it runs, `cond` by its dearest branch.

    Args:
      apply: for instance a linen module's `apply`.
      variables: any tree of arrays, or of `jax.ShapeDtypeStruct`.
      images: [B, ...], or its `jax.ShapeDtypeStruct`; the multiply-accumulates are divided by B.
      *inputs: apply's further arguments.

    Returns:
      The cost, with a row for each layer.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)}
      >>> total = cost(lambda w, x: x @ w["kernel"] + w["bias"], weights, jnp.ones((2, 4)))
      >>> total.parameters, total.macs, total.resident_bytes
      (15, 12, 60)
    """
    program = jax.make_jaxpr(apply)(variables, images, *inputs).jaxpr
    leaves = named_leaves(variables)
    has_collections = any(path.startswith("params/") for path, _ in leaves)
    owners = [_owner(path, has_collections) for path, _ in leaves]

    layers: dict[str, LayerCost] = {}
    data = [None] * (len(program.invars) - len(leaves))
    for path, operation, shape, macs in _uses(program, [*owners, *data], 1)[0]:
        layer = layers.setdefault(path, LayerCost(path))
        layer.operation = operation if macs else layer.operation
        layer.output_shape = shape
        layer.macs += macs
    for layer in layers.values():
        layer.macs //= images.shape[0]
    for owner, (path, leaf) in zip(owners, leaves, strict=True):
        layer = layers.setdefault(owner, LayerCost(owner))
        layer.parameters += math.prod(leaf.shape) * (not has_collections or path.startswith("params/"))
        layer.resident_bytes += math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
    return Cost(tuple(layers.values()))


def _owner(path: str, has_collections: bool) -> str:
    """`params/Conv_0/kernel` -> `Conv_0`; a leaf at the top is its own layer."""
    names = path.split("/")[1 if has_collections else 0 :]
    return "/".join(names[:-1] or names)


ELEMENT_PROGRAMS = {"reduce", "reduce_window", "pallas_call"}
"""Operations whose inner program runs on elements or blocks, not on their operands."""

# A value's owner is the layer whose weights alone it was computed from, None for data, "" for constants.
Owner = str | None
Use = tuple[str, str, tuple[int, ...], int]  # layer, operation, output shape, multiply-accumulates


def _uses(jaxpr: Any, owners: Sequence[Owner], repeats: int) -> tuple[list[Use], list[Owner]]:
    """Where the layers' values meet data inside a program; also the owners of its results."""
    uses: list[Use] = []
    known: dict[Any, Owner] = dict(zip(jaxpr.invars, owners, strict=True))

    def owner_of(atom: Any) -> Owner:
        return "" if isinstance(atom, core.Literal) else known.get(atom, "")

    for equation in jaxpr.eqns:
        operands = [owner_of(atom) for atom in equation.invars]
        inner = _inner(equation)
        if inner:
            branches = [
                _uses(body, operands[-len(body.invars) :] if body.invars else [], repeats * times)
                for body, times in inner
            ]
            branch_uses, results = max(branches, key=lambda branch: sum(use[-1] for use in branch[0]))
            uses += branch_uses
        else:
            result = _meet(operands)
            results = [result] * len(equation.outvars)
            operation, macs = _multiply_accumulates(equation)
            shape = equation.outvars[0].aval.shape if equation.outvars else ()
            layers = dict.fromkeys(owner for owner in operands if owner)
            if macs:
                uses.append((next(iter(layers), ""), operation, shape, macs * repeats))
            elif result is None:
                uses += [(layer, operation, shape, 0) for layer in layers]
        known.update(zip(equation.outvars, results, strict=True))
    return uses, [owner_of(atom) for atom in jaxpr.outvars]


def _meet(operands: Iterable[Owner]) -> Owner:
    operands = list(operands)
    return None if None in operands else next((owner for owner in operands if owner), "")


def _inner(equation: Any) -> list[tuple[Any, int]]:
    """Programs inside an equation and how often each runs; of several, one runs."""
    params = equation.params
    if equation.primitive.name == "scan":
        return [(params["jaxpr"].jaxpr, params["length"])]
    if equation.primitive.name == "while":
        return [(params["body_jaxpr"].jaxpr, 1)]
    if equation.primitive.name == "cond":
        return [(branch.jaxpr, 1) for branch in params["branches"]]
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if name in params and equation.primitive.name not in ELEMENT_PROGRAMS:
            return [(getattr(params[name], "jaxpr", params[name]), 1)]
    return []


def _multiply_accumulates(equation: Any) -> tuple[str, int]:
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        left, output = equation.invars[0].aval, equation.outvars[0].aval
        return "dot", output.size * math.prod(left.shape[axis] for axis in contracted)
    if equation.primitive.name == "conv_general_dilated":
        kernel, output = equation.invars[1].aval, equation.outvars[0].aval
        specification = equation.params["dimension_numbers"].rhs_spec
        groups = equation.params["feature_group_count"]
        features, inputs = (kernel.shape[axis] for axis in specification[:2])
        taps = output.size * kernel.size // features
        kind = "convolution" if groups == 1 else "depthwise convolution" if inputs == 1 else "grouped convolution"
        return kind, taps // math.prod(equation.params["lhs_dilation"])
    return "elementwise", 0
