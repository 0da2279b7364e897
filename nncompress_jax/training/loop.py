"""A whole training run: epochs of steps, each followed by a test and a checkpoint."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence

import jax
import orbax.checkpoint as ocp
from etils import epath
from rich.progress import Progress as ProgressBar

from nncompress_jax.data.sources import Dataset
from nncompress_jax.errors import InputError, UnfinishedError
from nncompress_jax.training import checkpoint, lock, metrics, processes
from nncompress_jax.training.chunks import Chunks, compile_chunks
from nncompress_jax.training.config import FILE_NAME, Config, as_begun, claim
from nncompress_jax.training.evaluation import Evaluation, evaluate
from nncompress_jax.training.interruption import Interruption, InterruptionError, alone
from nncompress_jax.training.objective import CLASSIFICATION, Objective, check
from nncompress_jax.training.progress import Progress
from nncompress_jax.training.setup import Setup, prepare
from nncompress_jax.training.state import TrainState
from nncompress_jax.training.turns import Turn, turned
from nncompress_jax.types import Variables


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
      workdir: where `checkpoint.restore` finds its variables.
      progress: of its last checkpoint, training time included.
      evaluation: on the test split.
    """

    workdir: epath.Path
    progress: Progress
    evaluation: Evaluation


def train(
    config: Config,
    variables: Variables | None = None,
    objective: Objective = CLASSIFICATION,
    turns: Sequence[Turn] = (),
    dataset: Dataset | None = None,
) -> Run:
    """Trains, or goes on with, the run that a configuration describes; a finished run is only tested.

    Where `processes.start` has connected several processes, each of them calls this with the same arguments.

    Args:
      config: what defines the run.
      variables: the network's, to begin with instead of weights at random; they may be compressed, and only those of
        their parts train that their types say. The same must be given to go on with the run.
      objective: what is minimised, by default the mean cross entropy; the same, too, to go on with the run.
      turns: what changes the variables on the way, as compression and training in turns do; likewise.
      dataset: images and labels of the program's own, under the name that the configuration gives; likewise.

    Raises:
      InputError: for settings that cannot be, a workdir of another run or where another command trains, a data set of
        another size than the run began with, a loss that is not finite, processes that differ, and where there are
        checkpoints and none is whole.
      UnfinishedError: after SIGTERM; the run is saved, and goes on when it is called again.
      StorageError: where a checkpoint cannot be written.
    """
    config = as_begun(config)
    setup = prepare(config, objective, turns, dataset)
    processes.agree(_facts(config, setup.dataset))
    with contextlib.ExitStack() as stack:
        check_lock = _hold(config.folder(), stack)
        return _train(config, setup, variables, check_lock)


def _hold(workdir: epath.Path, stack: contextlib.ExitStack) -> Callable[[], None]:
    """Keeps other commands out of the workdir; what it returns raises UnfinishedError if one took it all the same."""
    refusal, check = "", alone
    if processes.is_first():
        try:
            check = stack.enter_context(lock.held(workdir)).check
        except InputError as error:
            refusal = str(error)
    if refusal := processes.said_by_first(refusal):
        raise InputError(refusal)
    return check


def _train(config: Config, setup: Setup, variables: Variables | None, check_lock: Callable[[], None]) -> Run:
    """In a workdir that is this run's alone."""
    state = setup.initial_state(config.seed, variables)
    check(setup.objective, setup.model.apply, state.variables, setup.image_shape)
    workdir = claim(config, writes=processes.is_first())
    processes.agree_on_file(workdir / FILE_NAME)
    total = setup.steps_per_epoch * setup.epochs
    first = Progress(
        0, total, 0.0, len(setup.dataset.class_names), setup.image_shape, train_images=len(setup.dataset.train)
    )

    with checkpoint.manager(workdir, writes=True, keep_last=config.keep_last) as checkpoints:
        progress = first
        if checkpoints.latest_step() is not None:
            state, progress = checkpoint.load_state(checkpoints, state, setup.state_like if setup.turns else None)
            _check_length(workdir, progress, first)
            if processes.is_first():
                print(f"{workdir}: goes on from step {progress.steps} of {total}", flush=True)
        processes.agree({"checkpoint": f"step {progress.steps}"})
        with Interruption(checkpoints.reached_preemption, check_lock) as interruption:
            training = _Training(setup, checkpoints, interruption, state, progress)
            try:
                evaluation = training.test() if progress.is_finished else training.run(workdir, config.checkpoint_steps)
            except InterruptionError:
                training.save()
                checkpoints.wait_until_finished()
                raise UnfinishedError(
                    f"{workdir}: asked to end, saved at step {training.progress.steps} of {total}; "
                    "the same command goes on from there"
                ) from None
    return Run(workdir, training.progress, evaluation)


def _check_length(workdir: epath.Path, found: Progress, ours: Progress) -> None:
    """Raises InputError where an epoch is not what it was when the run began."""
    for what, theirs, now in (
        ("training images", found.train_images or ours.train_images, ours.train_images),
        ("steps", found.total_steps, ours.total_steps),
    ):
        if theirs != now:
            raise InputError(
                f"{workdir}: the run began with {theirs} {what}, now there are {now}; "
                "give it the data set that it began with, or train into another --workdir"
            )


