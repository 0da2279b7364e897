"""Networks with early exits: what is certain of its class soon is not computed to the end."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax.errors import InputError
from nncompress_jax.inputs import is_array
from nncompress_jax.leaves import check_there, native
from nncompress_jax.tracing.costs import cost
from nncompress_jax.tracing.stages import Stages, stages
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Apply, Array

SMALLEST = 8
"""Examples of the smallest batch that programs are compiled for; between one power of two and the next there are four
sizes, or as many as are multiples of it."""


TRIES, ROUNDS = 32, 2
"""Values of a threshold, and of the price of operations; turns through all exits for each price."""


class Answers(NamedTuple):
    """What a network with exits says of a batch.

    Attributes:
      logits: [B, C] float, of the exit that each example took.
      exits: [B] int, its number, from 0.
    """

    logits: np.ndarray
    exits: np.ndarray


Thresholds = float | Sequence[float]
"""Of all exits, or one for each but the last."""


def early_exit(apply: Apply, variables: Any, thresholds: Thresholds) -> Callable[..., Answers]:
    """Makes a network with early exits stop, image by image, as soon as it is certain.

    The network is divided behind each of its outputs, and each part compiled by itself, for batches of 8, 16, 24, ...
    examples, once such a batch comes up. Examples whose largest probability reaches the threshold leave; the others go
    on in a smaller batch.

    Args:
      apply: of (variables, inputs [B, ...]) to a tuple of logits [B, C], one for each exit, the last one the network's
        own; in inference, not edited for it. Each example must be computed by itself.
      variables: the network's; they may be compressed: integers stay integers, removed channels stay away.
      thresholds: probability of the likeliest class from which on an exit is taken; one for all exits, or one for each
        but the last. 0: the first exit is taken; above 1: the last.

    Returns:
      A function of (inputs, thresholds=) to `Answers`: other thresholds run the same programs. It is not to be called
      under `jax.jit`, since what is computed depends on numbers.

    Raises:
      InputError: for leaves without numbers; when called, for no inputs, for a network of one output, for stages that
        go on with an array that has no axis of examples, and for as many thresholds as no exits have.

    Example:
      >>> weights = {"a": jnp.array([[4.0, 0.0], [0.0, 1.0]])}
      >>> run = early_exit(lambda w, x: (x @ w["a"], 9 * x @ w["a"]), weights, 0.9)
      >>> answers = run(jnp.eye(2))
      >>> answers.exits.tolist(), answers.logits.tolist()
      ([0, 1], [[4.0, 0.0], [0.0, 9.0]])

    Source: Teerapittayanon et al. 2016, "BranchyNet: Fast Inference via Early Exiting from Deep Neural Networks".
    """
    check_there(named_leaves(variables))
    leaves = [native(leaf) for leaf in jax.tree.leaves(variables) if is_array(leaf)]

    @functools.lru_cache(maxsize=64)
    def divided(size: int, shape: tuple[int, ...], dtype: Any) -> Stages:
        return stages(apply, variables, jax.ShapeDtypeStruct((size, *shape), dtype))

    @functools.partial(jax.jit, static_argnames=("number", "image"))
    def run_stage(leaves: Any, carried: Any, rows: Array, *, number: int, image: Any) -> Any:
        taken = [array[rows] for array in carried]
        logits, others = divided(len(rows), *image).run(number, leaves, taken)
        return logits, jax.nn.softmax(logits.astype(jnp.float32)).max(-1), others

    def run(inputs: Any, thresholds: Thresholds = thresholds) -> Answers:
        inputs = jnp.asarray(inputs)
        if not inputs.ndim or not len(inputs):
            raise InputError(f"inputs {list(inputs.shape)}: expected one example at least")
        image = (inputs.shape[1:], inputs.dtype)
        whole = divided(_size(len(inputs)), *image)
        least = _thresholds(thresholds, len(whole.stages))
        left, rows, carried = np.arange(len(inputs)), np.arange(len(inputs)), [inputs]
        first = whole.stages[0].outputs[0].aval
        answers = Answers(np.zeros((len(inputs), *first.shape[1:]), first.dtype), np.zeros(len(inputs), np.int64))
        for number, enough in enumerate(least):
            size = _size(len(rows))
            filled = rows[np.minimum(np.arange(size), len(rows) - 1)]
            _check(divided(size, *image), whole, number, size)
            logits, certainty, carried = run_stage(leaves, carried, filled, number=number, image=image)
            logits, certainty = np.asarray(logits)[: len(rows)], np.asarray(certainty)[: len(rows)]
            done = (certainty >= enough) | (number == len(least) - 1)  # those that are NaN, too
            answers.logits[left[done]], answers.exits[left[done]] = logits[done], number
            rows = np.flatnonzero(~done)
            left = left[rows]
            if not len(left):
                break
        return answers

    return run


def exit_macs(apply: Apply, variables: Any, inputs: Any) -> list[int]:
    """Multiply-accumulates of one example that leaves a network at each of its exits; the last: of all of it.

    Args:
      apply: as of `early_exit`.
      variables: likewise.
      inputs: [B, ...], or a description of them.

    Raises:
      InputError: as `early_exit`.

    Example:
      >>> weights = {"a": jnp.ones((2, 2)), "b": jnp.ones((2, 5))}
      >>> exit_macs(lambda w, x: ((y := x @ w["a"]), y @ w["b"]), weights, jnp.ones((1, 2)))
      [4, 14]
    """
    divided = stages(apply, variables, inputs)
    leaves = [leaf for leaf in jax.tree.leaves(variables) if is_array(leaf)]
    own = []
    for number, stage in enumerate(divided.stages):
        carried = [jax.ShapeDtypeStruct(variable.aval.shape, variable.aval.dtype) for variable in stage.inputs]
        run = functools.partial(divided.run, number)
        own.append(cost(run, leaves, carried, batch_size=inputs.shape[0]).macs)
    return list(itertools.accumulate(own))


def exit_thresholds(
    outputs: Sequence[Any], labels: Any, macs: Sequence[int], *, max_drop: float = 0.005
) -> list[float]:
    """Thresholds for `early_exit`, one for each exit but the last, that save much and lose little on these examples.

    Which are best together is looked for one by one, in turns, for several prices of operations; there may be better
    ones.

    Args:
      outputs: logits [N, C] of each exit, as the whole network gives them. The examples should be none that the network
        is tested on.
      labels: [N] classes.
      macs: of `exit_macs`.
      max_drop: the share of examples, from 0 to 1, by which accuracy may fall, from that of the last exit.

    Raises:
      InputError: for numbers of exits or examples that do not fit.

    Example:
      >>> sure, unsure = jnp.array([9.0, 0.0]), jnp.array([1.0, 0.0])
      >>> outputs = jnp.stack([sure, unsure]), jnp.array([[9.0, 0.0], [0.0, 9.0]])
      >>> (threshold,) = exit_thresholds(outputs, jnp.array([0, 1]), [1, 2])
      >>> bool(jax.nn.softmax(unsure).max() < threshold <= jax.nn.softmax(sure).max())
      True
    """
    shapes = {np.shape(logits)[:1] for logits in outputs}
    if shapes != {np.shape(labels)} or len(macs) != len(outputs) or len(outputs) < 2:
        found = ", ".join(str(list(np.shape(logits))) for logits in outputs)
        raise InputError(
            f"outputs {found}, {np.size(labels)} labels, {len(macs)} costs: expected two exits or more of N"
        )
    certainty = certainties(outputs)
    right = np.stack([np.asarray(logits).argmax(-1) == np.asarray(labels) for logits in outputs])
    costs = np.asarray(macs, float) / macs[-1]
    grids = [np.append(np.quantile(each, np.linspace(0, 1, TRIES)), 2.0) for each in certainty[:-1]]

    def reached(thresholds: Any) -> tuple[float, float]:
        """Accuracy and mean cost."""
        exits = exits_taken(certainty, thresholds)
        return float(right[exits, np.arange(len(exits))].mean()), float(costs[exits].mean())

    thresholds = np.full(len(grids), 2.0)
    least = reached(thresholds)[0] - max_drop
    same = [
        np.full(len(grids), value) for value in np.append(np.quantile(certainty, np.linspace(0, 1, 4 * TRIES)), 2.0)
    ]
    best = min(same, key=lambda each: reached(each)[::-1] if reached(each)[0] >= least else (2.0, 0.0))
    for price in np.geomspace(1e-3, 1, TRIES):  # of the whole network's operations, in accuracy
        for place in [*range(len(grids))] * ROUNDS:
            tried = []
            for value in grids[place]:
                thresholds[place] = value
                accuracy, spent = reached(thresholds)
                tried.append(price * spent - accuracy)
            thresholds[place] = grids[place][int(np.argmin(tried))]
        accuracy, spent = reached(thresholds)
        if accuracy >= least and spent < reached(best)[1]:
            best = thresholds.copy()
    return [float(threshold) for threshold in best]


def certainties(outputs: Sequence[Any]) -> np.ndarray:
    """[E, N], probabilities of the likeliest class, of logits [N, C] of each exit."""
    return np.stack([np.asarray(jax.nn.softmax(jnp.asarray(logits)).max(-1)) for logits in outputs])


def exits_taken(certainty: np.ndarray, thresholds: Any) -> np.ndarray:
    """The exit of each example, [N] int, as `early_exit` decides.

    Args:
      certainty: [E, N], of `certainties`.
      thresholds: of each exit but the last.

    Example:
      >>> exits_taken(np.array([[0.9, 0.2, 0.3], [0.1, 0.8, 0.4], [0.1, 0.1, 0.1]]), [0.5, 0.5]).tolist()
      [0, 1, 2]
    """
    leaves = certainty[:-1] >= np.reshape(thresholds, (-1, 1))
    return np.append(leaves, np.ones((1, certainty.shape[1]), bool), 0).argmax(0)


def _size(count: int) -> int:
    """The batch that holds so many examples, and seldom a fifth more."""
    step = max(SMALLEST, 1 << (count - 1).bit_length() >> 3)
    return -(-count // step) * step


def _thresholds(given: Thresholds, exits: int) -> list[float]:
    """One for each exit; the last takes all."""
    each = [given] * (exits - 1) if isinstance(given, int | float) else list(given)
    if len(each) != exits - 1:
        raise InputError(f"{len(each)} thresholds for {exits} exits: expected {exits - 1}, none for the last")
    return [*each, 0.0]


def _check(divided: Stages, whole: Stages, number: int, size: int) -> None:
    """Raises InputError where what a stage goes on with is not one array of each example."""
    ours, theirs = ([v.aval for v in each.stages[number].inputs] for each in (divided, whole))
    if any(not value.ndim or value.shape[0] != size for value in ours):
        found = ", ".join(str(list(value.shape)) for value in ours)
        raise InputError(f"exit {number} goes on with {found} of {size} examples: expected an array of each example")
    if [value.shape[1:] for value in ours] != [value.shape[1:] for value in theirs]:
        raise InputError(f"the network is another for {size} examples: expected the same layers for any number")
