"""Checkpoints of a run, in `checkpoints/` of its workdir: written in the background, verified when they are read."""

import contextlib
import dataclasses
import errno
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from nncompress_jax import checksums, models
from nncompress_jax.checksums import DamageError
from nncompress_jax.errors import InputError, StorageError
from nncompress_jax.training import config as configuration
from nncompress_jax.training.progress import Progress, Sums
from nncompress_jax.training.state import TrainState
from nncompress_jax.training.structure import check_same, structure, with_structure
from nncompress_jax.types import Variables
from nncompress_jax.weights.base import is_compressed

Loaded = TypeVar("Loaded")

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""Error numbers of storage that takes no more."""


@contextlib.contextmanager
def manager(
    workdir: str | Path | epath.Path, *, writes: bool = False, keep_last: int = 2
) -> Iterator[ocp.CheckpointManager]:
    """The run's checkpoints. One that writes keeps the last ones and the one of the best test, and goes on saving in
    the background until the end; one that only reads touches nothing, so that a run can be looked at while it goes on.

    Raises:
      StorageError: where a checkpoint cannot be written.
    """
    options = ocp.CheckpointManagerOptions(read_only=True, best_fn=_accuracy)
    if writes:
        best = policies.BestN(get_metric_fn=_accuracy, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep_last), best]),
            best_fn=_accuracy,
            cleanup_tmp_directories=True,
        )
    handlers: dict[str, Any] = {"variables": ocp.StandardCheckpointHandler(), "rest": ocp.StandardCheckpointHandler()}
    handlers |= {"described": ocp.JsonCheckpointHandler()}
    is_remote = "://" in str(workdir)  # absolute() would take it for a local folder
    folder = epath.Path(workdir if is_remote else epath.Path(workdir).absolute()) / "checkpoints"
    with _writing(folder), ocp.CheckpointManager(folder, options=options, item_handlers=handlers) as checkpoints:
        yield checkpoints
        checkpoints.wait_until_finished()


def save(
    checkpoints: ocp.CheckpointManager, state: TrainState, progress: Progress, test_accuracy: float | None = None
) -> None:
    """Saves in the background; the state may be donated as soon as this returns.

    Args:
      checkpoints: of a `manager` that writes.
      state: on any number of devices and processes; the first process writes.
      progress: that goes with it.
      test_accuracy: of this state, if it was tested; from 0 to 1.

    Raises:
      StorageError: where this one or the one before cannot be written.
    """
    described = {"progress": dataclasses.asdict(progress), "structure": structure(state.variables)}
    described |= {"checksums": checksums.of_leaves(state)}
    items = ocp.args.Composite(
        variables=ocp.args.StandardSave(state.variables),
        rest=ocp.args.StandardSave(dataclasses.replace(state, variables={})),
        described=ocp.args.JsonSave(described | {"checksum": checksums.of_description(described)}),
    )
    with _writing(checkpoints.directory):
        metrics = None if test_accuracy is None else {"test_accuracy": test_accuracy}
        checkpoints.save(progress.steps, args=items, metrics=metrics)


def load_state(
    checkpoints: ocp.CheckpointManager,
    template: TrainState,
    like: Callable[[Variables], TrainState] | None = None,
) -> tuple[TrainState, Progress]:
    """The latest checkpoint that is whole, with the template's shapes and shardings. Damaged ones that are newer are
    moved to `damaged/` of the workdir, and a warning names them.

    Args:
      checkpoints: of a `manager`.
      template: a state of the run.
      like: of the shapes of variables, a template with these; where the weights change their types on the way.

    Raises:
      InputError: if none is whole, or its compressed weights are of other types or static parts.
    """

    def load(step: int) -> tuple[TrainState, Progress]:
        described = _described(checkpoints, step)
        expected = template
        if like is None:
            check_same(described["structure"], structure(template.variables))
        else:
            dense = jax.tree.map(_shape, template.variables, is_leaf=is_compressed)
            expected = like(with_structure(dense, described["structure"]))
        items = ocp.args.Composite(
            variables=ocp.args.StandardRestore(expected.variables),
            rest=ocp.args.StandardRestore(dataclasses.replace(expected, variables={})),
        )
        restored = _restore(checkpoints, step, items)
        state = dataclasses.replace(restored["rest"], variables=restored["variables"])
        checksums.verify(checksums.of_leaves(state), described["checksums"])
        return state, _progress(described)

    latest = checkpoints.latest_step()
    step, loaded = _latest_whole(checkpoints, load)
    if step != latest:
        multihost_utils.sync_global_devices("every process knows what is damaged")
        if jax.process_index() == 0:
            _move_aside(checkpoints, after=step)
        multihost_utils.sync_global_devices("damaged checkpoints are out of the way")
        checkpoints.reload()
    return loaded


def restore(workdir: str | Path | epath.Path, *, best: bool = False) -> Variables:
    """Variables of the latest checkpoint of a run, on the default device.

    Args:
      workdir: of a training run, finished or not, on any number of devices.
      best: those of the highest test accuracy instead.

    Returns:
      The network's collections, as `nnc.inject(network(workdir).apply)` takes them; weights that were trained
      compressed come back as they were. Of a damaged checkpoint a warning tells, and the one before is taken.

    Raises:
      InputError: if there is no run, no checkpoint yet, or none that is whole.
    """
    config = configuration.read(workdir)
    with manager(workdir) as checkpoints:
        if not best:
            return _latest_whole(checkpoints, lambda step: _variables(checkpoints, step, config))[1]
        step = checkpoints.best_step()
        if step is None:
            raise InputError(f"{workdir}: no checkpoint was tested yet; train for an epoch first")
        try:
            return _variables(checkpoints, step, config)
        except DamageError as damage:
            raise InputError(f"{checkpoints.directory / str(step)}: damaged checkpoint ({damage})") from None


def load_progress(workdir: str | Path | epath.Path) -> Progress:
    """What the latest checkpoint says of its run; Raises InputError as `restore` does."""
    configuration.read(workdir)
    with manager(workdir) as checkpoints:
        return _progress(_latest_whole(checkpoints, lambda step: _described(checkpoints, step))[1])


def network(workdir: str | Path | epath.Path) -> models.Network | models.OwnNetwork:
    """The run's network, computing in float32."""
    config = configuration.read(workdir)
    return models.named(config.model, num_classes=load_progress(workdir).num_classes)


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _accuracy(metrics: dict[str, float]) -> float:
    return metrics["test_accuracy"]


