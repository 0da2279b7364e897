"""Compressing and training in turns, within one run."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from nncompress_jax.training.state import TrainState
from nncompress_jax.types import Variables


@dataclasses.dataclass(frozen=True)
class Turn:
    """What happens to the variables of a run before an epoch.

    Attributes:
      epoch: that begins with it, counted from 0 over the whole run; the first has the variables that the run begins
        with.
      change: of the variables, compressed or not, to those that train on; the same each time it is called.
      restarts: whether the schedule of the learning rate begins anew, with an optimizer that has seen nothing. Else the
        optimizer keeps what it knows of all parts that have the same shape as before.
    """

    epoch: int
    change: Callable[[Variables], Variables]
    restarts: bool = True


def carried(old: Any, new: Any) -> Any:
    """The state of an optimizer, as it begins with other variables, with what it knew of parts that stayed.

    Args:
      old: before.
      new: at its beginning.

    Example:
      >>> import jax.numpy as jnp
      >>> carried({"a": jnp.ones(2), "b": jnp.ones(3)}, {"a": jnp.zeros(2), "b": jnp.zeros(2)})["a"].tolist()
      [1.0, 1.0]
    """
    known = dict(jax.tree_util.tree_leaves_with_path(old))

    def kept(path: Any, leaf: Any) -> Any:
        before = known.get(path)
        return before if before is not None and (before.shape, before.dtype) == (leaf.shape, leaf.dtype) else leaf

    return jax.tree_util.tree_map_with_path(kept, new)


def turned(state: TrainState, turn: Turn, begun: Callable[[Variables], TrainState]) -> TrainState:
    """The state with which the turn's epoch begins.

    Args:
      state: before it.
      turn: what happens.
      begun: of variables, the state of a run that begins with them.
    """
    fresh = begun(turn.change(jax.device_get(state.variables)))
    opt_state = fresh.opt_state if turn.restarts else carried(state.opt_state, fresh.opt_state)
    return dataclasses.replace(fresh, step=state.step, key=state.key, opt_state=opt_state)
