"""Images made from a trained network alone, for calibration and distillation without data."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nncompress_jax.bars import bar
from nncompress_jax.errors import InputError
from nncompress_jax.leaves import check_there
from nncompress_jax.losses import cross_entropy
from nncompress_jax.tracing.entering import Entering, entering, leaves_of
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Apply, Array

CLASSES = 0.1
"""The weight of the cross entropy beside the distance of the statistics."""

SPREAD = 1e-5
"""What is added to variances, so that channels that are always of one value count little."""


@dataclasses.dataclass(frozen=True)
class _Settings:
    """As of `synthetic_images`."""

    steps: int
    learning_rate: float
    smoothness: float
    shift: int
    flips: bool


def synthetic_images(
    apply: Apply,
    variables: Any,
    count: int,
    *,
    shape: Sequence[int],
    labels: Literal["random"] | Sequence[int] | None = "random",
    steps: int = 200,
    batch_size: int = 128,
    learning_rate: float = 0.1,
    smoothness: float = 0.1,
    shift: int = 1,
    flips: bool = False,
    seed: int = 0,
) -> Array:
    """Images on which the batch normalizations of a network see the statistics that they saw in training.

    They serve as `batches=` where no data are at hand: for static ranges, second-order rounding, and as what a student
    is trained on. Noise is changed by Adam, batch by batch, until the mean and the variance of what enters each
    normalization are those that the variables hold, and the network sees the classes that were drawn.

    Args:
      apply: the network in inference: of (variables, images [B, H, W, I]) to logits [B, C].
      variables: trained, and not folded; of any types: compressed weights count as the dense arrays.
      count: of images.
      shape: of one image, [H, W, I].
      labels: classes [count] of the images; "random": each class as often; None: classes do not matter, and apply may
        return anything.
      steps: of Adam, for each batch.
      batch_size: images that are changed together, two at least; in memory are the activations of so many. The
        statistics are those of a batch, so larger ones leave the images freer.
      learning_rate: in the unit of the images; it falls to zero along half a cosine.
      smoothness: weight of the mean squared difference of neighbouring pixels.
      shift: by how many pixels, at most, the images of a batch are shifted round before each step, at random.
      flips: whether they are mirrored before a step, at random; for networks that were trained so.
      seed: of noise, classes and shifts. The same seed gives the same images on one machine.

    Returns:
      [count, H, W, I] float32, in the scale of the network's inputs: normalized, where its images were.

    Raises:
      InputError: for a network without batch normalization; numbers out of range; a shape that the network does not
        take; labels that do not fit; and where the loss is not finite.

    Example:
      >>> leaves = {"w": jnp.ones((1, 1)), "mean": jnp.array([3.0]), "var": jnp.array([0.25])}
      >>> apply = lambda tree, x: (x @ tree["w"] - tree["mean"]) / jnp.sqrt(tree["var"] + 1e-5)
      >>> images = synthetic_images(apply, leaves, 8, shape=(4, 4, 1), labels=None, smoothness=0.0)
      >>> images.shape, round(float(images.mean()), 2), round(float(images.std()), 2)
      ((8, 4, 4, 1), 3.0, 0.5)

    Source: Haroush et al. 2020, "The Knowledge Within: Methods for Data-Free Model Compression" (the distance of the
    statistics); Yin et al. 2020, "Dreaming to Distill: Data-free Knowledge Transfer via DeepInversion", section 3.2
    (classes, smoothness, shifts); Cai et al. 2020, "ZeroQ: A Novel Zero Shot Quantization Framework".
    """
    settings = _Settings(steps, learning_rate, smoothness, shift, flips)
    shape = _checked_shape(shape)
    _check(count, batch_size, settings)
    batches = -(-count // batch_size)
    size = max(-(-count // batches), 2)
    network = entering(apply, variables, jax.ShapeDtypeStruct((size, *shape), jnp.float32))
    if not network.found:
        raise InputError(
            "the program holds no batch normalization, whose statistics synthetic_images needs; use real inputs"
        )
    check_there(named_leaves(variables))
    key = jax.random.key(seed)
    classes = _classes(labels, count, network, key)
    adam = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    leaves, step = leaves_of(variables), _step(network, settings, adam)

    made = []
    with bar("synthetic images", batches * steps) as advance:
        for batch in range(batches):
            noise, moves = jax.random.split(jax.random.fold_in(key, batch))
            images = jax.random.normal(noise, (size, *shape), jnp.float32)
            state = adam.init(images)
            given = None if classes is None else jnp.asarray(np.resize(classes[batch * size :], size))
            for turn in range(steps):
                images, state, loss = step(leaves, images, state, given, jax.random.fold_in(moves, turn))
                _check_finite(float(loss), turn, learning_rate)
                advance()
            made.append(images)
    return jnp.concatenate(made)[:count]


def _check_finite(loss: float, turn: int, learning_rate: float) -> None:
    if not math.isfinite(loss):
        raise InputError(
            f"synthetic_images: the loss is {loss} at step {turn}; give finite variables, or a smaller learning_rate= "
            f"than {learning_rate:g}"
        )


def _step(network: Entering, settings: _Settings, adam: optax.GradientTransformation) -> Callable[..., Any]:
    """One step, compiled: of (leaves, images, state of the optimizer, classes, key)."""

    def loss(images: Array, leaves: Sequence[Any], classes: Array | None, key: Array) -> Array:
        outputs, statistics = network(leaves, _moved(key, images, settings))
        total = settings.smoothness * _roughness(images)
        for batch, stored in zip(statistics, network.stored(leaves), strict=True):
            total += _divergence(batch, stored)
        if classes is not None:
            total += CLASSES * cross_entropy(outputs[0], classes)
        return total

    def step(leaves: Any, images: Array, state: Any, classes: Any, key: Array) -> Any:
        value, gradient = jax.value_and_grad(loss)(images, leaves, classes, key)
        updates, state = adam.update(gradient, state)
        return optax.apply_updates(images, updates), state, value

    return jax.jit(step, donate_argnums=(1, 2))


def _divergence(batch: tuple[Array, Array], stored: tuple[Array, Array]) -> Array:
    """Of normal distributions (Kullback-Leibler), the mean over channels, in nats."""
    mean, variance = (numbers.astype(jnp.float32) for numbers in batch)
    stored_mean, stored_variance = (numbers.astype(jnp.float32) for numbers in stored)
    ratio = (variance + SPREAD) / (stored_variance + SPREAD)
    apart = jnp.square(mean - stored_mean) / (stored_variance + SPREAD)
    return (apart + ratio - 1 - jnp.log(ratio)).mean() / 2


def _roughness(images: Array) -> Array:
    """Mean squared difference of neighbouring pixels, down and across."""
    pairs = [(images[:, 1:], images[:, :-1]), (images[:, :, 1:], images[:, :, :-1])]
    return sum((jnp.square(one - other).mean() for one, other in pairs if one.size), jnp.zeros(()))


def _moved(key: Array, images: Array, settings: _Settings) -> Array:
    """The images, all shifted round by one number of pixels each way, and mirrored or not."""
    shift_key, flip_key = jax.random.split(key)
    if settings.shift:
        by = jax.random.randint(shift_key, (2,), -settings.shift, settings.shift + 1)
        images = jnp.roll(images, by, (1, 2))
    if settings.flips:
        images = jnp.where(jax.random.bernoulli(flip_key), images[:, :, ::-1], images)
    return images


def _classes(labels: Any, count: int, network: Entering, key: Array) -> np.ndarray | None:
    """[count] int32; None: they do not matter."""
    if labels is None:
        return None
    outputs = [atom.aval for atom in network.program.program.jaxpr.outvars]
    if len(outputs) != 1 or outputs[0].ndim != 2:
        found = ", ".join(str(list(output.shape)) for output in outputs)
        raise InputError(f"apply returns {found}: expected logits [B, C]; give labels=None, and classes do not matter")
    most = outputs[0].shape[1]
    if isinstance(labels, str):
        if labels != "random":
            raise InputError(f"labels={labels!r}: expected 'random', classes of the images, or None")
        return np.asarray(jax.random.permutation(jax.random.fold_in(key, count), jnp.arange(count) % most))
    classes = np.asarray(labels)
    if classes.shape != (count,) or classes.dtype.kind not in "iu" or not ((classes >= 0) & (classes < most)).all():
        raise InputError(
            f"labels={classes.dtype}{list(classes.shape)}: expected {count} whole numbers from 0 to {most - 1}, one "
            "for each image"
        )
    return classes.astype(np.int32)


def _checked_shape(shape: Any) -> tuple[int, int, int]:
    sizes = tuple(shape) if isinstance(shape, Sequence) else (shape,)
    if len(sizes) != 3 or not all(isinstance(size, int | np.integer) and size > 0 for size in sizes):
        raise InputError(f"shape={shape!r}: expected that of one image, (height, width, channels), as (32, 32, 3)")
    return int(sizes[0]), int(sizes[1]), int(sizes[2])


def _check(count: int, batch_size: int, settings: _Settings) -> None:
    least = {"count": (count, 1), "batch_size": (batch_size, 2), "steps": (settings.steps, 1)}
    least |= {"shift": (settings.shift, 0)}
    for name, (number, fewest) in least.items():
        if not isinstance(number, int | np.integer) or number < fewest:
            raise InputError(f"{name}={number!r}: expected a whole number of at least {fewest}")
    if not settings.learning_rate > 0:
        raise InputError(f"learning_rate={settings.learning_rate!r}: expected more than 0")
    if not settings.smoothness >= 0:
        raise InputError(f"smoothness={settings.smoothness!r}: expected 0 or more")