@contextlib.contextmanager
def _writing(folder: Any) -> Iterator[None]:
    """Tells storage that is full from other failures; tensorstore gives the system's error number in its text."""
    try:
        yield
    except (OSError, ValueError) as error:
        named = re.search(r"os_error_code='(\d+)'", str(error))
        number = int(named[1]) if named else getattr(error, "errno", None)
        if number not in FULL:
            raise
        raise StorageError(
            f"{folder}: a checkpoint cannot be written: {os.strerror(number)}; those before it are whole: make room, "
            "and the same command goes on from the latest"
        ) from error


def _latest_whole(checkpoints: ocp.CheckpointManager, load: Callable[[int], Loaded]) -> tuple[int, Loaded]:
    """The latest step that can be loaded, and what was."""
    damages = []
    for step in sorted(checkpoints.all_steps(), reverse=True):
        try:
            loaded = load(step)
        except DamageError as damage:
            damages.append(f"{checkpoints.directory / str(step)}: damaged checkpoint ({damage})")
            continue
        for line in damages:
            logging.getLogger(__name__).warning("%s; step %d is taken, the latest that is whole", line, step)
        return step, loaded
    if damages:
        raise InputError(f"{damages[0]}, and no other is whole; train into another --workdir")
    raise InputError(f"{checkpoints.directory.parent}: holds no checkpoint yet; train for an epoch first")


def _move_aside(checkpoints: ocp.CheckpointManager, *, after: int) -> None:
    aside = checkpoints.directory.parent / "damaged"
    aside.mkdir(exist_ok=True)
    for step in checkpoints.all_steps():
        if step > after:
            place = aside / f"{step}-{time.strftime('%Y%m%dT%H%M%S')}"
            (checkpoints.directory / str(step)).rename(place)


def _described(checkpoints: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """Progress, structure and checksums of a checkpoint."""
    described = _restore(checkpoints, step, ocp.args.Composite(described=ocp.args.JsonRestore()))["described"]
    try:
        checksum = described.pop("checksum")
    except (AttributeError, KeyError):
        raise DamageError("it does not say what it holds") from None
    checksums.verify({"description": checksums.of_description(described)}, {"description": checksum})
    return described


def _variables(checkpoints: ocp.CheckpointManager, step: int, config: configuration.Config) -> Variables:
    """Of a checkpoint, on the default device."""
    described = _described(checkpoints, step)
    progress = _progress(described)
    model = models.named(config.model, num_classes=progress.num_classes)
    images = jax.ShapeDtypeStruct((1, *progress.image_shape), jnp.float32)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    template = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
        with_structure(jax.eval_shape(model.init, jax.random.key(0), images), described["structure"]),
    )
    items = ocp.args.Composite(variables=ocp.args.StandardRestore(template))
    variables = _restore(checkpoints, step, items)["variables"]
    checksums.verify(checksums.of_leaves(variables, "variables"), described["checksums"])
    return variables


def _restore(checkpoints: ocp.CheckpointManager, step: int, items: Any) -> Any:
    try:
        return checkpoints.restore(step, args=items)
    except Exception as error:  # whatever orbax and its storage raise on a damaged file
        raise DamageError(" ".join(str(error).split())[:120] + "...") from error


def _progress(described: dict[str, Any]) -> Progress:
    fields = described["progress"]
    changed = {"image_shape": tuple(fields["image_shape"]), "epoch": Sums(**fields["epoch"])}
    return Progress(**fields | changed)
