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


@dataclasses.dataclass(frozen=True)
class Met:
    """Which entries of a weight data of some rank meet.

    Attributes:
      entries: [N] numbers of the entries, in C order.
      owners: [P] of each place in the data, which of these N it meets.
      axes: of the data, along which the places do not differ.
    """

    entries: np.ndarray
    owners: np.ndarray
    axes: tuple[int, ...]

    @classmethod
    def of(cls, places: Positions, shape: Sequence[int], rank: int) -> "Met":
        """Of a weight of this shape, whose entries stand at these places."""
        numbers = at(places, np.arange(int(np.prod(shape))).reshape(shape), rank)
        entries, owners = np.unique(numbers, return_inverse=True)
        return cls(entries, owners.ravel(), tuple(axis for axis in range(rank) if axis not in axes_of(numbers)))

    @property
    def times(self) -> int:
        """At how many places each entry stands."""
        return len(self.owners) // len(self.entries)

    def statistics(self, data: Array) -> tuple[Array, Array]:
        """Mean and variance [N] of the data that each entry meets; can be traced and differentiated.

        Example:
          >>> met = Met.of({0: np.arange(2)[None]}, (2,), 2)
          >>> [numbers.tolist() for numbers in met.statistics(jnp.array([[1.0, 0.0], [3.0, 0.0]]))]
          [[2.0, 0.0], [1.0, 0.0]]
        """
        mean, squares = (numbers.ravel() for numbers in _moments(data, self.axes))
        own = self._mean(mean)
        count = data.size // len(self.owners)
        return own, self._mean(squares / count + jnp.square(mean - own[self.owners]))

    def _mean(self, numbers: Array) -> Array:
        """[P] -> [N]."""
        return jnp.zeros(len(self.entries), numbers.dtype).at[self.owners].add(numbers) / self.times


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
        met = Met.of(self.places, self.shape, data.ndim)
        mean, squares = (np.asarray(x, np.float64).ravel() for x in _moments(data, met.axes))
        self.entries = met.entries
        each = data.size // met.owners.size  # data of one place, of which an entry may have several
        own = np.bincount(met.owners, mean) / met.times
        between = np.bincount(met.owners, each * (mean - own[met.owners]) ** 2)
        self._join(each * met.times, own, np.bincount(met.owners, squares) + between)

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
