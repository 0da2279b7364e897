"""Quantization to true integers."""

import functools
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from nncompress_jax.errors import InputError
from nncompress_jax.methods.calibration import Rule, input_scales
from nncompress_jax.methods.in_sequence import replaced_in_sequence
from nncompress_jax.methods.layout import input_axis, scaled_axes
from nncompress_jax.methods.rounding import FACTORS, Rounding, cheapest_codes, check_rounding, closest_codes
from nncompress_jax.methods.second_order import Problem
from nncompress_jax.methods.selection import replaced
from nncompress_jax.methods.steps import GivenSteps, Steps, base_path, check_given, chosen
from nncompress_jax.ops import quantizer
from nncompress_jax.tree import Where
from nncompress_jax.types import Array, Context, Method
from nncompress_jax.weights.packed import packed
from nncompress_jax.weights.quantized import Quantized, shared_axes


def quantize(
    *,
    bits: int = 8,
    where: Where = None,
    inputs: bool = True,
    ranges: Rule | None = None,
    axes: Sequence[int] | None = None,
    group: int | None = None,
    symmetric: bool = True,
    step: Steps | None = None,
    rate: float | None = None,
    rounding: Rounding = "nearest",
    price: float = 0.0,
) -> Method:
    """Weights as integers of few bits; by default symmetric, one scale for each output channel.

    With `step` or `rate` the step between values decides and not the number of bits: codes are as large as they have to
    be, and a file, which is entropy-coded, as small as they allow. One step serves a whole weight. On three trained
    networks, at equal squared error, steps that follow the spread of each channel took 1 to 5 % more at 1 bit a weight,
    and 8 to 18 % more at a quarter (`docs/format.md`).

    Args:
      bits: 8, 4, 3 or 2 for each weight; inputs have 8.
      where: which leaves, a pattern or a predicate on the path; the default is that of `tree.selected`. Of `Sparse`
        weights the values are quantized, of `LowRank` ones the factors.
      inputs: whether what the weight multiplies is quantized too, so that products run on integers; else the weight
        is only stored small, and products run on floats.
      ranges: static ranges of the inputs, by a rule of `calibration`; this needs `apply` and `batches`. By default each
        example (each row, in a dot product) brings its own range.
      axes: along which the scale varies; () for one scale. By default those of outputs and of weights that lie side by
        side, as layers stacked for `scan` do; for tables that of the rows. With `apply` and `batches` the program says
        which they are; without, all weights are taken for [..., I, O] but for those that flax has otherwise.
      group: so many neighbours along the axis of input channels share a scale; a weight with fewer, or with none, as a
        table, has one group.
        Products then run on floats.
      symmetric: else the codes span the weights from the least to the largest (zero stays exact), and products run on
        floats: a convolution pads with zeros, which codes with a zero point have no cheap product for.
      step: between neighbouring values: a number for all weights; {path: step}, which without `where` chooses the
        leaves, too; or a function of (path, array). A step may be an array that broadcasts to the weight. What is
        beyond the last code (127 of 8 bits) is clipped, with a warning.
      rate: instead, bits of entropy: each weight gets the least step with which its codes have at most so many.
      rounding: "nearest", or "second_order": weight after weight, in the order of the program, codes are chosen with
        which the outputs stay closest to those of the network as it was; errors that the weights before it made are
        made up for. This needs `apply` and `batches`, a thousand examples or so, and takes minutes; with less than 8
        bits each output gets the best of several scales.
      price: of a bit, in squared steps, for a step or a rate with the second order: a code becomes one towards zero, or
        zero, where the bits that it takes after entropy coding are not worth its error. From 0 to 0.12 (ln 2 / 6),
        which is what a bit is worth where steps are small.

    Returns:
      A method for `compress` and `chain`.

    Raises:
      InputError: for other bits; (when applied) for leaves that are compressed otherwise, not float, or not finite, all
        named, and for input channels that are no multiple of the group; for steps that are none; for static ranges
        without `apply` and `batches`, or with weights that no batch reached.

    Example:
      >>> small = quantize()({"kernel": jnp.array([[0.5, 2.0], [-1.0, 1.0]])}, Context())
      >>> small["kernel"].codes.tolist()
      [[64, 127], [-127, 64]]
      >>> small = quantize(step=0.5)({"kernel": jnp.array([[0.5, 2.0], [-1.1, 1.0]])}, Context())
      >>> small["kernel"].codes.tolist(), small["kernel"].scale.tolist()
      ([[1, 4], [-2, 2]], [[0.5]])

    Source: Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference", section 3; of the
    second order, Frantar et al. 2023, "GPTQ", and Li et al. 2025, "GPTAQ".
    """
    check_bits(bits)
    check_rounding(rounding)
    check_given(step, rate, {"axes": axes is not None, "group": group, "symmetric=False": not symmetric})
    if not price >= 0 or (price and (rounding == "nearest" or (step is None and rate is None))):
        raise InputError(f"price={price}: expected 0 or more, with step= or rate= and rounding='second_order'")

    def method(variables: Any, context: Context) -> Any:
        taken = chosen(step, where, variables)
        integer = inputs and symmetric and group is None
        static = static_scales(variables, context, taken, ranges, Quantized) if ranges and inputs else {}
        steps = None if step is None and rate is None else GivenSteps(step, rate, bits)
        factors = FACTORS if bits < 8 else (1.0,)

        def make(path: str, leaf: Array, problem: Problem | None = None) -> Quantized:
            target = leaf if problem is None else jnp.asarray(problem.entries(problem.target, leaf))
            codes, scale, zero_point = (steps.codes if steps else by_range)(path, target)
            if problem is not None:
                if steps:
                    codes = cheapest_codes(problem, leaf, scale, bits, price)
                else:
                    codes, scale = closest_codes(problem, leaf, scale, zero_point, bits, factors=factors)
            stored = packed(codes, bits, lowest=-(2 ** (bits - 1)))
            input_scale = static.get(weight_of(path))
            return Quantized(stored, scale, input_scale, zero_point, integer=integer, dtype_name=leaf.dtype.name)

        def by_range(path: str, leaf: Array) -> tuple[Array, Array, Array | None]:
            varying = scaled_axes(path, leaf, context) if axes is None else axes
            along = input_axis(path, leaf, context)
            count = 1 if group is None or along is None else _groups(path, leaf.shape[along], group)
            place = (along or 0) % leaf.ndim
            return _codes(leaf, shared_axes(leaf, varying), bits, (place, count), symmetric)

        change = replaced if rounding == "nearest" else replaced_in_sequence
        small = change(variables, taken, make, makes=Quantized, context=context)
        if steps is not None:
            steps.finish()
        return small

    return method


