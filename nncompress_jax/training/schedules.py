"""Recipes: how long, in what batches and by which optimizer a network is trained."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import optax

from nncompress_jax.errors import InputError
from nncompress_jax.types import Array
from nncompress_jax.weights import optimizer as optimizers
from nncompress_jax.weights.parts import decays

WEIGHT_DECAY = 5e-4
MOMENTUM = 0.9


@dataclasses.dataclass(frozen=True)
class Preset:
    """A preset's own choices; the command line may override the first three.

    Attributes:
      epochs: passes over the training images.
      batch_size: B, over all devices.
      learning_rate: the highest.
      schedule: (learning rate, steps per epoch, epochs) -> learning rate by step.
      nesterov: look-ahead momentum.
      decays: whether weight decay (L2, added to the gradient) reaches a parameter; compressed weights say it
        themselves.
      keeps_last_batch: an epoch ends with what is left over, as a smaller batch, instead of leaving it out.
      initialization: of the network.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    schedule: Callable[[float, int, int], optax.Schedule]
    nesterov: bool
    decays: Callable[[Array], bool]
    keeps_last_batch: bool
    initialization: Literal["he", "seed"]


def divided_after_100_epochs(learning_rate: float, steps_per_epoch: int, epochs: int) -> optax.Schedule:
    """The original project's: constant, then a tenth of it after 100 epochs.

    Example:
      >>> rate = divided_after_100_epochs(0.1, steps_per_epoch=10, epochs=200)
      >>> round(float(rate(999)), 4), round(float(rate(1000)), 4)
      (0.1, 0.01)
    """
    del epochs
    return optax.piecewise_constant_schedule(learning_rate, {100 * steps_per_epoch: 0.1})


def one_cycle(learning_rate: float, steps_per_epoch: int, epochs: int) -> optax.Schedule:
    """Up to the learning rate over the first quarter of all steps, and down to nearly zero, by half cosines.

    Source: Smith and Topin 2017, "Super-Convergence".

    Example:
      >>> rate = one_cycle(0.4, steps_per_epoch=10, epochs=10)
      >>> round(float(rate(25)), 4)
      0.4
    """
    return optax.cosine_onecycle_schedule(steps_per_epoch * epochs, learning_rate, pct_start=0.25)


PRESETS = {
    "seed": Preset(
        epochs=200,
        batch_size=128,
        learning_rate=0.1,
        schedule=divided_after_100_epochs,
        nesterov=False,
        decays=lambda parameter: True,
        keeps_last_batch=True,
        initialization="seed",
    ),
    "fast": Preset(
        epochs=30,
        batch_size=128,
        learning_rate=0.1,
        schedule=one_cycle,
        nesterov=True,
        decays=lambda parameter: parameter.ndim > 1,
        keeps_last_batch=False,
        initialization="he",
    ),
}
"""`seed` is the original project's preset. What remains different: batch norm keeps the running variance of the batch
as it is (torch: times n / (n - 1)). `fast` is ours.
"""


def preset(name: str) -> Preset:
    """A preset by name.

    Raises:
      InputError: for a name that is not there.
    """
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def optimizer(preset: Preset, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Stochastic gradient descent with momentum and weight decay.

    Args:
      preset: says what decays, and which momentum.
      schedule: learning rate by step.

    Example:
      >>> import jax.numpy as jnp
      >>> sgd = optimizer(PRESETS["seed"], optax.constant_schedule(0.1))
      >>> params = {"kernel": jnp.ones(1)}
      >>> updates, _ = sgd.update({"kernel": jnp.ones(1)}, sgd.init(params), params)
      >>> round(updates["kernel"].item(), 6)  # -0.1 (1 + 5e-4)
      -0.10005
    """
    decay = optax.add_decayed_weights(WEIGHT_DECAY, mask=lambda params: decays(params, preset.decays))
    return optimizers.optimizer(optax.chain(decay, optax.sgd(schedule, momentum=MOMENTUM, nesterov=preset.nesterov)))
