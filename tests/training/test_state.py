"""What steps donate is theirs alone."""

import jax
import jax.numpy as jnp
import optax

import nncompress_jax as nnc
from nncompress_jax.training import state
from nncompress_jax.training.mesh import data_mesh


def test_the_state_shares_no_memory_with_what_it_was_made_of():
    """Nor within itself, where one array stands at two places: no memory can be donated twice."""
    tied, key = jnp.ones((8, 8)), jax.random.key(0)
    variables = {"params": {"a": {"kernel": tied}, "b": {"kernel": tied, "bias": jnp.zeros(8)}}}
    for given in (variables, nnc.compress(variables)):
        made = state.create(given, optax.sgd(0.1, momentum=0.9), key, data_mesh())
        jax.jit(lambda made: jax.tree.map(lambda x: x, made), donate_argnums=0, keep_unused=True)(made)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(made))
        assert not any(leaf.is_deleted() for leaf in [*jax.tree.leaves(given), key])
