"""Losses of distillation against torch, numpy and what must hold of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from nncompress_jax import InputError, losses

RANDOM = np.random.default_rng(0)
STUDENT, TEACHER = (RANDOM.standard_normal((16, 5)).astype(np.float32) * 3 for _ in range(2))
LABELS = RANDOM.integers(0, 5, 16)


def expected(temperature, alpha):
    """In float64, by the formula of the source."""
    student, teacher = STUDENT.astype(np.float64), TEACHER.astype(np.float64)
    soft = scipy.special.softmax(teacher / temperature, -1)
    logs = scipy.special.log_softmax(student / temperature, -1)
    divergence = (soft * (np.log(soft) - logs)).sum(-1).mean()
    hard = -scipy.special.log_softmax(student, -1)[np.arange(16), LABELS].mean()
    return alpha * temperature**2 * divergence + (1 - alpha) * hard


@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 1.0), (4.0, 0.9), (20.0, 0.0), (0.5, 0.3)])
def test_distillation(temperature, alpha):
    found = losses.distillation(STUDENT, TEACHER, LABELS, temperature=temperature, alpha=alpha)
    np.testing.assert_allclose(found, expected(temperature, alpha), rtol=1e-5)


def test_gradients_reach_the_student_alone():
    def loss(student, teacher):
        return losses.distillation(student, teacher, LABELS) + losses.hint(student, teacher)

    student, teacher = jax.grad(loss, (0, 1))(jnp.asarray(STUDENT), jnp.asarray(TEACHER))
    assert jnp.abs(student).max() > 0
    assert not teacher.any()


def test_high_temperatures_match_logits():
    """Those of half the squared distance of centred logits, but for logits / T: Hinton et al. 2015, section 2.1."""
    student, teacher = (x - x.mean(-1, keepdims=True) for x in (STUDENT, TEACHER))
    found = jax.grad(lambda x: losses.distillation(x, teacher, LABELS, temperature=1e3, alpha=1.0))(student)
    np.testing.assert_allclose(found, (student - teacher) / 5 / 16, rtol=10 / 1e3, atol=1e-4)


def test_bfloat16_is_summed_in_float32():
    found = losses.cross_entropy(jnp.asarray(STUDENT, jnp.bfloat16), jnp.asarray(LABELS))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, losses.cross_entropy(jnp.asarray(STUDENT), jnp.asarray(LABELS)), rtol=0.02)


def test_hint_through_a_regressor():
    features, target = RANDOM.standard_normal((2, 3, 3, 4)), RANDOM.standard_normal((2, 3, 3, 6))
    matrix = RANDOM.standard_normal((4, 6))
    np.testing.assert_allclose(
        losses.hint(*(jnp.asarray(x, jnp.float32) for x in (features, target, matrix))),
        ((features @ matrix - target) ** 2).mean(),
        rtol=1e-5,
    )


def test_attention_transfer():
    """By numpy; channels may differ, and their scale does not matter."""
    student, teacher = RANDOM.standard_normal((2, 3, 3, 4)), RANDOM.standard_normal((2, 3, 3, 7))
    maps = [(x**2).sum(-1).reshape(2, 9) for x in (student, teacher)]
    maps = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in maps]
    wanted = ((maps[0] - maps[1]) ** 2).sum(1).mean()
    given = [jnp.asarray(x, jnp.float32) for x in (student, teacher)]
    np.testing.assert_allclose(losses.attention_transfer(*given), wanted, rtol=1e-5)
    np.testing.assert_allclose(losses.attention_transfer(given[0] * 10, given[1]), wanted, rtol=1e-5)


def test_noisy_teachers():
    """A share of the examples is multiplied by 1 + z, of the deviation that was asked for."""
    logits = jnp.ones((4000, 3)) * 2
    found = np.asarray(losses.noisy(logits, jax.random.key(0), deviation=0.5, share=0.25))
    assert (found == found[:, :1]).all()
    moved = found[:, 0] != 2
    assert moved.mean() == pytest.approx(0.25, abs=0.03)
    assert (found[moved, 0] / 2 - 1).std() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: losses.cross_entropy(STUDENT, LABELS[:3]), r"logits \[16, 5\], labels \[3\]"),
        (
            lambda: losses.distillation(STUDENT, TEACHER[:, :4], LABELS),
            r"\[16, 5\] and \[16, 4\]: expected the same cl",
        ),
        (
            lambda: losses.distillation(STUDENT, TEACHER, LABELS, temperature=0.0),
            "temperature=0.0, alpha=0.9: expected",
        ),
        (lambda: losses.distillation(STUDENT, TEACHER, LABELS, alpha=1.5), "alpha=1.5: expected"),
        (
            lambda: losses.hint(STUDENT, TEACHER[:, :4]),
            r"\[16, 5\] and \[16, 4\]: expected the same sizes.*a regressor",
        ),
        (
            lambda: losses.hint(STUDENT, TEACHER, np.ones((4, 5))),
            r"the regressor is \[4, 5\]: expected .* 5 channels to",
        ),
        (lambda: losses.attention_transfer(STUDENT, TEACHER[:3]), "expected the same sizes but for channels"),
    ],
)
def test_refusals(function, message):
    with pytest.raises(InputError, match=message):
        function()
