"""Augmentation: every crop and flip is one of the image itself."""

import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax.data.augment import normalize, random_crop, random_flip
from nncompress_jax.data.batches import batches

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


def test_batches_hold_every_row_once_and_another_order_each_epoch():
    epochs = [batches(103, 10, seed=3, epoch=epoch, keeps_last=True) for epoch in (0, 1)]
    orders = [np.concatenate(epoch) for epoch in epochs]
    assert all(sorted(order.tolist()) == list(range(103)) for order in orders)
    assert orders[0].tolist() != orders[1].tolist()
    again = batches(103, 10, seed=3, epoch=1, keeps_last=True)
    assert np.concatenate(again).tolist() == orders[1].tolist()
    assert [len(rows) for rows in batches(103, 10, seed=3, epoch=0)] == [10] * 10
    assert len(batches(5, 10, seed=0, epoch=0)) == 0
