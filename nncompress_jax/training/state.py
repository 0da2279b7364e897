"""What training carries from step to step."""

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from nncompress_jax.training.mesh import place, replicated
from nncompress_jax.types import Array, Variables


@flax.struct.dataclass
class TrainState:
    """All that a step reads and writes.

    Attributes:
      step: [] int32, steps taken.
      variables: the network's collections, `params` among them; weights may be compressed.
      opt_state: the optimizer's, of the parts of `params` that train.
      key: [] PRNG key; step n draws from `fold_in(key, n)`, so that a resumed run repeats its draws.
    """

    step: Array
    variables: Variables
    opt_state: optax.OptState
    key: Array


def create(variables: Variables, optimizer: optax.GradientTransformation, key: Array, mesh: Mesh) -> TrainState:
    """The state before the first step, on every device of the mesh.

    Args:
      variables: the network's; they are copied, since steps donate their state.
      optimizer: an optax transformation that takes compressed weights.
      key: PRNG key of the augmentation.
      mesh: of `mesh.data_mesh`.
    """
    return jax.tree.map(jnp.copy, place(initial(variables, optimizer, key), replicated(mesh)))


def initial(variables: Variables, optimizer: optax.GradientTransformation, key: Array) -> TrainState:
    """As `create`, where the variables are."""
    return TrainState(jnp.zeros((), jnp.int32), variables, optimizer.init(variables["params"]), key)
