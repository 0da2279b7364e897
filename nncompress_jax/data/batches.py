"""The order in which a run sees its images: a pure function of seed and epoch, so that it can be resumed."""

import dataclasses

import jax
import numpy as np

from nncompress_jax.types import Array


@dataclasses.dataclass(frozen=True)
class Batches:
    """How an epoch goes through a split; no image comes twice.

    Attributes:
      count: N, images of the split.
      size: B.
      seed: of the run.
      keeps_last: what is left over makes a last, smaller batch; else those images are left out of this epoch.
    """

    count: int
    size: int
    seed: int = 0
    keeps_last: bool = False

    @property
    def full(self) -> int:
        """Batches of B images."""
        return self.count // self.size

    @property
    def last(self) -> int:
        """Images of the last, smaller batch; 0 if there is none."""
        return self.count % self.size if self.keeps_last else 0

    def __len__(self) -> int:
        """Batches of an epoch.

        Example:
          >>> len(Batches(300, 128, keeps_last=True)), len(Batches(300, 128))
          (3, 2)
        """
        return self.full + bool(self.last)

    def order(self, epoch: int) -> Array:
        """[N] int32, all rows of the split as the epoch, counted from 0, goes through them; on the device."""
        return jax.random.permutation(jax.random.fold_in(jax.random.key(self.seed), epoch), self.count)

    def rows(self, order: np.ndarray, number: int) -> np.ndarray:
        """The rows of a batch, counted from 0 in its epoch.

        Args:
          order: [N], of the epoch.
          number: of the batch.

        Example:
          >>> Batches(10, 4, keeps_last=True).rows(np.arange(10), 2).tolist()
          [8, 9]
        """
        size = self.size if number < self.full else self.last
        return order[number * self.size :][:size]
