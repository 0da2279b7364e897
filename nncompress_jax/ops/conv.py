"""Convolution in one layout: images [B, H, W, I], kernels [H, W, I / groups, O], any number of spatial axes.

Three algorithms give the same: `native` is the backend's own operation, `patches` lays the windows of an image side
by side for one dot product, `shifts` adds up shifted images, each times one tap of a depthwise kernel. The choice is
made by platform when the program is lowered. In a traced program a convolution stands under the name of its
function, and the algorithm inside under its own.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
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


STATIC = ("window", "precision", "element_type")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def convolution(images: Array, kernel: Array, window: Window, precision: Any = None, element_type: Any = None) -> Array:
    """Convolution (cross-correlation), and its gradients, in the form that each platform runs well.

    Args:
      images: [B, H, W, I] float (one spatial axis or more).
      kernel: [H, W, I / groups, O].
      window: how the kernel moves.
      precision: as `lax.conv_general_dilated`'s.
      element_type: of the result; by default that of the operands.

    Returns:
      [B, H, W, O]. Derivatives are of the reverse mode alone.

    Example:
      >>> images, kernel = jnp.array([[[1.0], [2.0], [3.0]]]), jnp.ones((3, 1, 1))
      >>> convolution(images, kernel, Window((1,), ((1, 1),), (1,), (1,))).ravel().tolist()
      [3.0, 6.0, 5.0]
    """
    return float_convolution(images, kernel, window, precision, element_type)


@functools.partial(jax.jit, static_argnames=STATIC)
def float_convolution(
    images: Array, kernel: Array, window: Window, precision: Any = None, element_type: Any = None
) -> Array:
    """What `convolution` is in a program."""
    options = {"window": window, "precision": precision, "element_type": element_type}
    cpu = functools.partial(cpu_algorithm(images, kernel, window), **options)
    return lax.platform_dependent(images, kernel, cpu=cpu, default=functools.partial(native, **options))


@functools.partial(jax.jit, static_argnames=STATIC)
def float_convolution_gradients(
    images: Array, kernel: Array, cotangent: Array, window: Window, precision: Any = None, element_type: Any = None
) -> tuple[Array, Array]:
    """Of images and kernel. Left to JAX, the choice of the forward pass would run its transposes in slow loops."""

    def of(algorithm: Callable[..., Array]) -> Callable[..., tuple[Array, Array]]:
        forward = functools.partial(algorithm, window=window, precision=precision, element_type=element_type)
        return lambda images, kernel, cotangent: jax.vjp(forward, images, kernel)[1](cotangent)

    cpu = of(cpu_algorithm(images, kernel, window))
    return lax.platform_dependent(images, kernel, cotangent, cpu=cpu, default=of(native))


def _forward(images: Array, kernel: Array, *options: Any) -> tuple[Array, tuple[Array, Array]]:
    return float_convolution(images, kernel, *options), (images, kernel)


def _backward(window: Window, precision: Any, element_type: Any, saved: Any, cotangent: Array) -> tuple[Array, Array]:
    return float_convolution_gradients(*saved, cotangent, window, precision, element_type)


convolution.defvjp(_forward, _backward)


def cpu_algorithm(images: Array, kernel: Array, window: Window) -> Callable[..., Array]:
    """XLA's fast CPU libraries take no depthwise kernel, nor one larger than the image: naive loops would run."""
    taps, pixels = math.prod(kernel.shape[:-2]), math.prod(images.shape[1:-1])
    if not has_outputs(images, kernel, window):
        return native
    if is_depthwise(images, window):
        return shifts
    return patches if taps > pixels or taps == 1 else native


def is_depthwise(images: Array, window: Window) -> bool:
    """Whether each input channel is a group of its own."""
    return window.groups == images.shape[-1] and window.groups > 1


@functools.partial(jax.jit, static_argnames=STATIC)
def native(images: Array, kernel: Array, window: Window, precision: Any = None, element_type: Any = None) -> Array:
    """The backend's own convolution."""
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
        precision=precision,
        preferred_element_type=element_type,
    )


