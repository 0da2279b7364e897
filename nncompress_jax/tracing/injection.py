"""Running unedited functions on compressed variables, and recording what enters each weight.

The function is traced on stand-ins of the logical shapes, as `jax.jit` would trace it; then the `Interpreter` runs
its program on the compressed weights themselves.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection
from typing import Any

import jax

from nncompress_jax.errors import InputError
from nncompress_jax.inputs import is_array, of_arrays
from nncompress_jax.leaves import check_there, native
from nncompress_jax.tracing.interpreter import Interpreter
from nncompress_jax.tracing.modules import is_module, of_state
from nncompress_jax.tracing.observations import Meeting, Observations, Statistic
from nncompress_jax.tracing.program import Source, Visit, walk
from nncompress_jax.tracing.ranges import following, with_largest, without_largest
from nncompress_jax.tracing.trace import traced
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Apply, Array
from nncompress_jax.weights import channel_pruned_elementwise, channel_pruned_products, channel_pruned_shapes, moves
from nncompress_jax.weights.base import CompressedWeight, is_compressed
from nncompress_jax.weights.channel_pruned import ChannelPruned, channel_pruned
from nncompress_jax.weights.channels import Channels
from nncompress_jax.weights.outside import OUTSIDE
from nncompress_jax.weights.parts import tracked

for _rules in (moves, channel_pruned_elementwise, channel_pruned_products, channel_pruned_shapes):
    _rules.register()


MEETING_OUTSIDE = (CompressedWeight.__module__.rpartition(".")[0], "__jax_array__")
"""What JAX says of compressed weights: the name of their type, or how jax.numpy would have made an array of it."""


def inject(apply: Apply, *, fast: bool = False, error_bits: int | None = None) -> Apply:
    """Makes a function run on compressed variables, by their rules.

    Args:
      apply: any JAX function, such as a linen module's `apply`; not edited. It takes the arrays that hold
        compressed weights as arguments. Where there are any, it is traced as under `jax.jit`: arrays among its
        arguments are abstract, everything else (`train=True`) is as it was given. Modules of NNX are arguments like
        others; batch statistics that a call sets are set in them.
      fast: float convolutions and max pooling, too, run in the form that is fastest on the platform.
      error_bits: for training, gradients that come back to the outputs of convolutions and dot products are rounded to
        so many bits, from 2 to 24 (WAGE, Wu et al. 2018); `stochastic_rounding` rounds the weights. None: they are not.

    Returns:
      A function of the same arguments; without a compressed weight among them it does what apply does. Run it under
      `jax.jit`: each call traces apply anew. Its gradients have the structure of the compressed variables.

    Raises:
      InputError: for bits that cannot be; (when called) where apply closes over a compressed weight.

    Example:
      >>> import jax.numpy as jnp
      >>> from nncompress_jax.recipes import compress
      >>> weights = {"kernel": jnp.array([[1.0], [2.0]])}
      >>> apply = inject(lambda weights, x: x @ weights["kernel"])
      >>> round(apply(compress(weights), jnp.ones((1, 2))).item(), 1)
      3.0
    """

    if error_bits is not None and not (isinstance(error_bits, int) and 2 <= error_bits <= 24):
        raise InputError(f"error_bits={error_bits}: expected a whole number from 2 to 24, or None")
    interpreter = Interpreter(fast=fast, error_bits=error_bits)

    @functools.wraps(apply)
    def injected(*args: Any, **kwargs: Any) -> Any:
        plain = not fast and error_bits is None
        if plain and not any(map(is_compressed, jax.tree.leaves((args, kwargs), is_leaf=is_compressed))):
            if any(native(leaf) is not leaf for leaf in jax.tree.leaves((args, kwargs))):
                args, kwargs = jax.tree.map(native, (args, kwargs))
            return _outside_named(apply)(*args, **kwargs)
        if any(map(is_module, jax.tree.leaves((args, kwargs), is_leaf=is_module))):
            function, given, put_back = of_state(apply, args, kwargs)
            return put_back(_run(function, given, {}, interpreter)[0])
        return _run(apply, args, kwargs, interpreter)[0]

    return injected


def observe(apply: Apply, statistic: Callable[[str, Array], Any] | None = None) -> Apply:
    """Makes a function return, beside its outputs, what enters each weight.

    Args:
      apply: a function of (variables, ...), as `inject` takes it; the variables may be compressed.
      statistic: of (path of the weight, inputs), computed inside the program; by default the inputs themselves.

    Returns:
      A function of apply's arguments, to (outputs, {path: observations}): for each leaf of the variables that
      multiplies data in a convolution or dot product, one observation a place, in the order of the program. Casts and
      rearrangements of the leaf in between do not matter. What happens inside a `while` loop is not seen.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"kernel": jnp.array([[1.0], [2.0]])}
      >>> apply = lambda weights, x: x @ weights["kernel"]
      >>> outputs, observed = observe(apply, lambda path, inputs: abs(inputs).max())(weights, jnp.array([[3.0, -4.0]]))
      >>> observed["kernel"][0].value.item()
      4.0
    """

    def at(met: Meeting) -> Any:
        return met.inputs if statistic is None else statistic(met.path, met.inputs)

    return observe_products(apply, at)


def observe_products(apply: Apply, statistic: Statistic) -> Apply:
    """As `observe`, of all that is known of each place: the operation, and the weight as it stands there."""

    @functools.wraps(apply)
    def observed(variables: Any, *args: Any, **kwargs: Any) -> tuple[Any, Observations]:
        return _run(apply, (variables, *args), kwargs, Interpreter(statistic, fast=True))

    return observed


def visits(
    apply: Apply, variables: Any, *inputs: Any, name: Callable[[str], str] = lambda path: path, **keywords: Any
) -> list[Visit]:
    """Equations that run when a function meets its variables, compressed or not; each part of a leaf bears its name.

    Args:
      apply: of (variables, *inputs).
      variables: any tree of arrays, `jax.ShapeDtypeStruct` or compressed weights; other leaves stay as they are.
      *inputs: of all kinds, as of `traced`.
      name: of the leaf at a path, as the sources are to show it.
      **keywords: likewise.

    Raises:
      InputError: where apply cannot be traced with these arguments.
    """
    program, _ = traced(inject(apply), variables, *inputs, **keywords)
    sources: list[Source] = [
        name(path)
        for path, leaf in named_leaves(variables, is_compressed)
        for part in jax.tree.leaves(leaf)
        if is_array(part)
    ]
    return walk(program, [*sources, *[None] * (len(program.invars) - len(sources))])[0]


def _outside_named(apply: Apply) -> Apply:
    """Names the mistake where JAX meets a compressed weight that is not an argument."""

    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            return apply(*args, **kwargs)
        except (TypeError, ValueError) as error:
            if any(words in str(error) for words in MEETING_OUTSIDE):
                raise InputError(OUTSIDE) from error
            raise

    return called


def _check(args: Any, kwargs: Any) -> None:
    """Raises InputError for weights whose parts something made of other types or shapes."""
    leaves = named_leaves((*args, kwargs), is_compressed)
    checked = [(path.partition("/")[2] or path, leaf.check_structure()) for path, leaf in leaves if is_compressed(leaf)]
    if wrong := [f"{path}: {reason}" for path, reason in checked if reason]:
        raise InputError(
            f"{'; '.join(wrong[:3])}: something changed all parts of compressed weights, outside of nnc.inject, as a "
            "moving average, a cast or vmap do; change floats alone (equinox.is_inexact_array), or nnc.decompress first"
        )


def _run(apply: Apply, args: Any, kwargs: Any, interpreter: Interpreter) -> tuple[Any, Observations]:
    returned: list[Any] = []

    def called(given: tuple[Any, Any]) -> Any:
        args, kwargs = given
        outputs, made = jax.tree.flatten(_outside_named(apply)(*args, **kwargs))
        returned.append(made)
        return outputs

    _check(args, kwargs)
    check_there((path.partition("/")[2] or path, leaf) for path, leaf in named_leaves((*args, kwargs)))
    leaves = [native(leaf) for leaf in jax.tree.leaves((args, kwargs), is_leaf=is_compressed)]
    function, places = of_arrays(called, (args, kwargs), is_leaf=is_compressed, stand_in=_stand_in)
    values = [leaves[place] for place in places]
    program = jax.make_jaxpr(function)(places)
    sources, tracking = _watched(args, leaves, everything=interpreter.statistic is not None)
    interpreter = dataclasses.replace(
        interpreter,
        channels=any(isinstance(x, ChannelPruned) for x in values),
        statistic=with_largest(interpreter.statistic, tracking) if tracking else interpreter.statistic,
    )
    outputs, _, seen = interpreter.run(program, values, [sources[place] for place in places])
    if tracking:
        outputs, seen = following(outputs, tracking, seen), without_largest(seen)
    given = {cut for x in values if isinstance(x, ChannelPruned) for cut in x.cuts}
    outputs = [_with_zeros(x, given) if isinstance(x, ChannelPruned) else x for x in outputs]
    return jax.tree.unflatten(returned[0], outputs), seen


def _watched(args: Any, leaves: list[Any], *, everything: bool) -> tuple[list[Source], dict[str, CompressedWeight]]:
    """By place, names of the leaves whose inputs are observed; and by name, weights that track their range.

    Args:
      args: of the function.
      leaves: of all its arguments.
      everything: all leaves of the first argument are observed, by their paths; else those that track.
    """
    names = [path for path, _ in named_leaves(args[0], is_compressed)] if args else []
    if not everything:
        names += [f"argument {place}" for place in range(len(names), len(leaves))]
    pairs = list(zip(names, leaves, strict=False))
    tracking = {name: leaf for name, leaf in pairs if any(tracked(leaf))}
    sources: list[Source] = [name if everything or name in tracking else None for name, _ in pairs]
    return sources + [None] * (len(leaves) - len(pairs)), tracking


def _stand_in(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if is_compressed(leaf) else native(leaf)


def _with_zeros(x: ChannelPruned, given: Collection[Channels | None]) -> Any:
    """An output that lacks only what variables lack, not what a program knows to be of one value."""
    cuts = tuple(cut if cut in given else None for cut in x.cuts)
    return channel_pruned(x.read(cuts), x.fill, cuts)
