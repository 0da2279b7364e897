"""Every image counts once, whatever the batch; on several devices: `tests/sharding/test_evaluation.py`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.data.split import InMemory
from nncompress_jax.training import evaluation
from nncompress_jax.training.evaluation import evaluate
from nncompress_jax.training.mesh import data_mesh

RANDOM = np.random.default_rng(0)
SPLIT = InMemory(RANDOM.integers(0, 256, (37, 4, 4, 3), np.uint8), RANDOM.integers(0, 5, 37).astype(np.int32))
VARIABLES = {"params": {"kernel": jnp.asarray(RANDOM.standard_normal((48, 5)), jnp.float32)}}


def scaled(images):
    return images.astype(jnp.float32) / 255


def apply(variables, images):
    return images.reshape(len(images), -1) @ variables["params"]["kernel"]


def check_counts_and_loss(batch_size, devices):
    mesh = data_mesh(jax.devices()[:devices])
    result = evaluate(apply, VARIABLES, SPLIT, scaled, batch_size=batch_size, mesh=mesh)
    logits = np.asarray(apply(VARIABLES, scaled(jnp.asarray(SPLIT.images))), np.float64)
    expected = np.zeros((5, 5), int)
    np.add.at(expected, (SPLIT.labels, logits.argmax(1)), 1)
    assert result.confusion.tolist() == expected.tolist()
    assert result.count == 37
    assert result.correct == (logits.argmax(1) == SPLIT.labels).sum()
    assert result.accuracy == result.correct / 37
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(37), SPLIT.labels]
    np.testing.assert_allclose(result.loss, losses.mean(), rtol=1e-5)
    assert result.images_per_second > 0


def check_batches_are_whole(devices):
    """A network that looks at the whole batch gives each batch of 10, and the last of 7, what it would alone."""

    def centred(variables, images):
        logits = apply(variables, images)
        return logits - (logits.max(0) + logits.min(0)) / 2

    result = evaluate(centred, VARIABLES, SPLIT, scaled, batch_size=10, mesh=data_mesh(jax.devices()[:devices]))
    correct = 0
    for start in range(0, 37, 10):
        logits = centred(VARIABLES, scaled(jnp.asarray(SPLIT.images[start : start + 10])))
        correct += int((logits.argmax(1) == SPLIT.labels[start : start + 10]).sum())
    assert result.correct == correct


BATCH_SIZES = [1, 10, 37, 100]


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_counts_and_loss(batch_size):
    check_counts_and_loss(batch_size, devices=1)


def test_the_filling_does_not_change_what_is_computed_over_the_batch():
    check_batches_are_whole(devices=1)


def test_nothing_to_test():
    with pytest.raises(nnc.InputError, match="batch_size=0, 37 images: expected at least one of each"):
        evaluate(apply, VARIABLES, SPLIT, scaled, batch_size=0)
    with pytest.raises(nnc.InputError, match="batch_size=5, 0 images"):
        evaluate(apply, VARIABLES, InMemory(SPLIT.images[:0], SPLIT.labels[:0]), scaled, batch_size=5)


def test_labels_of_classes_that_the_network_does_not_have():
    for label, found in ((5, "labels from 0 to 5"), (-1, "labels from -1 to")):
        labels = np.where(np.arange(37) == 20, label, SPLIT.labels).astype(np.int32)
        with pytest.raises(nnc.InputError, match=f"^{found}.*, 5 logits: expected labels from 0 to 4$"):
            evaluate(apply, VARIABLES, InMemory(SPLIT.images, labels), scaled, batch_size=40)


def test_what_is_kept_of_a_batch_does_not_grow_with_the_classes(monkeypatch):
    """Of 1,000 classes a matrix for each batch would be 4 MB."""
    sizes, added = [], evaluation._added

    def seen(total, batch):
        sizes.append(sum(part.nbytes for part in jax.tree.leaves(batch)))
        return added(total, batch)

    monkeypatch.setattr(evaluation, "_added", seen)
    result = evaluate(lambda variables, images: jnp.eye(1000)[images[:, 0, 0, 0].astype(int)], {}, SPLIT, lambda x: x)
    assert result.confusion.shape == (1000, 1000)
    assert result.count == 37
    assert max(sizes) <= 100 * (4 + 4 + 4 + 1) + 4
