"""The order in which a run sees its images: a pure function of seed and epoch, so that it can be resumed."""

import numpy as np


def batches(
    count: int, batch_size: int, *, seed: int, epoch: int, keeps_last: bool = False, multiple_of: int = 1
) -> list[np.ndarray]:
    """Rows of each batch of an epoch; no row stands in two.

    Args:
      count: N, rows of the split.
      batch_size: B.
      seed: of the run.
      epoch: counted from 0.
      keeps_last: what is left over makes a last, smaller batch; else those rows are left out of this epoch.
      multiple_of: the last batch is cut to a multiple of this number of devices.

    Returns:
      Arrays of B row numbers each.

    Example:
      >>> [len(rows) for rows in batches(300, 128, seed=0, epoch=0, keeps_last=True, multiple_of=8)]
      [128, 128, 40]
    """
    order = np.random.default_rng((seed, epoch)).permutation(count)
    full = count // batch_size * batch_size
    rows = list(order[:full].reshape(-1, batch_size))
    rest = (count - full) // multiple_of * multiple_of
    return [*rows, order[full : full + rest]] if keeps_last and rest else rows
