"""The operations that run on 8-bit integers: which axes share a scale, and what a unit of the result is worth."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from nncompress_jax.ops.algorithms import native
from nncompress_jax.ops.conv import linear_convolution
from nncompress_jax.ops.integer import integer_convolution, integer_dot
from nncompress_jax.ops.windows import Window
from nncompress_jax.types import Array, DimensionNumbers


@dataclasses.dataclass(frozen=True)
class Convolution:
    """Of images [B, H, W, I] and a kernel [H, W, I / groups, O]: a scale for each example, and for each of O."""

    window: Window

    def input_axes(self, images: Array) -> tuple[int, ...]:
        """Axes of the inputs that share a scale."""
        return tuple(range(1, images.ndim))

    def kernel_axes(self, kernel: Array) -> tuple[int, ...]:
        """Axes of the kernel that share a scale."""
        return tuple(range(kernel.ndim - 1))

    def of_codes(self, images: Array, kernel: Array) -> Array:
        """int8 x int8 -> int32."""
        return integer_convolution(images, kernel, self.window)

    def of_floats(self, images: Array, kernel: Array) -> Array:
        """The operation that this stands for, linear in each."""
        return linear_convolution(images, kernel, self.window)

    def of_rounded(self, images: Array, kernel: Array) -> Array:
        """The same as one operation of `lax`."""
        return native(images, kernel, self.window)

    def output_scale(self, images_scale: Array, kernel_scale: Array) -> Array:
        """What one unit of the integer result is worth; broadcastable to it."""
        return images_scale * kernel_scale.reshape(-1)


@dataclasses.dataclass(frozen=True)
class Dot:
    """`lax.dot_general` of inputs and a kernel, in this order: a scale for each row, and for each column."""

    dimension_numbers: DimensionNumbers
    out_sharding: Any = None

    def input_axes(self, inputs: Array) -> tuple[int, ...]:
        """Axes of the inputs that share a scale."""
        return self.dimension_numbers[0][0]

    def kernel_axes(self, kernel: Array) -> tuple[int, ...]:
        """Axes of the kernel that share a scale."""
        return self.dimension_numbers[0][1]

    def of_codes(self, inputs: Array, kernel: Array) -> Array:
        """int8 x int8 -> int32."""
        return integer_dot(inputs, kernel, self.dimension_numbers, self.out_sharding)

    def of_floats(self, inputs: Array, kernel: Array) -> Array:
        """The operation that this stands for, linear in each."""
        return lax.dot_general(inputs, kernel, self.dimension_numbers, out_sharding=self.out_sharding)

    of_rounded = of_floats

    def output_scale(self, inputs_scale: Array, kernel_scale: Array) -> Array:
        """What one unit of the integer result is worth; broadcastable to it."""
        contracted, batch = self.dimension_numbers
        left, right = (
            jnp.squeeze(
                jnp.moveaxis(scale, batch[side], range(len(batch[side]))), _behind(contracted[side], batch[side])
            )
            for side, scale in enumerate((inputs_scale, kernel_scale))
        )
        shape = (*left.shape, *(1,) * (right.ndim - len(batch[0])))
        return left.reshape(shape) * jnp.expand_dims(right, range(len(batch[0]), left.ndim))


@dataclasses.dataclass(frozen=True)
class RaggedDot:
    """`lax.ragged_dot` of rows [M, I] and kernels [G, I, O]: each takes the next rows, as many as `counts` [G] says."""

    rows: int

    def input_axes(self, inputs: Array) -> tuple[int, ...]:
        """Axes of the inputs that share a scale."""
        return (1,)

    def kernel_axes(self, kernel: Array) -> tuple[int, ...]:
        """Axes of the kernel that share a scale."""
        return (1,)

    def of_codes(self, inputs: Array, kernel: Array, counts: Array) -> Array:
        """int8 x int8 -> int32."""
        return lax.ragged_dot(inputs, kernel, counts, preferred_element_type=jnp.int32)

    def of_floats(self, inputs: Array, kernel: Array, counts: Array) -> Array:
        """The operation that this stands for, linear in each."""
        return lax.ragged_dot(inputs, kernel, counts)

    of_rounded = of_floats

    def output_scale(self, inputs_scale: Array, kernel_scale: Array, counts: Array) -> Array:
        """What one unit of the integer result is worth; broadcastable to it."""
        scale = kernel_scale[:, 0]
        if len(scale) > 1:
            groups = jnp.searchsorted(jnp.cumsum(counts), jnp.arange(self.rows), side="right")
            scale = scale[jnp.minimum(groups, len(scale) - 1)]
        return inputs_scale * scale


def _behind(axes: Sequence[int], moved: Sequence[int]) -> tuple[int, ...]:
    """Where axes stand after others were moved to the front."""
    return tuple(axis + sum(other > axis for other in moved) for axis in axes)


Operation = Convolution | Dot | RaggedDot
