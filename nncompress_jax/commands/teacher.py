"""What a run learns from beside its labels."""

from typing import Any

from nncompress_jax import load, models
from nncompress_jax.commands.initial import kind_of, trained_variables
from nncompress_jax.errors import InputError
from nncompress_jax.models.exits import without_exits
from nncompress_jax.training import checkpoint
from nncompress_jax.training import config as configuration
from nncompress_jax.training.config import Config
from nncompress_jax.training.objective import CLASSIFICATION, Objective, distilled
from nncompress_jax.types import Apply


def objective_of(config: Config) -> Objective:
    """What `loop.train` minimises.

    Args:
      config: its `teacher` and what goes with it are followed.

    Raises:
      InputError: where the teacher cannot be read, `self` has no network to begin with, and for hints in other words.
    """
    if config.teacher is None:
        if config.hints or config.teacher_model:
            raise InputError("--hints and --teacher_model need --teacher, the network that is learnt from")
        return CLASSIFICATION
    apply, variables = _teacher(config.teacher, config)
    hints = [_pair(text) for text in (config.hints or "").split(",") if text]
    return distilled(apply, variables, temperature=config.temperature, alpha=config.alpha, hints=hints)


def _teacher(place: str, config: Config) -> tuple[Apply, Any]:
    model: str | None
    if place == "self":
        if config.init is None:
            raise InputError("--teacher=self needs --init, the network as it was before this run")
        place, model = config.init, without_exits(config.model)
    else:
        model = config.teacher_model
    kind = kind_of(place)
    if kind == "compressed":
        loaded = load(place)
        return loaded.apply, loaded.variables
    if kind == "run":
        model = configuration.read(place).model
    model, variables = trained_variables(place, model)
    known = {"num_classes": checkpoint.load_progress(place).num_classes} if kind == "run" else {}
    return models.fitting(models.named(model, **known), variables).apply, variables


def _pair(text: str) -> tuple[str, str]:
    ours, between, theirs = text.partition(":")
    if not (ours and between and theirs):
        raise InputError(
            f"hint {text!r}: expected STUDENT:TEACHER, paths of weights, as params/Conv_5/kernel:params/..."
        )
    return ours, theirs
