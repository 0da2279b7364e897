"""Statistics of batch normalization, re-estimated after compression."""

from typing import Any

from nncompress_jax.methods.batch_norm import reestimate as of_batches
from nncompress_jax.methods.selection import network
from nncompress_jax.types import Context


def reestimate(variables: Any, context: Context) -> Any:
    """`batch_norm.reestimate` as a method, for the end of a chain: `chain(quantize(bits=4), reestimate)`.

    Args:
      variables: as compressed by the methods before.
      context: of the method; `compress` gives it apply, in inference, and batches from the training set.

    Raises:
      InputError: without `apply` and `batches`, and as `batch_norm.reestimate` does.

    Example:
      >>> import jax.numpy as jnp
      >>> leaves = {"w": jnp.ones((1, 1)), "mean": jnp.zeros(1), "var": jnp.ones(1)}
      >>> apply = lambda tree, x: (x @ tree["w"] - tree["mean"]) / jnp.sqrt(tree["var"] + 1e-5)
      >>> reestimate(leaves, Context(apply, [jnp.array([[1.0], [3.0]])]))["mean"].tolist()
      [2.0]
    """
    apply, _ = network(context, "reestimate")
    return of_batches(variables, apply, context.batches)
