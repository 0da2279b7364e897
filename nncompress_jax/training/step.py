"""One step of training: a pure function of state, images and labels."""

import functools
from collections.abc import Callable
from typing import Any

import chex
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh

from nncompress_jax import losses
from nncompress_jax.training.mesh import replicated, shared
from nncompress_jax.training.objective import CLASSIFICATION, Objective
from nncompress_jax.training.state import TrainState
from nncompress_jax.types import Apply, Array
from nncompress_jax.weights.parts import value_and_grad

Augment = Callable[[Array, Array], Array]
"""(key, images [B, H, W, I] uint8) -> [B, H, W, I] float32."""

DROPOUT = 2**31 - 1
"""What dropout folds into a step's key: far from the small numbers that augmentation splits off it."""

TrainSteps = Callable[[TrainState, Array, Array, Array, Any], "tuple[TrainState, Metrics]"]
"""(state, images [N, H, W, I] uint8, labels [N] int32, rows [K, B] int32, given) -> the state after K steps, metrics
[K]."""


@flax.struct.dataclass
class Metrics:
    """Of one batch, or of K: then each has a first axis of K.

    Attributes:
      loss: [] float32, the objective's, in nats.
      correct: [] int32, examples whose largest logit is their class's.
      measures: [] float32 each, by name: the sums of the objective's own over the examples.
    """

    loss: Array
    correct: Array
    measures: dict[str, Array] = flax.struct.field(default_factory=dict)


def train_step(
    apply: Apply,
    optimizer: optax.GradientTransformation,
    augment: Augment,
    objective: Objective,
    state: TrainState,
    images: Array,
    labels: Array,
    given: Any,
) -> tuple[TrainState, Metrics]:
    """One step of gradient descent.

    Args:
      apply: a linen module's, with `train=`, `mutable=` and `rngs=`.
      optimizer: the one that made the state, of `nnc.optimizer`.
      augment: from stored pixels to the network's input, at random.
      objective: whose loss is minimised.
      state: before the step.
      images: [B, H, W, I] uint8.
      labels: [B] int32.
      given: the objective's.

    Returns:
      The state after the step, and what the batch gave before it.
    """
    chex.assert_rank(images, 4)
    chex.assert_shape(labels, images.shape[:1])
    chex.assert_type([images, labels], [jnp.uint8, jnp.int32])
    key = jax.random.fold_in(state.key, state.step)
    inputs, rngs = augment(key, images), {"dropout": jax.random.fold_in(key, DROPOUT)}
    others = {name: tree for name, tree in state.variables.items() if name != "params"}
    run = objective.running(apply)

    def loss_of(params: Any) -> tuple[Array, Any]:
        variables = {"params": params, **others}
        (outputs, updated), features = run(variables, inputs, train=True, mutable=list(others), rngs=rngs)
        chex.assert_rank(jax.tree.leaves(outputs), 2)
        outputs = jax.tree.map(lambda logits: logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), outputs)
        loss = objective.of(outputs, labels, inputs=inputs, features=features, given=given)
        return loss, (outputs, updated)

    params = state.variables["params"]
    (loss, (outputs, updated)), gradients = value_and_grad(loss_of, has_aux=True)(params)
    updates, opt_state = optimizer.update(gradients, state.opt_state, params)
    variables = {"params": optax.apply_updates(params, updates), **updated}
    correct = jnp.sum(losses.last(outputs).argmax(-1) == labels, dtype=jnp.int32)
    measures = {name: jnp.sum(of(outputs, labels), dtype=jnp.float32) for name, of in objective.measures.items()}
    return TrainState(state.step + 1, variables, opt_state, state.key), Metrics(loss, correct, measures)


def compile_train_steps(
    apply: Apply,
    optimizer: optax.GradientTransformation,
    augment: Augment,
    mesh: Mesh,
    objective: Objective = CLASSIFICATION,
) -> jax.stages.Wrapped:
    """`train_step` jitted over a mesh, on the rows of a data set that lives on the devices: `TrainSteps`.

    The state stands whole on every device and is donated, so does the data set; each batch is divided as `mesh.shared`
    says. Loss and batch
    statistics are those of the whole batch on any number of devices. Several steps are one loop in the program: an
    accelerator then waits for the host once, while XLA on the CPU runs convolutions in loops on slow paths.
    """

    def steps(state: TrainState, images: Array, labels: Array, rows: Array, given: Any) -> tuple[TrainState, Metrics]:
        def step(state: TrainState, rows: Array) -> tuple[TrainState, Metrics]:
            return train_step(apply, optimizer, augment, objective, state, images[rows], labels[rows], given)

        rows = lax.with_sharding_constraint(rows, shared(mesh, rows.shape[1], axis=1))
        if len(rows) > 1:
            return lax.scan(step, state, rows)
        state, metrics = step(state, rows[0])
        return state, jax.tree.map(lambda x: x[None], metrics)

    whole = replicated(mesh)
    return jax.jit(
        steps,
        in_shardings=(whole, whole, whole, None, whole),
        out_shardings=whole,
        donate_argnums=0,
    )


def compile_train_step(
    apply: Apply,
    optimizer: optax.GradientTransformation,
    augment: Augment,
    mesh: Mesh,
    objective: Objective = CLASSIFICATION,
) -> jax.stages.Wrapped:
    """`train_step` jitted over a mesh, on a batch that is divided as `mesh.shared` says: (state, images [B, H, W, I]
    uint8, labels [B] int32, given) -> the state after it, `Metrics`. The state that comes in is donated.
    """
    step = functools.partial(train_step, apply, optimizer, augment, objective)
    whole = replicated(mesh)
    return jax.jit(step, in_shardings=(whole, None, None, whole), out_shardings=whole, donate_argnums=0)
