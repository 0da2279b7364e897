"""Checkpoints of a run, in `checkpoints/` of its workdir."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from nncompress_jax import models
from nncompress_jax.errors import InputError
from nncompress_jax.training import config as configuration
from nncompress_jax.training.state import TrainState
from nncompress_jax.types import Variables
from nncompress_jax.weights.structure import check_same, structure, with_structure


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a checkpoint says of its run beside the state.

    Attributes:
      steps: taken so far.
      total_steps: of the whole run.
      training_seconds: of the steps alone, without compilation, tests and saving, over all resumptions.
      num_classes: of the network.
      image_shape: [H, W, I] of its inputs.
    """

    steps: int
    total_steps: int
    training_seconds: float
    num_classes: int
    image_shape: tuple[int, ...]

    @property
    def is_finished(self) -> bool:
        """Whether the run has taken all its steps."""
        return self.steps >= self.total_steps

    def after(self, steps: int, seconds: float) -> "Progress":
        """The progress that many steps and seconds later."""
        later, longer = self.steps + steps, self.training_seconds + seconds
        return dataclasses.replace(self, steps=later, training_seconds=longer)


@contextlib.contextmanager
def manager(workdir: Path, *, writes: bool = False) -> Iterator[ocp.CheckpointManager]:
    """The run's checkpoints. One that writes keeps the last two, and goes on saving in the background until the end;
    one that only reads touches nothing, so that a run can be looked at while it goes on.
    """
    options = ocp.CheckpointManagerOptions(read_only=True)
    if writes:
        options = ocp.CheckpointManagerOptions(max_to_keep=2, cleanup_tmp_directories=True)
    handlers: dict[str, Any] = {"variables": ocp.StandardCheckpointHandler(), "rest": ocp.StandardCheckpointHandler()}
    handlers |= {"progress": ocp.JsonCheckpointHandler(), "structure": ocp.JsonCheckpointHandler()}
    with ocp.CheckpointManager(
        (workdir / "checkpoints").absolute(),
        options=options,
        item_handlers=handlers,
    ) as checkpoints:
        yield checkpoints
        checkpoints.wait_until_finished()


def save(checkpoints: ocp.CheckpointManager, state: TrainState, progress: Progress) -> None:
    """Saves in the background; the state may be donated as soon as this returns."""
    rest = dataclasses.replace(state, variables={})
    items = ocp.args.Composite(
        variables=ocp.args.StandardSave(state.variables),
        rest=ocp.args.StandardSave(rest),
        progress=ocp.args.JsonSave(dataclasses.asdict(progress)),
        structure=ocp.args.JsonSave(structure(state.variables)),
    )
    checkpoints.save(progress.steps, args=items)


def load_state(checkpoints: ocp.CheckpointManager, template: TrainState) -> tuple[TrainState, Progress]:
    """The latest checkpoint, with the template's shapes and shardings.

    Raises:
      InputError: if it cannot be read, or its compressed weights are of other types or static parts.
    """
    check_same(_structure(checkpoints), structure(template.variables))
    rest = dataclasses.replace(template, variables={})
    items = ocp.args.Composite(
        variables=ocp.args.StandardRestore(template.variables),
        rest=ocp.args.StandardRestore(rest),
        progress=ocp.args.JsonRestore(),
    )
    restored = _restore(checkpoints, items)
    state = dataclasses.replace(restored["rest"], variables=restored["variables"])
    return state, _progress(restored)


def restore(workdir: str | Path) -> Variables:
    """Variables of the latest checkpoint of a run, on the default device.

    Args:
      workdir: of a training run, finished or not, on any number of devices.

    Returns:
      The network's collections, as `nnc.inject(network(workdir).apply)` takes them; weights that were trained
      compressed come back as they were.

    Raises:
      InputError: if there is no run, no checkpoint yet, or it cannot be read.
    """
    model, progress = network(workdir), load_progress(workdir)
    images = jax.ShapeDtypeStruct((1, *progress.image_shape), jnp.float32)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    dense = jax.eval_shape(model.init, jax.random.key(0), images)
    with manager(Path(workdir)) as checkpoints:
        template = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
            with_structure(dense, _structure(checkpoints)),
        )
        items = ocp.args.Composite(variables=ocp.args.StandardRestore(template))
        return _restore(checkpoints, items)["variables"]


def load_progress(workdir: str | Path) -> Progress:
    """What the latest checkpoint says of its run; Raises InputError as `restore` does."""
    configuration.read(workdir)
    with manager(Path(workdir)) as checkpoints:
        if checkpoints.latest_step() is None:
            raise InputError(f"{workdir}: holds no checkpoint yet; train for an epoch first")
        return _progress(_restore(checkpoints, ocp.args.Composite(progress=ocp.args.JsonRestore())))


def network(workdir: str | Path) -> nn.Module:
    """The run's network, computing in float32."""
    config = configuration.read(workdir)
    return models.create(config.model, num_classes=load_progress(workdir).num_classes)


def _structure(checkpoints: ocp.CheckpointManager) -> dict[str, Any]:
    """Of the latest checkpoint; one from before weights could be compressed has none."""
    latest = checkpoints.latest_step()
    if latest is None or not (checkpoints.directory / str(latest) / "structure").exists():
        return {}
    return _restore(checkpoints, ocp.args.Composite(structure=ocp.args.JsonRestore()))["structure"]


def _progress(restored: Any) -> Progress:
    fields = restored["progress"]
    return Progress(**fields | {"image_shape": tuple(fields["image_shape"])})


def _restore(checkpoints: ocp.CheckpointManager, items: Any) -> Any:
    try:
        return checkpoints.restore(checkpoints.latest_step(), args=items)
    except Exception as error:  # whatever orbax and its storage raise on a damaged file
        folder = checkpoints.directory / str(checkpoints.latest_step())
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{folder}: damaged checkpoint ({reason}...); delete that folder to go on from the one before"
        ) from error
