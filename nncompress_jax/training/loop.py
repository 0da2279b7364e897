"""A whole training run: epochs of steps, each followed by a test and a checkpoint."""

import dataclasses
from pathlib import Path

from rich.progress import Progress as ProgressBar

from nncompress_jax.training import checkpoint, metrics
from nncompress_jax.training.chunks import Chunks
from nncompress_jax.training.config import Config, claim
from nncompress_jax.training.evaluation import Evaluation, evaluate
from nncompress_jax.training.setup import Setup, prepare
from nncompress_jax.training.state import TrainState
from nncompress_jax.types import Variables


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
      workdir: where `checkpoint.restore` finds its variables.
      progress: of its last checkpoint, training time included.
      evaluation: on the test split.
    """

    workdir: Path
    progress: checkpoint.Progress
    evaluation: Evaluation


def train(config: Config, variables: Variables | None = None) -> Run:
    """Trains, or goes on with, the run that a configuration describes; a finished run is only tested.

    Args:
      config: what defines the run.
      variables: the network's, to begin with instead of weights at random; they may be compressed, and only those of
        their parts train that their types say. The same must be given to go on with the run.

    Raises:
      InputError: for settings that cannot be, a workdir of another run, or a loss that is not finite.
    """
    setup = prepare(config)
    workdir = claim(config)
    epochs, steps = setup.recipe.epochs, setup.steps_per_epoch
    state = setup.initial_state(config.seed, variables)
    progress = checkpoint.Progress(0, steps * epochs, 0.0, setup.model.num_classes, setup.image_shape)

    with checkpoint.manager(workdir, writes=True) as checkpoints:
        if checkpoints.latest_step() is not None:
            state, progress = checkpoint.load_state(checkpoints, state)
        if progress.is_finished:
            return Run(workdir, progress, _test(setup, state))

        chunks = Chunks(setup, state)
        with metrics.open_writer(workdir, after_step=progress.steps) as writer, metrics.progress_bar() as bar:
            for epoch in range(progress.steps // steps, epochs):
                state, trained = _run_epoch(setup, chunks, state, epoch, bar)
                progress = progress.after(steps, trained.seconds)
                evaluation = _test(setup, state)
                writer.write(
                    progress.steps,
                    train_loss=trained.loss,
                    train_accuracy=trained.accuracy,
                    test_loss=evaluation.loss,
                    test_accuracy=evaluation.accuracy,
                    learning_rate=float(setup.schedule(progress.steps - 1)),
                    images_per_second=trained.images_per_second,
                    training_seconds=progress.training_seconds,
                )
                bar.console.print(
                    f"epoch {epoch + 1}/{epochs}: train loss {trained.loss:.4f} accuracy {trained.accuracy:.4f}, "
                    f"test accuracy {evaluation.accuracy:.4f}, {trained.images_per_second:.0f} images/s",
                    soft_wrap=True,
                )
                checkpoint.save(checkpoints, state, progress)
    return Run(workdir, progress, evaluation)


def _run_epoch(
    setup: Setup, chunks: Chunks, state: TrainState, epoch: int, bar: ProgressBar
) -> tuple[TrainState, metrics.Meter]:
    """All steps of an epoch; the state that comes in is donated."""
    meter = metrics.Meter(setup.schedule, first_step=epoch * setup.steps_per_epoch)
    task = bar.add_task(f"epoch {epoch + 1}/{setup.recipe.epochs}", total=setup.steps_per_epoch, **meter.shown())
    for run, rows in chunks.of(epoch):
        state, measured = run(state, rows)
        meter.add(measured, rows.shape[1])
        bar.update(task, advance=len(rows), **meter.shown())
    meter.flush()
    bar.remove_task(task)
    return state, meter


def _test(setup: Setup, state: TrainState) -> Evaluation:
    return evaluate(setup.model.apply, state.variables, setup.dataset.test, setup.preprocess, mesh=setup.mesh)
