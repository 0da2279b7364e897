"""Testing: every image of a split exactly once, on any number of devices."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from nncompress_jax import losses
from nncompress_jax.bars import tracked
from nncompress_jax.data.split import Split
from nncompress_jax.data.stream import batches
from nncompress_jax.errors import InputError
from nncompress_jax.tracing.injection import inject
from nncompress_jax.training.mesh import by_example, data_mesh, own_share, place, replicated
from nncompress_jax.training.objective import Measure
from nncompress_jax.types import Apply, Array, Variables


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a network does on a split.

    Attributes:
      confusion: [C, C] int64, examples by true class (rows) and predicted class (columns).
      loss: mean cross entropy in nats.
      images_per_second: compilation left out.
      measures: means over the images, by name, of what was asked for beside.
    """

    confusion: np.ndarray
    loss: float
    images_per_second: float
    measures: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def count(self) -> int:
        """Examples."""
        return int(self.confusion.sum())

    @property
    def correct(self) -> int:
        """Examples whose largest logit is their class's."""
        return int(self.confusion.trace())

    @property
    def accuracy(self) -> float:
        """Fraction from 0 to 1."""
        return self.correct / self.count


def evaluate(
    apply: Apply,
    variables: Variables,
    split: Split,
    preprocess: Callable[[Array], Array],
    *,
    batch_size: int = 100,
    mesh: Mesh | None = None,
    description: str | None = None,
    between: Callable[[], None] = lambda: None,
    measures: Mapping[str, Measure] | None = None,
) -> Evaluation:
    """Accuracy, confusion and loss on a split.

    A batch is filled up by repeating its last image, which counts once: what apply computes over a whole batch
    (the ranges of `methods.minmax.simulate`) is then what it would be without the filling.

    Args:
      apply: of (variables, images) -> logits [B, C], or a tuple of them, whose last counts; the variables may be
        compressed.
      variables: the network's.
      split: images and labels.
      preprocess: [B, H, W, I] uint8 -> the network's input.
      batch_size: B, over all devices.
      mesh: of `mesh.data_mesh`, by default over all devices.
      description: shown in a progress bar; without it there is none.
      between: called after each batch; what it raises ends the test.
      measures: by name, of (outputs, labels [B]) -> [B]: what else is averaged over the images.

    Raises:
      InputError: for an empty split, a batch size below 1, and labels that are not among the network's classes.
    """
    mesh = mesh or data_mesh()
    if batch_size < 1 or not len(split):
        raise InputError(f"batch_size={batch_size}, {len(split)} images: expected at least one of each")
    share = by_example(mesh)
    variables = jax.device_put(variables, replicated(mesh))
    program = _program(apply, preprocess, mesh, tuple((measures or {}).items()))

    filled_size = -(-batch_size // mesh.size) * mesh.size
    own = own_share(filled_size, mesh)

    def rows_of(number: int) -> np.ndarray:
        rows = np.arange(number * batch_size, number * batch_size + filled_size)[own]
        return np.minimum(rows, min((number + 1) * batch_size, len(split)) - 1)

    def counted(number: int) -> np.ndarray:
        return np.arange(filled_size)[own] < min(batch_size, len(split) - number * batch_size)

    results: list[Predictions] = []
    total = Totals(np.zeros((0, 0), np.int64), 0.0, {})
    begin = time.perf_counter()
    count = -(-len(split) // batch_size)
    with contextlib.closing(batches(split, rows_of, count)) as read:
        shown = tracked(read, description, total=count) if description else read
        for number, (images, labels) in enumerate(shown):
            if number == 1:  # the first batch waited for the compiler
                jax.block_until_ready(results)
                begin = time.perf_counter()
            results.append(program(variables, *place((images, labels, counted(number)), share)))
            if number:  # one batch runs while the next is made ready
                total = _added(total, results.pop(0))
            between()
    total = _added(total, results.pop())
    timed = max(len(split) - batch_size, min(len(split), batch_size))
    rate = timed / (time.perf_counter() - begin)
    means = {name: value / len(split) for name, value in total.measures.items()}
    return Evaluation(total.confusion, total.loss / len(split), rate, means)


class Predictions(NamedTuple):
    """Of a batch.

    Attributes:
      labels: [B] int32, true classes.
      predicted: [B] int32.
      losses: [B] float32, in nats.
      counted: [B] bool; the others fill up the batch.
      num_classes: [] int32, C.
      measures: [B] each, by name.
    """

    labels: Array
    predicted: Array
    losses: Array
    counted: Array
    num_classes: Array
    measures: dict[str, Array]


class Totals(NamedTuple):
    """Over batches: the confusion, and sums over the images."""

    confusion: np.ndarray
    loss: float
    measures: dict[str, float]


def _added(total: Totals, batch: Predictions) -> Totals:
    """With a batch more."""
    labels, predicted, losses, counted, num_classes = (np.asarray(part) for part in batch[:5])
    if labels.min() < 0 or labels.max() >= num_classes:
        found = f"labels from {labels.min()} to {labels.max()}"
        raise InputError(f"{found}, {num_classes} logits: expected labels from 0 to {num_classes - 1}")
    confusion = total.confusion if total.confusion.size else np.zeros((num_classes, num_classes), np.int64)
    np.add.at(confusion, (labels[counted], predicted[counted]), 1)

    def summed(values: Any) -> float:
        return float(np.asarray(values)[counted].sum(dtype=np.float64))

    measures = {name: total.measures.get(name, 0.0) + summed(values) for name, values in batch.measures.items()}
    return Totals(confusion, total.loss + summed(losses), measures)


@functools.lru_cache(maxsize=4)
def _program(
    apply: Apply, preprocess: Callable[[Array], Array], mesh: Mesh, measures: tuple[tuple[str, Measure], ...]
) -> Callable[..., Predictions]:
    """The jitted prediction of a batch; the tests after each epoch share one."""
    apply = inject(apply, fast=True)

    def predict(variables: Variables, images: Array, labels: Array, counted: Array) -> Predictions:
        outputs = apply(variables, preprocess(images))
        logits = losses.last(outputs).astype(jnp.float32)
        each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        predicted = logits.argmax(-1).astype(jnp.int32)
        others = {name: of(outputs, labels) for name, of in measures}
        return Predictions(labels, predicted, each, counted, jnp.int32(logits.shape[-1]), others)

    whole, share = replicated(mesh), by_example(mesh)
    return jax.jit(
        predict,
        in_shardings=(whole, share, share, share),
        out_shardings=whole,
    )
