"""Diagonal Fisher information: how much the outputs of a network depend on each of its weights."""

from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nncompress_jax.bars import tracked
from nncompress_jax.errors import InputError
from nncompress_jax.inputs import arguments, examples_in, listed, of_arrays, pieces
from nncompress_jax.leaves import check_there
from nncompress_jax.tracing.injection import inject
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Apply, Array
from nncompress_jax.weights.parts import trains

Likelihood = Literal["categorical", "gaussian"]
"""What outputs [N, ..., C] are: logits of classes, or means of normal distributions of variance one."""


def fisher(
    apply: Apply,
    variables: Any,
    batches: Sequence[Any],
    *,
    labels: Sequence[Any] | None = None,
    likelihood: Likelihood = "categorical",
    piece: int = 16,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Mean over examples of the squared gradient of the log likelihood, for each float entry.

    Without labels these are drawn from what the network itself says, which gives the diagonal of the Gauss-Newton
    matrix of cross entropy, or of half the squared error; with labels it is the empirical Fisher information.

    One backward pass serves all examples of a piece: the gradient of the sum of their log likelihoods, each with a sign
    by chance, has the sum of their squared gradients as the mean of its square. Smaller pieces take more passes, and
    the estimate is less noisy; with pieces of one example it is exact for the labels.

    Args:
      apply: the network, in inference: of (variables, *inputs) to outputs [N, ..., C].
      variables: may be compressed.
      batches: inputs; each a tuple of apply's further arguments, or the only one.
      labels: one array for each batch: classes [N, ...], or means [N, ..., C].
      likelihood: "categorical" or "gaussian".
      piece: examples of a backward pass.
      seed: of the labels that are drawn, and of the signs.

    Returns:
      By path, in the shape of each float leaf, and of the float parts of compressed weights.

    Raises:
      InputError: for no batches, labels that do not fit them, and outputs that are not one float array with a row for
        each example.

    Example:
      >>> apply, x = lambda weights, x: x * weights["w"], jnp.array([[1.0], [3.0]])
      >>> fisher(apply, {"w": jnp.ones(1)}, [x], likelihood="gaussian", piece=1)["w"].tolist()
      [5.0]

    Source: LeCun et al. 1990, "Optimal Brain Damage"; Martens 2020, "New Insights and Perspectives on the Natural
    Gradient Method", sections 5 and 11; Hutchinson 1990 for the signs.
    """
    batches = listed(batches)
    _check(batches, labels, likelihood, piece)
    run = inject(apply, fast=True)

    check_there(named_leaves(variables))
    of_arrays_alone, arrays = of_arrays(run, variables)
    floats = {place: arrays.pop(place) for place, does in enumerate(trains(variables)) if does}

    @eqx.filter_jit
    def squares(floats: Any, others: Any, inputs: Any, given: Any, key: Array) -> Any:
        def total(floats: Any) -> Array:
            outputs = of_arrays_alone({**others, **floats}, *inputs)
            return _signed(outputs, given, key, likelihood, examples_in(inputs))

        gradients = jax.grad(total)(floats)
        return jax.tree.map(lambda gradient: jnp.square(jnp.abs(gradient).astype(jnp.float32)), gradients)

    key, examples, totals = jax.random.key(seed), 0, None
    pairs = zip(batches, labels or [None] * len(batches), strict=True)
    for batch, given in tracked(pairs, "Fisher information", total=len(batches)):
        for count, (inputs, of_piece) in pieces((arguments(batch), given), piece):
            new = squares(floats, arrays, inputs, of_piece, jax.random.fold_in(key, examples))
            totals = new if totals is None else jax.tree.map(jnp.add, totals, new)
            examples += count
    paths = [path for path, _ in named_leaves(variables)]
    return {paths[place]: np.asarray(total) / examples for place, total in (totals or {}).items()}


def _signed(outputs: Any, labels: Any, key: Array, likelihood: Likelihood, examples: int) -> Array:
    """Sum of the log likelihoods of examples, each with a sign by chance."""
    if not hasattr(outputs, "shape") or outputs.ndim < 2 or len(outputs) != examples or jnp.iscomplexobj(outputs):
        found = f"{outputs.dtype}{list(outputs.shape)}" if hasattr(outputs, "shape") else type(outputs).__name__
        raise InputError(
            f"outputs {found} of {examples} examples: expected one array [N, ..., C]; give apply="
            "lambda variables, *inputs: what of its outputs counts"
        )
    outputs = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
    draw, choose = jax.random.split(key)
    if likelihood == "gaussian":
        # Any noise of mean zero and variance one gives the same mean; signs give the least spread.
        noise = jax.random.rademacher(draw, outputs.shape, outputs.dtype)
        each = outputs * (noise if labels is None else lax.stop_gradient(labels - outputs))
    else:
        if labels is None:
            labels = lax.stop_gradient(jax.random.categorical(draw, outputs))
        each = jnp.take_along_axis(jax.nn.log_softmax(outputs), jnp.asarray(labels)[..., None], -1)
    signs = jax.random.rademacher(choose, (examples,), outputs.dtype)
    return signs @ each.reshape(examples, -1).sum(1)


def _check(batches: Sequence[Any], labels: Sequence[Any] | None, likelihood: str, piece: int) -> None:
    if likelihood not in ("categorical", "gaussian"):
        raise InputError(f"likelihood={likelihood!r}: expected 'categorical' or 'gaussian'")
    if piece < 1:
        raise InputError(f"piece={piece}: expected one example at least")
    if not batches:
        raise InputError("no batches: expected inputs of the network, as batches=[images]")
    if labels is not None:
        rows = [examples_in(arguments(batch)) for batch in batches]
        if (found := [len(own) for own in labels]) != rows:
            raise InputError(f"labels of {found} examples for batches of {rows}; expected an array for each batch")
