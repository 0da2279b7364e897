"""A convolution in one layout: images [B, H, W, I], kernels [H, W, I / groups, O], any number of spatial axes."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from nncompress_jax.types import Array


@dataclasses.dataclass(frozen=True)
class Window:
    """How a kernel moves over an image; every field but the last has an entry for each spatial axis.

    Attributes:
      strides: pixels from one window to the next.
      padding: zeros (before, after) in pixels; negative ones crop.
      image_dilation: 1 + zeros between two pixels (transposed convolution).
      kernel_dilation: pixels from one tap to the next.
      groups: that the input channels are cut into; one for each of them is a depthwise convolution.
    """

    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    image_dilation: tuple[int, ...]
    kernel_dilation: tuple[int, ...]
    groups: int = 1


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which axes of the operands of `lax.conv_general_dilated` mean what."""

    images: tuple[int, ...]
    kernel: tuple[int, ...]
    outputs: tuple[int, ...]

    @classmethod
    def of(cls, dimension_numbers: lax.ConvDimensionNumbers) -> "Layout":
        """Axes in this file's order, as they stand in lax's operands."""

        def channels_last(specification: Sequence[int]) -> tuple[int, ...]:
            first, channels, *space = specification
            return (first, *space, channels)

        outputs, inputs, *space = dimension_numbers.rhs_spec
        return cls(
            channels_last(dimension_numbers.lhs_spec),
            (*space, inputs, outputs),
            channels_last(dimension_numbers.out_spec),
        )

    def restored(self, outputs: Array) -> Array:
        """[B, H, W, O] -> lax's order of the axes."""
        return jnp.moveaxis(outputs, range(outputs.ndim), self.outputs)


def window_of(params: Mapping[str, Any]) -> Window:
    """From the parameters of `lax.conv_general_dilated_p`."""
    return Window(
        tuple(params["window_strides"]),
        tuple(map(tuple, params["padding"])),
        tuple(params["lhs_dilation"]),
        tuple(params["rhs_dilation"]),
        params["feature_group_count"],
    )


def convolution(images: Array, kernel: Array, window: Window, element_type: Any = None) -> Array:
    """`lax.conv_general_dilated` in this file's layout.

    Args:
      images: [B, H, W, I].
      kernel: [H, W, I / groups, O].
      window: how the kernel moves.
      element_type: of the sums and of the result; by default that of the operands.

    Returns:
      [B, H, W, O].

    Example:
      >>> images, kernel = jnp.array([[[1.0], [2.0], [3.0]]]), jnp.ones((3, 1, 1))
      >>> convolution(images, kernel, Window((1,), ((1, 1),), (1,), (1,))).ravel().tolist()
      [3.0, 6.0, 5.0]
    """
    channels = images.ndim - 1
    space = tuple(range(1, channels))
    layout, kernel_layout = (0, channels, *space), (channels, channels - 1, *range(channels - 1))
    return lax.conv_general_dilated(
        images,
        kernel,
        window.strides,
        window.padding,
        window.image_dilation,
        window.kernel_dilation,
        lax.ConvDimensionNumbers(layout, kernel_layout, layout),
        window.groups,
        preferred_element_type=element_type,
    )
