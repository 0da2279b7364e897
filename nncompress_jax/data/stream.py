"""Batches of a split, one after the other; what is not in memory is read ahead."""

import os
from collections.abc import Callable, Generator
from typing import Any

import numpy as np

from nncompress_jax.data.split import Batch, InMemory, Split
from nncompress_jax.errors import InputError

MOST_THREADS = 32
"""Each reads a batch of its own, and as many batches wait."""


def batches(split: Split, rows_of: Callable[[int], np.ndarray], count: int, *, start: int = 0) -> Generator[Batch]:
    """Batches `start` to `count` - 1, read ahead by as many threads as there are processors.

    What comes depends on the number of the batch alone: to go on where another iterator stopped, that number is all
    there is to know.

    Args:
      split: where they are read.
      rows_of: the rows [B] of the batch of this number; called from the threads.
      count: of all batches.
      start: number of the first that comes.

    Example:
      >>> split = InMemory(np.zeros((4, 32, 32, 3), np.uint8), np.arange(4))
      >>> [labels.tolist() for _, labels in batches(split, lambda number: np.array([number, 0]), 4, start=2)]
      [[2, 0], [3, 0]]
    """
    if isinstance(split, InMemory):
        for number in range(start, count):
            yield split.read(rows_of(number))
        return

    import grain  # most of a second, which data sets in memory need not wait for

    threads = min(MOST_THREADS, os.cpu_count() or 1)
    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    iterator = iter(grain.MapDataset.source(_Numbered(split, rows_of, start, count)).to_iter_dataset(ahead))
    try:
        yield from iterator
    except InputError as error:
        raise InputError(str(error).partition("\n")[0]) from None  # grain adds lines on its own frames
    finally:
        iterator.close()


class _Numbered:
    """Batches by number, as grain asks for them."""

    def __init__(self, split: Split, rows_of: Callable[[int], np.ndarray], start: int, count: int):
        self._split, self._rows_of, self._numbers = split, rows_of, range(start, count)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Batch:
        return self._split.read(self._rows_of(self._numbers[index]))