def _facts(config: Config, dataset: Dataset) -> dict[str, object]:
    """What must be the same on all hosts."""
    settings = {name: value for name, value in dataclasses.asdict(config).items() if name != "data_dir"}
    described = (dataset.name, len(dataset.train), len(dataset.test), dataset.train.image_shape)
    return {
        "code": f"{processes.code_version()}, jax {jax.__version__}",
        **{f"--{name}": value for name, value in settings.items()},
        "data set": f"{described}, mean {dataset.mean}, deviation {dataset.deviation}",
        "class names": dataset.class_names,
    }


class _Training:
    """A run from where it stands to its end.

    Attributes:
      state: after the last step.
      progress: likewise.
    """

    def __init__(
        self,
        setup: Setup,
        checkpoints: ocp.CheckpointManager,
        interruption: Interruption,
        state: TrainState,
        progress: Progress,
    ):
        self._setup, self._checkpoints, self._interruption = setup, checkpoints, interruption
        self.state, self.progress = state, progress
        self._saved = checkpoints.latest_step()

    def run(self, workdir: epath.Path, checkpoint_steps: int) -> Evaluation:
        """All epochs that are left; the evaluation is the last one's.

        Raises:
          InterruptionError: after a step or in a test; state and progress belong together.
        """
        written = self.progress.steps - (not self.progress.is_tested)
        with contextlib.ExitStack() as stack:
            writer = bar = None
            if processes.is_first():
                writer = stack.enter_context(metrics.open_writer(workdir, after_step=written))
                bar = stack.enter_context(metrics.progress_bar())
            compiled = None
            while not self.progress.is_finished:
                if self._turned() or compiled is None:
                    compiled = compile_chunks(self._setup, self.state)
                if self.progress.is_tested or self.progress.steps % self._setup.steps_per_epoch:
                    self._end_epoch(compiled, bar, checkpoint_steps)
                evaluation = self.test()
                if writer and bar:
                    self._report(evaluation, writer, bar)
                self.progress = self.progress.tested()
                self.save(evaluation.accuracy)
        return evaluation

    def _turned(self) -> bool:
        """Whether a turn has changed the variables, before the epoch that begins."""
        epoch, within = divmod(self.progress.steps, self._setup.steps_per_epoch)
        turns = [] if within or not self.progress.is_tested else [t for t in self._setup.turns if t.epoch == epoch]
        for turn in turns:
            self.state = turned(self.state, turn, lambda variables: self._setup.initial_state(0, variables))
        return bool(turns)

    def test(self) -> Evaluation:
        """On the test split."""
        setup = self._setup
        return evaluate(
            setup.model.apply,
            self.state.variables,
            setup.dataset.test,
            setup.preprocess,
            batch_size=max(100, setup.preset.batch_size),
            mesh=setup.mesh,
            between=self._interruption.check,
            measures=setup.objective.measures,
        )

    def _end_epoch(self, compiled: Chunks, bar: ProgressBar | None, checkpoint_steps: int) -> None:
        """The steps that are left of the epoch; raises as `run` does."""
        setup, length = self._setup, self._setup.steps_per_epoch
        done, steps = self.progress, self.progress.steps
        meter = metrics.Meter(setup.learning_rate, steps, done.epoch)
        name = f"epoch {steps // length + 1}/{setup.epochs}"
        task = bar.add_task(name, completed=steps % length, total=length, **meter.shown()) if bar else None
        asked = False
        with contextlib.closing(compiled.after(steps)) as chunks:
            for chunk in chunks:
                self.state, measured = chunk.run(self.state)
                steps += chunk.steps
                meter.add(measured, chunk.batch_size)
                if bar and task is not None:
                    bar.update(task, advance=chunk.steps, **meter.shown())
                if asked := self._interruption.is_asked():
                    break
                if steps % checkpoint_steps < chunk.steps and steps % length:
                    self.progress = done.at(steps, meter.sums)
                    self.save()
                    meter = metrics.Meter(setup.learning_rate, steps, self.progress.epoch)
        self.progress = done.at(steps, meter.sums)
        if asked:
            raise InterruptionError
        if bar and task is not None:
            bar.remove_task(task)

    def _report(self, evaluation: Evaluation, writer: metrics.MetricsWriter, bar: ProgressBar) -> None:
        trained, steps = self.progress.epoch, self.progress.steps
        writer.write(
            steps,
            train_loss=trained.mean_loss,
            train_accuracy=trained.accuracy,
            test_loss=evaluation.loss,
            test_accuracy=evaluation.accuracy,
            **{f"train_{name}": value for name, value in trained.mean_measures.items()},
            **{f"test_{name}": value for name, value in evaluation.measures.items()},
            learning_rate=self._setup.learning_rate(steps - 1),
            images_per_second=trained.images_per_second,
            training_seconds=self.progress.training_seconds + trained.seconds,
        )
        bar.console.print(
            f"epoch {steps // self._setup.steps_per_epoch}/{self._setup.epochs}: "
            f"train loss {trained.mean_loss:.4f} accuracy {trained.accuracy:.4f}, "
            f"test accuracy {evaluation.accuracy:.4f}, {trained.images_per_second:.0f} images/s",
            soft_wrap=True,
        )

    def save(self, test_accuracy: float | None = None) -> None:
        """A checkpoint of where the run stands, unless there is one."""
        if self._saved != self.progress.steps:
            checkpoint.save(self._checkpoints, self.state, self.progress, test_accuracy)
            self._saved = self.progress.steps
