"""Means and variances of data over many batches, for each entry of a weight that the data meet."""

import dataclasses
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax.axes.places import axes_of
from nncompress_jax.tracing.positions import Positions, at
from nncompress_jax.types import Array


@dataclasses.dataclass
class Moments:
    """What was seen of some data, by entry of a weight.

    Attributes:
      places: where the weight's entries stand in the data.
      shape: of the weight.
      entries: [N] numbers of the entries that the data meet, in C order.
      count: of data that met each of them.
      mean: [N] float64.
      squares: [N] float64, sums of the squared distances from the mean.
    """

    places: Positions
    shape: Sequence[int]
    entries: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, int))
    count: int = 0
    mean: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(()))
    squares: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(()))

    def add(self, data: Array) -> None:
        """One batch; within it sums are float32, of distances from its own mean.

        Source: Chan et al. 1979, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances".
        """
        numbers = at(self.places, np.arange(int(np.prod(self.shape))).reshape(self.shape), data.ndim)
        axes = tuple(axis for axis in range(data.ndim) if axis not in axes_of(numbers))
        mean, squares = (np.asarray(x, np.float64).ravel() for x in _moments(data, axes))
        self.entries, inverse, times = np.unique(numbers, return_inverse=True, return_counts=True)
        each = data.size // numbers.size  # data of one place, of which an entry may have several
        own = np.bincount(inverse.ravel(), mean) / times
        between = np.bincount(inverse.ravel(), each * (mean - own[inverse.ravel()]) ** 2)
        self._join(each * int(times[0]), own, np.bincount(inverse.ravel(), squares) + between)

    def _join(self, count: int, mean: np.ndarray, squares: np.ndarray) -> None:
        total = self.count + count
        apart = mean - self.mean
        self.squares = self.squares + squares + apart**2 * (self.count * count / total)
        self.mean = self.mean + apart * (count / total)
        self.count = total

    @property
    def variance(self) -> np.ndarray:
        """[N] float64: of these data, as batch normalization takes it."""
        return self.squares / self.count

    def into(self, weight: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """A weight with other numbers [N] at its entries that the data meet."""
        flat = np.array(weight, np.float64).ravel()
        flat[self.entries] = numbers
        return flat.reshape(weight.shape)


@partial(jax.jit, static_argnums=1)
def _moments(data: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    data = data.astype(jnp.promote_types(data.dtype, jnp.float32))
    mean = data.mean(axes, keepdims=True)
    return mean, jnp.square(data - mean).sum(axes)
