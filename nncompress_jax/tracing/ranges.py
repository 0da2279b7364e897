"""Input ranges that training tracks: they move with what a program sees, as if by gradient descent."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nncompress_jax.tracing.observations import Meeting, Observations, Statistic
from nncompress_jax.weights.base import is_compressed


def with_largest(statistic: Statistic | None, paths: Collection[str]) -> Statistic:
    """A statistic that is a pair: what it was, and the largest magnitude of the inputs of weights at these paths."""

    def of(met: Meeting) -> tuple[Any, Any]:
        largest = jnp.abs(met.inputs).max().astype(jnp.float32) if met.path in paths else None
        return None if statistic is None else statistic(met), largest

    return of


def without_largest(seen: Observations) -> Observations:
    """What the statistic was."""
    return {path: [each._replace(value=each.value[0]) for each in places] for path, places in seen.items()}


def following(outputs: Sequence[Any], weights: Mapping[str, Any], seen: Observations) -> list[Any]:
    """The outputs, whose derivatives with respect to the weights' input ranges are old less new ones.

    Args:
      outputs: of the program.
      weights: those that track their range, by path.
      seen: of a statistic of `with_largest`.
    """
    old, new = [], []
    for path in weights.keys() & seen.keys():
        largest = jnp.stack([jnp.max(place.value[1]) for place in seen[path]]).max()
        moved = weights[path].update_ranges(lax.stop_gradient(largest))
        leaves = zip(jax.tree.leaves(weights[path]), jax.tree.leaves(moved), strict=True)
        pairs = [(before, after) for before, after in leaves if before is not after]
        old += [before for before, _ in pairs]
        new += [after for _, after in pairs]
    smooth = [place for place, output in enumerate(outputs) if _is_smooth(output)]
    result = list(outputs)
    for place, output in zip(smooth, _following([outputs[place] for place in smooth], old, new), strict=True):
        result[place] = output
    return result


@jax.custom_vjp
def _following(outputs: Any, old: Any, new: Any) -> Any:
    return outputs


def _forward(outputs: Any, old: Any, new: Any) -> tuple[Any, Any]:
    return outputs, jax.tree.map(jnp.subtract, old, new)


def _backward(steps: Any, cotangents: Any) -> tuple[Any, Any, Any]:
    return cotangents, steps, jax.tree.map(jnp.zeros_like, steps)


_following.defvjp(_forward, _backward)


def _is_smooth(output: Any) -> bool:
    return not is_compressed(output) and bool(jnp.issubdtype(jnp.result_type(output), jnp.inexact))
