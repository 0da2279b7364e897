"""The parts of a training run, made from its configuration."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from nncompress_jax import models
from nncompress_jax.data import sources
from nncompress_jax.data.augment import normalize, random_crop, random_flip
from nncompress_jax.data.batches import Batches
from nncompress_jax.data.stream import batches
from nncompress_jax.errors import InputError
from nncompress_jax.models import Network, OwnNetwork
from nncompress_jax.training import schedules
from nncompress_jax.training.config import Config
from nncompress_jax.training.mesh import check_batch_size, data_mesh, replicated
from nncompress_jax.training.objective import CLASSIFICATION, Objective
from nncompress_jax.training.schedules import Preset
from nncompress_jax.training.state import TrainState, create, initial
from nncompress_jax.training.step import Augment
from nncompress_jax.training.turns import Turn
from nncompress_jax.types import Array, Variables


@dataclasses.dataclass(frozen=True)
class Setup:
    """What stays the same from the first step to the last.

    Attributes:
      model: the network.
      dataset: in memory or streamed.
      preset: with the run's own numbers.
      mesh: over all devices.
      schedule: learning rate by step.
      optimizer: follows the schedule.
      preprocess: stored pixels [B, H, W, I] uint8 -> the network's input.
      augment: likewise, at random.
      batches: how an epoch goes through the training images.
      objective: what is minimised.
      turns: what changes the variables on the way, in the order of their epochs.
    """

    model: Network | OwnNetwork
    dataset: sources.Dataset
    preset: Preset
    mesh: Mesh
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    preprocess: Callable[[Array], Array]
    augment: Augment
    batches: Batches
    objective: Objective = CLASSIFICATION
    turns: tuple[Turn, ...] = ()

    @property
    def epochs(self) -> int:
        """Of the whole run: the preset's, as often as the schedule restarts."""
        return self.preset.epochs * (1 + sum(turn.restarts for turn in self.turns))

    def learning_rate(self, step: int) -> float:
        """At a step of the run."""
        starts = [turn.epoch * self.steps_per_epoch for turn in self.turns if turn.restarts]
        return float(self.schedule(step - max([0, *(start for start in starts if start <= step)])))

    @property
    def steps_per_epoch(self) -> int:
        """The same in every epoch."""
        return len(self.batches)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """[H, W, I]."""
        return self.dataset.train.image_shape

    def initial_state(self, seed: int, variables: Variables | None = None) -> TrainState:
        """Before the first step, on every device; by default with weights at random."""
        init_key, augment_key = jax.random.split(jax.random.key(seed))
        if variables is None:
            variables = jax.jit(self.model.init)(init_key, jnp.zeros((1, *self.image_shape)))
        return create(variables, self.optimizer, augment_key, self.mesh)

    def state_like(self, variables: Variables) -> TrainState:
        """Shapes of a state of variables that are shapes: of a checkpoint."""
        key = jax.random.key(0)
        shapes = jax.eval_shape(lambda variables: initial(variables, self.optimizer, key), variables)
        whole = replicated(self.mesh)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), shapes)


def prepare(
    config: Config,
    objective: Objective = CLASSIFICATION,
    turns: Sequence[Turn] = (),
    dataset: sources.Dataset | None = None,
) -> Setup:
    """Everything a run needs; nothing is written yet.

    Args:
      config: what defines the run.
      objective: what it minimises.
      turns: what changes the variables on the way.
      dataset: by default the one that the configuration names.

    Raises:
      InputError: for settings that cannot be.
    """
    for name in ("checkpoint_steps", "keep_last"):
        if getattr(config, name) < 1:
            raise InputError(f"{name}={getattr(config, name)}: expected more than 0")
    preset, mesh = config.completed_preset(), data_mesh()
    check_batch_size(preset.batch_size, mesh)
    dtype = jnp.bfloat16 if config.computes_in_bfloat16() else jnp.float32
    model = models.named(config.model, initialization=preset.initialization, dtype=dtype)
    dataset = dataset or load_dataset(config)
    if dataset.name != config.dataset:
        raise InputError(f"dataset={config.dataset}, and one by the name of {dataset.name}: expected one name for both")
    if taken := {"loss", "accuracy"} & objective.measures.keys():
        raise InputError(f"measure {min(taken)!r}: is reported already; choose another name")

    count, last = len(dataset.train), preset.keeps_last_batch
    plan = Batches(count, preset.batch_size, config.seed, keeps_last=last)
    if not len(plan):
        raise InputError(f"batch_size={preset.batch_size}: expected at most {count}, the training images")
    schedule = preset.schedule(preset.learning_rate, len(plan), preset.epochs)
    preprocess = preprocessing(dataset)
    return Setup(
        model=model.copy(num_classes=len(dataset.class_names)),
        dataset=dataset,
        preset=preset,
        mesh=mesh,
        schedule=schedule,
        optimizer=schedules.optimizer(preset, schedule),
        preprocess=preprocess,
        augment=_augmentation(preprocess, flips=dataset.flips),
        batches=plan,
        objective=objective,
        turns=tuple(turns),
    )


def load_dataset(config: Config) -> sources.Dataset:
    """The data set of a run; Raises InputError as `sources.load` does."""
    return sources.load(
        config.dataset,
        data_dir=config.data_dir,
        image_size=config.image_size,
        stream=config.stream,
        splits=(config.train_split, config.test_split),
    )


def preprocessing(dataset: sources.Dataset) -> Callable[[Array], Array]:
    """Stored pixels [B, H, W, I] uint8 -> [B, H, W, I] float32, by the data set's mean and deviation."""
    return functools.partial(normalize, mean=dataset.mean, deviation=dataset.deviation)


def calibration_batches(dataset: sources.Dataset, count: int, batch_size: int) -> list[Array]:
    """The first batches of the training images, as the network sees them when it is tested.

    Args:
      dataset: images and labels.
      count: of batches.
      batch_size: B.

    Returns:
      [B, H, W, I] float32, count times.

    Raises:
      InputError: where there are fewer training images, or none are asked for.
    """
    if count < 1 or batch_size < 1 or count * batch_size > len(dataset.train):
        raise InputError(
            f"{count} calibration batches of {batch_size}: expected at least one image, "
            f"at most {len(dataset.train)}, the training images"
        )
    preprocess = preprocessing(dataset)
    rows = np.arange(count * batch_size).reshape(count, batch_size)
    return [preprocess(jnp.asarray(images)) for images, _ in batches(dataset.train, lambda number: rows[number], count)]


def _augmentation(preprocess: Callable[[Array], Array], *, flips: bool) -> Augment:
    def augment(key: Array, images: Array) -> Array:
        crop_key, flip_key = jax.random.split(key)
        images = random_crop(crop_key, images)
        return preprocess(random_flip(flip_key, images) if flips else images)

    return augment
