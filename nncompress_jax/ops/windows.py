"""Windows that move over an image: whether one fits, and what each of its taps sees."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from jax import lax

from nncompress_jax.types import Array


@dataclasses.dataclass(frozen=True)
class Window:
    """How a kernel moves over an image; every field but the last has an entry for each spatial axis.

    Attributes:
      strides: pixels from one window to the next.
      padding: pixels (before, after) that are added around the image; negative ones crop.
      image_dilation: 1 + pixels added between two pixels (transposed convolution).
      kernel_dilation: pixels from one tap to the next.
      groups: that the input channels are cut into; one for each of them is a depthwise convolution.
    """

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    image_dilation: tuple[int, ...]
    kernel_dilation: tuple[int, ...]
    groups: int = 1


def taps(
    images: Array, sizes: Sequence[int], window: Window, fill: float = 0, *, once: bool = False
) -> Iterator[Array]:
    """What each tap of a window sees, first the one at the first corner.

    Args:
      images: [B, H, W, I] (one spatial axis or more).
      sizes: of the window, in taps along each spatial axis.
      window: how it moves; one must fit.
      fill: the value of added pixels.
      once: what computes the images stays out of the taps. XLA would take the one at the centre from the image before
        the padding, and compute it twice.

    Returns:
      Arrays [B, H, W, I] of the output's height and width, one for each tap.

    Example:
      >>> import jax.numpy as jnp
      >>> images = jnp.array([[[1.0], [2.0], [3.0]]])
      >>> [tap.ravel().tolist() for tap in taps(images, (2,), Window((1,), ((0, 1),), (1,), (1,)))]
      [[1.0, 2.0, 3.0], [2.0, 3.0, 0.0]]
    """
    edges = [(*pad, step - 1) for pad, step in zip(window.padding, window.image_dilation, strict=True)]
    padded = lax.pad(images, images.dtype.type(fill), [(0, 0, 0), *edges, (0, 0, 0)])
    if once and any(map(any, edges)):
        padded = lax.optimization_barrier(padded)
    last = _last_windows(images, sizes, window)
    for tap in itertools.product(*map(range, sizes)):
        start = [at * step for at, step in zip(tap, window.kernel_dilation, strict=True)]
        stop = [first + end + 1 for first, end in zip(start, last, strict=True)]
        yield lax.slice(padded, (0, *start, 0), (images.shape[0], *stop, images.shape[-1]), (1, *window.strides, 1))


def fits(images: Array, sizes: Sequence[int], window: Window) -> bool:
    """Whether a window of so many taps along each spatial axis fits into the padded image."""
    return all(last >= 0 for last in _last_windows(images, sizes, window))


def _last_windows(images: Array, sizes: Sequence[int], window: Window) -> list[int]:
    """Where the last window begins on each spatial axis of the padded image; negative if none fits."""
    last = []
    for axis, pad in enumerate(window.padding):
        size = (images.shape[axis + 1] - 1) * window.image_dilation[axis] + 1 + sum(pad)
        room = size - 1 - (sizes[axis] - 1) * window.kernel_dilation[axis]
        last.append(room // window.strides[axis] * window.strides[axis])
    return last
