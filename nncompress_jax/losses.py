"""Losses of classification and of distillation: pure functions of outputs, labels and features."""

import jax
import jax.numpy as jnp

from nncompress_jax.errors import InputError
from nncompress_jax.types import Array

__all__ = ["attention_transfer", "cross_entropy", "distillation", "hint", "last", "noisy"]


def last(outputs: Array | tuple[Array, ...]) -> Array:
    """The logits of a network: of one with early exits, those of its end.

    Args:
      outputs: [B, C], or a tuple of them.

    Example:
      >>> last((jnp.zeros((1, 2)), jnp.ones((1, 2)))).tolist()
      [[1.0, 1.0]]
    """
    return outputs[-1] if isinstance(outputs, tuple) else outputs


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Mean cross entropy of classes.

    Args:
      logits: [B, C] float; in lower precision than float32 they are summed in float32.
      labels: [B] whole numbers.

    Returns:
      [] float, in nats.

    Raises:
      InputError: for other shapes.

    Example:
      >>> cross_entropy(jnp.zeros((3, 4)), jnp.array([0, 1, 3])).round(3).item()  # the logarithm of 4
      1.3860000371932983
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise InputError(f"logits {list(logits.shape)}, labels {list(labels.shape)}: expected [B, C] and [B]")
    logs = jax.nn.log_softmax(_wide(logits))
    return -jnp.take_along_axis(logs, labels[:, None], -1).mean()


def distillation(
    student_logits: Array, teacher_logits: Array, labels: Array, *, temperature: float = 4.0, alpha: float = 0.9
) -> Array:
    """What a student learns from a teacher's logits, and from labels.

    alpha T^2 KL(softmax(teacher / T) || softmax(student / T)) + (1 - alpha) cross entropy. T^2 keeps the gradients of
    the first term as large as those of the second, whatever T is.

    Args:
      student_logits: [B, C] float.
      teacher_logits: [B, C] float; no gradient reaches them.
      labels: [B] whole numbers.
      temperature: T; the higher, the more counts what the teacher says of wrong classes.
      alpha: share of the teacher, in [0, 1].

    Returns:
      [] float, in nats; 0 only where the student says what the teacher says, or the labels.

    Raises:
      InputError: for logits of other classes, and numbers out of range.

    Example:
      >>> logits = jnp.array([[2.0, 0.0], [0.0, 1.0]])
      >>> distillation(logits, logits, jnp.array([0, 1]), alpha=1.0).item()
      0.0

    Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", section 2.
    """
    if student_logits.shape != teacher_logits.shape:
        found = f"{list(student_logits.shape)} and {list(teacher_logits.shape)}"
        raise InputError(f"logits of student and teacher are {found}: expected the same classes")
    check_weights(temperature, alpha)
    student, teacher = (
        _wide(logits) / temperature for logits in (student_logits, jax.lax.stop_gradient(teacher_logits))
    )
    logs = jax.nn.log_softmax(teacher)
    divergence = (jnp.exp(logs) * (logs - jax.nn.log_softmax(student))).sum(-1).mean()
    return alpha * temperature**2 * divergence + (1 - alpha) * cross_entropy(student_logits, labels)


def check_weights(temperature: float, alpha: float) -> None:
    """Raises InputError for what `distillation` does not take."""
    if not temperature > 0 or not 0 <= alpha <= 1:
        raise InputError(f"temperature={temperature}, alpha={alpha}: expected a temperature above 0, alpha in [0, 1]")


def hint(student: Array, teacher: Array, regressor: Array | None = None) -> Array:
    """Mean squared distance between features of a student and a teacher.

    Args:
      student: [B, ..., S] float.
      teacher: [B, ..., T] float; no gradient reaches it.
      regressor: [S, T] float, trained with the student, where its channels are others: the distance is that of
        student @ regressor.

    Returns:
      [] float.

    Raises:
      InputError: for features of other sizes.

    Example:
      >>> hint(jnp.ones((2, 3)), jnp.zeros((2, 4)), jnp.ones((3, 4))).item()
      9.0

    Source: Romero et al. 2015, "FitNets: Hints for Thin Deep Nets", section 2.2.
    """
    student, teacher = _wide(student), jax.lax.stop_gradient(_wide(teacher))
    if regressor is not None:
        if regressor.shape != (student.shape[-1], teacher.shape[-1]):
            sizes = f"{student.shape[-1]} channels to {teacher.shape[-1]}"
            raise InputError(f"the regressor is {list(regressor.shape)}: expected a matrix of {sizes}")
        student = student @ regressor
    if student.shape != teacher.shape:
        raise InputError(
            f"hints of student and teacher are {list(student.shape)} and {list(teacher.shape)}: expected the same "
            "sizes; choose other layers, or give a regressor, [channels of the student, channels of the teacher]"
        )
    return jnp.square(student - teacher).mean()


def attention_transfer(student: Array, teacher: Array) -> Array:
    """Squared distance between where a student and a teacher are active, whatever channels they have.

    Args:
      student: [B, H, W, S] float, or of other places than H, W.
      teacher: [B, H, W, T] float; no gradient reaches it.

    Returns:
      [] float: the mean over examples of |s / |s| - t / |t||^2, where s and t are the sums of squares over channels.

    Raises:
      InputError: for features of other places.

    Example:
      >>> images = jnp.arange(16.0).reshape(1, 2, 2, 4)
      >>> attention_transfer(images, jnp.concatenate([images, images], -1)).item()
      0.0

    Source: Zagoruyko and Komodakis 2017, "Paying More Attention to Attention", section 3.1.
    """
    if student.shape[:-1] != teacher.shape[:-1]:
        found = f"{list(student.shape)} and {list(teacher.shape)}"
        raise InputError(f"features of student and teacher are {found}: expected the same sizes but for channels")
    maps = [_attention(features) for features in (student, jax.lax.stop_gradient(teacher))]
    return jnp.square(maps[0] - maps[1]).sum(-1).mean()


def noisy(teacher_logits: Array, key: Array, *, deviation: float = 0.1, share: float = 0.5) -> Array:
    """A teacher that is wrong at random, as several teachers would be.

    Args:
      teacher_logits: [B, C] float.
      key: PRNG key, another for each step.
      deviation: of the noise z, whose (1 + z) multiplies the logits of an example.
      share: of the examples that are perturbed, at random, in [0, 1].

    Returns:
      [B, C].

    Example:
      >>> noisy(jnp.ones((4, 2)), jax.random.key(0), share=0.0).tolist() == jnp.ones((4, 2)).tolist()
      True

    Source: Sau and Balasubramanian 2016, "Deep Model Compression: Distilling Knowledge from Noisy Teachers".
    """
    chosen, noise = jax.random.split(key)
    examples = teacher_logits.shape[:1]
    z = deviation * jax.random.normal(noise, examples) * jax.random.bernoulli(chosen, share, examples)
    return (teacher_logits * (1 + z[:, None])).astype(teacher_logits.dtype)


def _attention(features: Array) -> Array:
    """[B, places], each example of length one."""
    energy = jnp.square(_wide(features)).sum(-1).reshape(len(features), -1)
    return energy / jnp.maximum(jnp.linalg.norm(energy, axis=-1, keepdims=True), 1e-12)


def _wide(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