@functools.partial(jax.jit, static_argnames=(*STATIC, "multiple"))
def patches(
    images: Array, kernel: Array, window: Window, precision: Any = None, element_type: Any = None, multiple: int = 1
) -> Array:
    """Windows side by side, and one dot product with the kernel for each group, of a multiple of so many entries."""
    columns = jnp.stack(list(_taps(images, kernel, window)), axis=-2)
    *outer, taps, channels = columns.shape
    groups, outputs = window.groups, kernel.shape[-1]
    columns = columns.reshape(math.prod(outer), taps, groups, channels // groups)
    kernel = kernel.reshape(taps, channels // groups, groups, outputs // groups)
    columns = jnp.moveaxis(columns, 2, 0).reshape(groups, math.prod(outer), -1)
    kernel = jnp.moveaxis(kernel, 2, 0).reshape(groups, -1, outputs // groups)
    missing = -columns.shape[-1] % multiple
    columns = jnp.pad(columns, ((0, 0), (0, 0), (0, missing)))
    kernel = jnp.pad(kernel, ((0, 0), (0, missing), (0, 0)))
    options = {"precision": precision, "preferred_element_type": element_type}
    if groups == 1:
        result = lax.dot_general(columns[0], kernel[0], (((1,), (0,)), ((), ())), **options)
    else:
        result = jnp.moveaxis(lax.dot_general(columns, kernel, (((2,), (1,)), ((0,), (0,))), **options), 0, 1)
    return result.reshape(*outer, outputs)


@functools.partial(jax.jit, static_argnames=STATIC)
def shifts(images: Array, kernel: Array, window: Window, precision: Any = None, element_type: Any = None) -> Array:
    """Sum over the taps of shifted images times the tap's weights; depthwise kernels [H, W, 1, O] only."""
    element_type = element_type or images.dtype
    sums = jnp.promote_types(element_type, jnp.float32) if jnp.issubdtype(element_type, jnp.floating) else element_type
    weights = kernel.reshape(-1, kernel.shape[-1]).astype(sums)
    copies = kernel.shape[-1] // images.shape[-1]
    shifted = (jnp.repeat(tap, copies, axis=-1).astype(sums) for tap in _taps(images, kernel, window))
    products = (tap * weight for tap, weight in zip(shifted, weights, strict=True))
    return functools.reduce(jnp.add, products).astype(element_type)


def _taps(images: Array, kernel: Array, window: Window) -> Iterator[Array]:
    """What each tap of the kernel sees: [B, H, W, I] of the output's height and width."""
    edges = [(*pad, step - 1) for pad, step in zip(window.padding, window.image_dilation, strict=True)]
    padded = lax.pad(images, images.dtype.type(0), [(0, 0, 0), *edges, (0, 0, 0)])
    last = _last_windows(images, kernel, window)
    for tap in itertools.product(*map(range, kernel.shape[:-2])):
        start = [at * step for at, step in zip(tap, window.kernel_dilation, strict=True)]
        stop = [first + end + 1 for first, end in zip(start, last, strict=True)]
        yield lax.slice(padded, (0, *start, 0), (len(images), *stop, images.shape[-1]), (1, *window.strides, 1))


def has_outputs(images: Array, kernel: Array, window: Window) -> bool:
    """Whether a window fits into the padded image."""
    return min(_last_windows(images, kernel, window), default=0) >= 0


def _last_windows(images: Array, kernel: Array, window: Window) -> list[int]:
    """Where the last window begins on each spatial axis of the padded image; negative if none fits."""
    last = []
    for axis, pad in enumerate(window.padding):
        size = (images.shape[axis + 1] - 1) * window.image_dilation[axis] + 1 + sum(pad)
        room = size - 1 - (kernel.shape[axis] - 1) * window.kernel_dilation[axis]
        last.append(room // window.strides[axis] * window.strides[axis])
    return last


def convolve(images: Array, kernel: Array, **params: Any) -> Array:
    """`lax.conv_general_dilated_p` with these parameters, by `convolution`; `batch_group_count` must be 1."""
    layout = Layout.of(params["dimension_numbers"])
    outputs = convolution(
        jnp.transpose(images, layout.images),
        jnp.transpose(kernel, layout.kernel),
        window_of(params),
        params["precision"],
        params["preferred_element_type"],
    )
    return layout.restored(outputs)
