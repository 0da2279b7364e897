"""Weights that have few bits while they train."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from nncompress_jax.errors import InputError
from nncompress_jax.ops.ste import power_of_two
from nncompress_jax.types import Array


def stochastic_rounding(bits: int, key: Array) -> optax.GradientTransformation:
    """Keeps weights at multiples of a step while they train: what an update adds is rounded up or down by chance.

    On average nothing is lost: an update of a tenth of a step is a whole one in every tenth case, where rounding to
    nearest would never move. The step is the least power of two that no magnitude of the weight exceeds, over
    2^(bits - 1). Arrays of fewer than two axes, as biases and learned scales, are not rounded.

    Args:
      bits: from 2 to 24; the sign is one of them.
      key: of `jax.random`, which the draws come from.

    Returns:
      An optax transformation, the last of a chain: `optax.chain(optax.sgd(0.1), stochastic_rounding(8, key))`, inside
      of `nnc.optimizer` where weights are compressed.

    Raises:
      InputError: for bits that cannot be; (in `update`) without parameters.

    Example:
      >>> tx = optax.chain(optax.sgd(0.1), stochastic_rounding(3, jax.random.key(0)))
      >>> weights = jnp.array([[0.5, -1.0]])
      >>> updates, _ = tx.update(jnp.array([[1.0, 1.0]]), tx.init(weights), weights)
      >>> (optax.apply_updates(weights, updates) % 0.25 == 0).all().item()
      True

    Source: Gupta et al. 2015, "Deep Learning with Limited Numerical Precision", section 3; Wu et al. 2018, "Training
    and Inference with Integers in Deep Neural Networks", section 3.3.4.
    """
    if not (isinstance(bits, int) and 2 <= bits <= 24):
        raise InputError(f"bits={bits}: expected a whole number from 2 to 24")

    def rounded(key: Array, update: Any, weight: Any) -> Any:
        if update is None or jnp.ndim(weight) < 2:
            return update
        largest = 2 ** (bits - 1)
        step = power_of_two(weight) / largest
        places = (weight + update) / step
        drawn = jnp.floor(places + jax.random.uniform(key, jnp.shape(weight), places.dtype))
        return (jnp.clip(drawn, -largest, largest) * step - weight).astype(update.dtype)

    def update(updates: Any, state: Array, params: Any = None) -> tuple[Any, Array]:
        if params is None:
            raise InputError("stochastic_rounding needs the parameters: update(updates, state, params)")
        state, used = jax.random.split(state)
        structure: Any = jax.tree.structure(updates)
        leaves = jax.tree.leaves(updates)
        weights, keys = structure.flatten_up_to(params), jax.random.split(used, max(len(leaves), 1))
        return jax.tree.unflatten(structure, map(rounded, keys, leaves, weights)), state

    return optax.GradientTransformation(lambda _: key, update)
