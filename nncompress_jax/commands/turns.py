"""Recipes in several turns, each followed by training: words, and what the loop makes of them."""

import dataclasses
import functools

import jax.numpy as jnp

from nncompress_jax import models
from nncompress_jax.errors import InputError
from nncompress_jax.recipes import compress, recipe
from nncompress_jax.training.config import Config
from nncompress_jax.training.setup import load_dataset
from nncompress_jax.training.turns import Turn
from nncompress_jax.types import Variables

GRADUAL = ("prune", "prune_global")
"""Words of recipes whose number may be reached step by step."""

SHARE_OF_EPOCHS = 2 / 3
"""Of a turn, in which a gradual schedule reaches its end."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A recipe, and before which epoch of the run it is followed.

    Attributes:
      epoch: counted from 0.
      text: of `recipe`.
      restarts: whether the schedule of the learning rate begins anew.
    """

    epoch: int
    text: str
    restarts: bool


def stages(text: str, epochs: int) -> list[Stage]:
    """Turns in words.

    Args:
      text: recipes divided by `/`, each followed by training; `prune:0.9@cubic` is reached step by step.
      epochs: of each turn.

    Returns:
      In the order of their epochs; the first is for epoch 0.

    Raises:
      InputError: for what cannot be reached step by step.

    Example:
      >>> [(stage.epoch, stage.text) for stage in stages("prune:0.6/dense", epochs=2)]
      [(0, 'prune:0.6'), (2, 'dense')]
      >>> [(stage.epoch, stage.text) for stage in stages("prune:0.8@cubic", epochs=3)]
      [(0, 'prune:0.7'), (1, 'prune:0.8')]

    Source: in turns: Han et al. 2015, "Learning both Weights and Connections"; `dense`: Han et al. 2017, "DSD"; a
    schedule that restarts: Renda et al. 2020, "Comparing Rewinding and Fine-tuning"; cubic: Zhu and Gupta 2018, "To
    Prune, or Not to Prune", section 3.
    """
    result = []
    for number, turn in enumerate(text.split("/")):
        first = number * epochs
        for within, words in enumerate(_gradual(turn, epochs) if "@" in turn else [turn]):
            result.append(Stage(first + within, words, restarts=within == 0))
    return result


def turns_of(config: Config) -> list[Turn]:
    """What happens after the first turn of a run's recipe; what happens before the run: `initial_variables`."""
    if config.recipe is None:
        return []
    _, *others = stages(config.recipe, config.completed_preset().epochs)
    return [Turn(stage.epoch, functools.partial(compressed, config, stage), stage.restarts) for stage in others]


def compressed(config: Config, stage: Stage, variables: Variables) -> Variables:
    """Variables of a run's network, as a stage's training begins with them."""
    dataset = load_dataset(config)
    image = jnp.zeros((1, *dataset.train.image_shape))
    network = models.fitting(models.named(config.model, num_classes=len(dataset.class_names)), variables)
    return compress(variables, recipe(stage.text), apply=network.apply, batches=[image])


def _gradual(turn: str, epochs: int) -> list[str]:
    """Recipes for the first epochs of a turn: final (1 - (1 - share of the way)^3)."""
    words, _, schedule = turn.partition("@")
    word, _, number = words.partition(":")
    if schedule != "cubic" or word not in GRADUAL or "+" in turn:
        raise InputError(f"{turn!r}: expected a turn of {' or '.join(GRADUAL)} alone, as prune:0.9@cubic")
    try:
        final = float(number or 0.9)
    except ValueError:
        raise InputError(f"{turn!r}: expected a number, as in prune:0.9@cubic") from None
    count = max(1, round(epochs * SHARE_OF_EPOCHS))
    return [f"{word}:{final * (1 - (1 - (step + 1) / count) ** 3):.6g}" for step in range(count)]
