"""Which weights are important to the loss, by the diagonal of its curvature: criteria for `prune`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax.errors import InputError
from nncompress_jax.tracing.fisher import Likelihood
from nncompress_jax.tracing.fisher import fisher as information
from nncompress_jax.types import Apply, Array
from nncompress_jax.weights.base import dense, is_compressed
from nncompress_jax.weights.sparse import Sparse


def obd(
    apply: Apply, variables: Any, batches: Sequence[Any], *, likelihood: Likelihood = "categorical", seed: int = 0
) -> Callable[[str, Array], Array]:
    """How much the loss would grow without a weight, to second order: w^2 h / 2.

    h is the diagonal of the Gauss-Newton matrix: the mean squared gradient for labels that the network itself draws.

    Args:
      apply: the network, in inference.
      variables: those that are going to be pruned.
      batches: representative inputs.
      likelihood: as of `tracing.fisher.fisher`.
      seed: likewise.

    Returns:
      A criterion for `prune`: (path, weights) to scores.

    Raises:
      InputError: as `fisher` does; (when applied) for a weight of another path or shape.

    Example:
      >>> weights = {"w": jnp.array([[1.0], [2.0]])}
      >>> criterion = obd(lambda v, x: x @ v["w"], weights, [jnp.array([[3.0, 1.0]])], likelihood="gaussian")
      >>> criterion("w", weights["w"]).tolist()
      [[4.5], [2.0]]

    Source: LeCun et al. 1990, "Optimal Brain Damage", equation 5.
    """
    return _criterion(information(apply, _dense(variables), batches, likelihood=likelihood, seed=seed))


def fisher(
    apply: Apply, variables: Any, batches: Sequence[Any], labels: Sequence[Any], *, seed: int = 0
) -> Callable[[str, Array], Array]:
    """As `obd`, with the empirical Fisher information: the mean squared gradient for the labels that are given.

    Args:
      apply: the network, in inference: to logits.
      variables: those that are going to be pruned.
      batches: representative inputs.
      labels: classes [N, ...], an array for each batch.
      seed: as of `tracing.fisher.fisher`.

    Returns:
      A criterion for `prune`: (path, weights) to scores.

    Raises:
      InputError: as `obd` does, and for labels that do not fit the batches.

    Example:
      >>> weights = {"w": jnp.array([[1.0, 1.0], [2.0, -2.0]])}
      >>> batches, labels = [jnp.array([[0.0, 1.0]])], [jnp.array([0])]
      >>> criterion = fisher(lambda v, x: x @ v["w"], weights, batches, labels)
      >>> (1e4 * criterion("w", weights["w"])).round().tolist()
      [[0.0, 0.0], [6.0, 6.0]]

    Source: Theis et al. 2018, "Faster gaze prediction with dense networks and Fisher pruning", equation 9.
    """
    return _criterion(information(apply, _dense(variables), batches, labels=labels, seed=seed))


def _criterion(curvature: Mapping[str, np.ndarray]) -> Callable[[str, Array], Array]:
    def scores(path: str, weights: Array) -> Array:
        found = curvature.get(path)
        if found is None or found.shape != weights.shape:
            known = "none" if found is None else f"one of {list(found.shape)}"
            raise InputError(
                f"{path}: {list(weights.shape)}, and {known} where the criterion was computed; compute it of the "
                "variables that are pruned"
            )
        return jnp.square(weights) * found / 2

    return scores


def _dense(variables: Any) -> Any:
    """As `prune` sees them: what it took away before can come back, and counts as zero."""
    return jax.tree.map(
        lambda leaf: dense(leaf) if isinstance(leaf, Sparse) else leaf, variables, is_leaf=is_compressed
    )
