"""Statistics of batch normalization, re-estimated after compression."""

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax.errors import InputError
from nncompress_jax.leaves import check_there, native
from nncompress_jax.methods.selection import exchanged, leave_alone, network
from nncompress_jax.tracing.moments import Moments
from nncompress_jax.tracing.normalization import Normalization, normalizations
from nncompress_jax.tracing.positions import at
from nncompress_jax.tracing.sequence import Pairs, Stop, Walk
from nncompress_jax.tracing.trace import kinds
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Context
from nncompress_jax.weights.base import dense, is_compressed
from nncompress_jax.weights.channel_pruned import conforming, is_plain

Leaves = Mapping[str, Any]
"""The variables by path."""

FAR = 4.0
"""By which factor variances change where most of a layer's outputs are gone."""

MANY = 1 / 3
"""The share of normalizations with such variances from which on networks that were tried stayed near chance."""


class StatisticsMoved(UserWarning):
    """Statistics that were re-estimated and are far from what they were: the network may do worse than before."""


def reestimate(variables: Any, context: Context) -> Any:
    """`batch_norm.reestimate` as a method, for the end of a chain: `chain(quantize(bits=4), reestimate)`.

    Batches should be as in training, with its crops and flips: they are in the statistics. VGG16-DS on `cifar10_jpeg`
    had 84.0 % of 2,000 images right, and then 83.75 % with statistics of augmented images, 80.95 % with those of
    others. After second-order rounding and pruning, which keep the outputs, re-estimation mostly does harm.

    Args:
      variables: as compressed by the methods before.
      context: of the method; `compress` gives it apply, in inference, and batches of training.

    Raises:
      InputError: without `apply` and `batches`, and as `batch_norm.reestimate` does.

    Example:
      >>> import jax.numpy as jnp
      >>> leaves = {"w": jnp.ones((1, 1)), "mean": jnp.zeros(1), "var": jnp.ones(1)}
      >>> apply = lambda tree, x: (x @ tree["w"] - tree["mean"]) / jnp.sqrt(tree["var"] + 1e-5)
      >>> reestimate(leaves, Context(apply, [jnp.array([[1.0], [3.0]])]))["mean"].tolist()
      [2.0]
    """
    apply, inputs = network(context, "reestimate")
    found = normalizations(apply, variables, *inputs[0]).found
    if not found:
        raise InputError("the program holds no batch normalization; there is nothing to re-estimate")
    leaves = dict(named_leaves(variables, is_compressed))
    check_there(leaves.items())
    free = {each.place: each for each in _apart(found, leaves)}
    moved: list[str] = []

    def visit(stop: Stop, pairs: Pairs) -> dict[str, Any]:
        each = free[stop.place]
        moments = Moments(each.places[each.mean], np.shape(leaves[each.mean]))
        for (operands,) in pairs:
            moments.add(dense(operands[stop.data]))
        new = {each.mean: moments.mean, each.variance: moments.variance}
        if not all(np.isfinite(numbers).all() for numbers in new.values()):
            raise InputError(f"{each.mean}: the data that it is the mean of hold NaN or infinite values")
        if _is_far(each, leaves, moments):
            moved.append(each.mean)
        changed = {path: _placed(leaves[path], moments, numbers) for path, numbers in new.items()}
        leaves.update(changed)
        return changed

    key = "statistics", frozenset(free), kinds(variables)
    walk = context.kept(key, lambda: Walk(apply, lambda stop: stop.place in free))
    walk.through(variables, context.batches, visit, references=(), as_dense=False)
    if len(moved) > MANY * len(found):
        warnings.warn(MOVED.format(count=len(moved), total=len(found), first=moved[0]), StatisticsMoved, stacklevel=3)
    return exchanged(variables, leaves)


MOVED = (
    "the variances of {count} of {total} batch normalizations ({first}, ...) are far from what they were: so much is "
    "gone of the weights that the network may do worse with them; compare it with and without"
)


def _is_far(each: Normalization, leaves: Leaves, moments: Moments) -> bool:
    """Whether most of the variances have changed by a factor of `FAR` or more."""
    old = np.asarray(dense(leaves[each.variance]), np.float64).ravel()[moments.entries] + each.epsilon
    return bool(np.median(np.abs(np.log((moments.variance + each.epsilon) / old))) > np.log(FAR))


def _apart(found: Sequence[Normalization], leaves: Leaves) -> Iterator[Normalization]:
    """Those whose statistics are theirs alone, in leaves that can hold new ones."""
    used: Counter[tuple[str, int]] = Counter()
    entries = []
    for each in found:
        shape, places = np.shape(leaves[each.mean]), each.places[each.mean]
        numbers = at(places, np.arange(math.prod(shape)).reshape(shape), each.value.aval.ndim)
        entries.append({(path, number) for path in (each.mean, each.variance) for number in numbers.ravel().tolist()})
        used.update(entries[-1])
    for each, own in zip(found, entries, strict=True):
        statistics = [leaves[path] for path in (each.mean, each.variance)]
        if any(used[entry] > 1 for entry in own):
            leave_alone(each.mean, "it is the mean at several places")
        elif any(is_compressed(leaf) and not is_plain(leaf) for leaf in statistics):
            leave_alone(each.mean, "compressed already; choose other leaves to compress with where=")
        else:
            yield each


def _placed(leaf: Any, moments: Moments, numbers: np.ndarray) -> Any:
    """A leaf with other numbers; what lacks channels lacks the same ones."""
    new = moments.into(np.asarray(dense(leaf), np.float64), numbers)
    return conforming(jnp.asarray(new, jax.dtypes.canonicalize_dtype(native(leaf).dtype)), leaf)
