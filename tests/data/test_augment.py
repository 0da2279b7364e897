"""Augmentation: every crop and flip is one of the image itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.data.augment import normalize, random_crop, random_flip
from nncompress_jax.data.batches import Batches

IMAGES = jax.random.randint(jax.random.key(0), (200, 8, 8, 3), 1, 256).astype(jnp.uint8)


def test_crops_are_shifts_with_zeros_from_outside():
    cropped = np.asarray(random_crop(jax.random.key(1), IMAGES, padding=2))
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)))
    offsets = set()
    for before, after in zip(padded, cropped, strict=True):
        fitting = [(i, j) for i in range(5) for j in range(5) if (before[i : i + 8, j : j + 8] == after).all()]
        assert len(fitting) == 1
        offsets |= set(fitting)
    assert len(offsets) == 25


def test_flips_are_mirror_images_half_the_time():
    flipped = np.asarray(random_flip(jax.random.key(2), IMAGES))
    same = (flipped == IMAGES).all((1, 2, 3))
    mirrored = (flipped == IMAGES[:, :, ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert 70 < same.sum() < 130


def test_normalize():
    mean, deviation = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    expected = (np.asarray(IMAGES) / 255 - mean) / deviation
    np.testing.assert_allclose(normalize(IMAGES, mean, deviation), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("deviation", [0.0, -1.0, float("nan")])
def test_a_deviation_that_cannot_be(deviation):
    with pytest.raises(nnc.InputError, match="deviation=.*: expected more than 0 for each channel"):
        normalize(IMAGES, [0.5] * 3, [0.2, 0.2, deviation])


def test_an_epoch_goes_through_every_row_once_and_each_in_another_order():
    batches = Batches(103, 10, seed=3, keeps_last=True)
    orders = [np.asarray(batches.order(epoch)) for epoch in (0, 1)]
    assert all(sorted(order.tolist()) == list(range(103)) for order in orders)
    assert orders[0].tolist() != orders[1].tolist()
    assert Batches(103, 10, seed=3).order(1).tolist() == orders[1].tolist()
    assert Batches(103, 10, seed=4).order(1).tolist() != orders[1].tolist()


def test_the_last_batch():
    assert (len(Batches(103, 10)), Batches(103, 10).last) == (10, 0)
    assert (len(Batches(103, 10, keeps_last=True)), Batches(103, 10, keeps_last=True).last) == (11, 3)
    assert Batches(300, 128, keeps_last=True).last == 44
    assert len(Batches(5, 10)) == 0
