"""What training minimises: a classification loss, with or without a teacher."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from nncompress_jax import losses
from nncompress_jax.errors import InputError
from nncompress_jax.tracing.injection import inject, observe
from nncompress_jax.types import Apply, Array, Variables

Hints = Sequence[tuple[str, str]]
"""(weight of the student, weight of the teacher), by path: what enters them is to be the same."""


Measure = Callable[[Any, Array], Array]
"""(outputs of the network, labels [B]) -> [B], of each example; what is reported is the mean over all examples."""


class Loss(Protocol):
    """A loss of one batch."""

    def __call__(
        self, logits: Array, labels: Array, *, inputs: Any, features: Mapping[str, Array], given: Any
    ) -> Array:
        """Of a batch.

        Args:
          logits: the network's outputs, in float32 at least.
          labels: the batch's.
          inputs: what the network was called with.
          features: by path of a weight, what enters it, for the objective's `features`.
          given: the objective's, on the devices.

        Returns:
          [] float.
        """


@dataclasses.dataclass(frozen=True)
class Objective:
    """A loss, and what it needs.

    Attributes:
      loss: of one batch.
      features: paths of weights whose inputs it looks at.
      given: arrays that are neither trained nor stored, as the variables of a teacher.
      measures: by name, what is reported beside loss and accuracy, in training and in tests.
    """

    loss: Loss
    features: tuple[str, ...] = ()
    given: Any = None
    measures: Mapping[str, Measure] = dataclasses.field(default_factory=dict)

    def running(self, apply: Apply) -> Apply:
        """The network as `loss` needs it: its outputs, and by path what enters the weights of `features`."""
        return with_features(apply, self.features)

    def of(
        self,
        outputs: Array | tuple[Array, ...],
        labels: Array,
        *,
        inputs: Any,
        features: Mapping[str, Array],
        given: Any,
    ) -> Array:
        """The loss; of a network with early exits, the mean of the losses of all exits.

        Args:
          outputs: the network's: logits, or a tuple of them.
          labels: as of `loss`.
          inputs: likewise.
          features: likewise.
          given: likewise.
        """
        exits = outputs if isinstance(outputs, tuple) else (outputs,)
        each = [self.loss(logits, labels, inputs=inputs, features=features, given=given) for logits in exits]
        return sum(each[1:], each[0]) / len(each)


def of_outputs(loss: Callable[[Array, Array], Array]) -> Objective:
    """An objective of (logits, labels) alone.

    Example:
      >>> round(of_outputs(losses.cross_entropy).loss(
      ...     jnp.zeros((1, 2)), jnp.array([1]), inputs=None, features={}, given=None).item(), 4)
      0.6931
    """
    return Objective(lambda logits, labels, *, inputs, features, given: loss(logits, labels))


CLASSIFICATION = of_outputs(losses.cross_entropy)


def distilled(
    teacher: Apply,
    variables: Variables,
    *,
    temperature: float = 4.0,
    alpha: float = 0.9,
    hints: Hints = (),
    hint_weight: float = 1.0,
) -> Objective:
    """Learning from a teacher, which runs beside the student, in the same program and on the same images.

    Args:
      teacher: of (variables, inputs) to logits, in inference.
      variables: the teacher's; they may be compressed.
      temperature: as of `losses.distillation`.
      alpha: likewise.
      hints: features of the student that are to be those of the teacher.
      hint_weight: of each of them.

    Raises:
      InputError: for numbers out of range.

    Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network"; hints: Romero et al. 2015, "FitNets";
    students that train through quantization: Polino et al. 2018, "Model Compression via Distillation and Quantization".
    """
    losses.check_weights(temperature, alpha)
    run = with_features(teacher, [theirs for _, theirs in hints])

    def loss(logits: Array, labels: Array, *, inputs: Any, features: Mapping[str, Array], given: Any) -> Array:
        answers, seen = jax.lax.stop_gradient(run(given, inputs))
        value = losses.distillation(logits, losses.last(answers), labels, temperature=temperature, alpha=alpha)
        for ours, theirs in hints:
            value += hint_weight * losses.hint(features[ours], seen[theirs])
        return value

    return Objective(loss, tuple(ours for ours, _ in hints), variables)


def check(objective: Objective, apply: Apply, variables: Variables, image_shape: tuple[int, ...]) -> None:
    """Raises InputError where the loss cannot be computed for a network: other classes, other sizes of hints."""

    def once(variables: Any, given: Any) -> Array:
        images = jnp.zeros((2, *image_shape))
        outputs, features = objective.running(apply)(variables, images)
        labels = jnp.zeros(2, jnp.int32)
        return objective.of(outputs, labels, inputs=images, features=features, given=given)

    if objective is CLASSIFICATION:
        return
    try:
        jax.eval_shape(once, variables, objective.given)
    except InputError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        raise InputError(
            f"the loss cannot be computed for images {list(image_shape)} ({reason}); expected a teacher of the "
            "student's images"
        ) from error


def with_features(apply: Apply, paths: Sequence[str]) -> Apply:
    """A network to (its outputs, {path: what enters the weight there}).

    Raises:
      InputError: (when called) for a path whose weight multiplies nothing.
    """
    if not paths:
        run = inject(apply, fast=True)
        return lambda *args, **kwargs: (run(*args, **kwargs), {})
    observed = observe(apply, lambda path, inputs: inputs if path in paths else None)

    def featured(*args: Any, **kwargs: Any) -> Any:
        outputs, seen = observed(*args, **kwargs)
        if missing := [path for path in paths if path not in seen]:
            known = ", ".join(list(seen)[:4])
            raise InputError(f"hint {missing[0]}: no weight that multiplies data; expected a path as {known}")
        return outputs, {path: seen[path][0].value for path in paths}

    return featured