def check_bits(bits: int) -> None:
    """Raises InputError for a number of bits that has no codes here."""
    if bits not in quantizer.BITS:
        raise InputError(f"bits={bits}: expected one of {', '.join(map(str, quantizer.BITS))}")


def static_scales(variables: Any, context: Context, where: Where, ranges: Rule, makes: type) -> dict[str, Array]:
    """Steps of what enters each weight that `replaced` would take.

    Raises:
      InputError: as `replaced` does, before anything is computed; where the network or its inputs are missing.
    """
    paths: dict[str, None] = {}

    def take(path: str, leaf: Array) -> Array:
        paths[base_path(path)] = None
        return leaf

    replaced(variables, where, take, makes=makes, context=context)
    if context.apply is None:
        raise InputError("static ranges need apply= and batches=: compress(variables, method, apply=, batches=)")
    return input_scales(context.apply, variables, context.batches, [*paths], ranges)


def weight_of(path: str) -> str:
    """The weight whose inputs meet this part of it first."""
    return re.sub("(/values|/factors/0)+$", "", path)


def _groups(path: str, inputs: int, group: int) -> int:
    if inputs <= group:
        return 1
    if group < 1 or inputs % group:
        raise InputError(f"{path}: {inputs} input channels, expected a multiple of group={group}; choose with where=")
    return inputs // group


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _codes(
    leaf: Array, shared: tuple[int, ...], bits: int, groups: tuple[int, int], symmetric: bool
) -> tuple[Array, Array, Array | None]:
    """Codes of the leaf's shape; scale and zero point with so many entries (the second) along an axis (the first)."""
    first, count = groups
    if count > 1:
        leaf_groups = leaf.reshape(*leaf.shape[:first], count, -1, *leaf.shape[first + 1 :])
        axes = tuple(axis + (axis >= first) for axis in shared)
        codes, scale, zero_point = _codes(leaf_groups, axes, bits, (0, 1), symmetric)
        narrow = [part if part is None else jnp.squeeze(part, first + 1) for part in (scale, zero_point)]
        return codes.reshape(leaf.shape), *narrow
    if symmetric:
        codes, scale, _ = quantizer.quantize(leaf, shared, bits=bits)[0]
        return codes, scale, None
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    leaf = leaf.astype(jnp.float32)
    least = jnp.minimum(leaf.min(shared, keepdims=True), 0)
    largest = jnp.maximum(leaf.max(shared, keepdims=True), 0)
    scale = jnp.where(largest > least, (largest - least) / (highest - lowest), 1)
    zero_point = jnp.clip(jnp.round(lowest - least / scale), lowest, highest)
    codes = jnp.clip(jnp.round(leaf / scale) + zero_point, lowest, highest)
    return codes.astype(jnp.int8), scale, zero_point.astype(jnp.int8)
