"""Augmentation and normalization, on the device, inside the compiled step."""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
from jax import lax

from nncompress_jax.errors import InputError
from nncompress_jax.types import Array


def normalize(images: Array, mean: Sequence[float], deviation: Sequence[float]) -> Array:
    """Pixel values from 0 to 1, less the mean, over the deviation.

    Args:
      images: [B, H, W, I] uint8.
      mean: I values.
      deviation: I values above 0.

    Returns:
      [B, H, W, I] float32.

    Raises:
      InputError: for a deviation that is not above 0.

    Example:
      >>> normalize(jnp.full((1, 1, 1, 1), 255, jnp.uint8), [0.5], [0.25]).item()
      2.0
    """
    chex.assert_rank(images, 4)
    chex.assert_type(images, jnp.uint8)
    if not all(value > 0 for value in deviation):
        raise InputError(f"deviation={tuple(deviation)}: expected more than 0 for each channel; 1 leaves it as it is")
    scaled = images.astype(jnp.float32) / 255
    return (scaled - jnp.asarray(mean, jnp.float32)) / jnp.asarray(deviation, jnp.float32)


def random_crop(key: Array, images: Array, *, padding: int = 4) -> Array:
    """Shifts each image by up to `padding` pixels either way; what comes in from outside is 0.

    Args:
      key: PRNG key.
      images: [B, H, W, I].
      padding: pixels of 0 on each side before the crop to the old size.

    Returns:
      [B, H, W, I], the input's dtype.

    Example:
      >>> random_crop(jax.random.key(0), jnp.ones((2, 32, 32, 3), jnp.uint8)).shape
      (2, 32, 32, 3)
    """
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    corners = jax.random.randint(key, (images.shape[0], 2), 0, 2 * padding + 1)

    def crop(image: Array, corner: Array) -> Array:
        return lax.dynamic_slice(image, (corner[0], corner[1], 0), images.shape[1:])

    return jax.vmap(crop)(padded, corners)


def random_flip(key: Array, images: Array) -> Array:
    """Mirrors each image left to right with probability one half.

    Args:
      key: PRNG key.
      images: [B, H, W, I].

    Returns:
      [B, H, W, I].

    Example:
      >>> flipped = random_flip(jax.random.key(0), jnp.array([[[[1], [2]]]] * 9))
      >>> sorted(set(flipped[:, 0, 0, 0].tolist()))
      [1, 2]
    """
    flipped = jax.random.bernoulli(key, shape=(images.shape[0], 1, 1, 1))
    return jnp.where(flipped, images[:, :, ::-1], images)
