"""What training, testing and calibration ask of images with labels, wherever those are."""

import dataclasses
from typing import Protocol

import numpy as np

from nncompress_jax.types import Array

Batch = tuple[np.ndarray, np.ndarray]
"""Images [B, H, W, 3] uint8 and labels [B] int32, from 0 to C - 1."""


class Split(Protocol):
    """Images with labels, by row."""

    @property
    def image_shape(self) -> tuple[int, ...]:
        """[H, W, 3], the same for all."""

    def __len__(self) -> int: ...

    def read(self, rows: np.ndarray) -> Batch:
        """The examples of those rows [B]; from several threads at once, too."""


@dataclasses.dataclass(frozen=True)
class InMemory:
    """A split that is there as arrays.

    Attributes:
      images: [N, H, W, 3] uint8.
      labels: [N] int32, from 0 to C - 1.
    """

    images: np.ndarray
    labels: np.ndarray

    @property
    def image_shape(self) -> tuple[int, ...]:
        """[H, W, 3]."""
        return self.images.shape[1:]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, rows: np.ndarray | Array) -> Batch:
        """The examples of those rows.

        Example:
          >>> split = InMemory(np.zeros((3, 32, 32, 3), np.uint8), np.arange(3))
          >>> split.read(np.array([2, 0]))[1].tolist()
          [2, 0]
        """
        return self.images[rows], self.labels[rows]
