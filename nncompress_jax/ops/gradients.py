"""Gradients of a convolution, in the form that each platform runs well.

Left to JAX, the forms of the convolution itself would be transposed, and run in slow loops on a CPU.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nncompress_jax.ops.algorithms import (
    blocks_pay,
    cpu_algorithm,
    examples_at_a_time,
    is_depthwise,
    native,
    patches,
    shifts,
)
from nncompress_jax.ops.kernels import convolution_class, fastest
from nncompress_jax.ops.windows import Window, fits
from nncompress_jax.types import Array

STATIC = ("like", "window", "precision")


@functools.partial(jax.jit, static_argnames=STATIC)
def images_gradient(kernel: Array, cotangent: Array, *, like: Any, window: Window, precision: Any = None) -> Array:
    """Of images of the type `like` (its shape, and how it lies on devices), by the gradient of the outputs."""

    def default(kernel: Array, cotangent: Array) -> Array:
        forward = functools.partial(
            native, kernel=kernel, window=window, precision=precision, element_type=cotangent.dtype
        )
        return jax.linear_transpose(forward, like)(cotangent)[0]

    own = functools.partial(_images_gradient, like, window=window, precision=precision)
    cpu = own if fits(like, kernel.shape[:-2], window) else default
    return lax.platform_dependent(kernel, cotangent, cpu=cpu, default=default)


@functools.partial(jax.jit, static_argnames=STATIC)
def kernel_gradient(images: Array, cotangent: Array, *, like: Any, window: Window, precision: Any = None) -> Array:
    """Of a kernel of the type `like`, by the gradient of the outputs."""

    def default(images: Array, cotangent: Array) -> Array:
        forward = functools.partial(native, images, window=window, precision=precision, element_type=cotangent.dtype)
        return jax.linear_transpose(forward, like)(cotangent)[0]

    def own(images: Array, cotangent: Array) -> Array:
        name = fastest("kernel gradient", images.dtype, convolution_class(images, like, window))
        return KERNEL_GRADIENTS[name](images, like, cotangent, window, precision)

    cpu = own if fits(images, like.shape[:-2], window) else default
    return lax.platform_dependent(images, cotangent, cpu=cpu, default=default)


def _images_gradient(images: Any, kernel: Array, cotangent: Array, window: Window, precision: Any) -> Array:
    """A convolution itself: of the cotangent, dilated by the strides, with the kernel turned round."""
    *sizes, inputs, outputs = kernel.shape
    kernel = kernel.reshape(*sizes, inputs, window.groups, outputs // window.groups)
    kernel = jnp.moveaxis(jnp.flip(kernel, range(len(sizes))), -3, -1)  # [H, W, groups, O / groups, I / groups]
    kernel = jnp.moveaxis(kernel, -3, -2).reshape(*sizes, outputs // window.groups, inputs * window.groups)
    padding = []
    for axis, size in enumerate(sizes):
        reach = (size - 1) * window.kernel_dilation[axis]
        span = (cotangent.shape[axis + 1] - 1) * window.strides[axis]
        pixels = (images.shape[axis + 1] - 1) * window.image_dilation[axis]
        before = reach - window.padding[axis][0]
        padding.append((before, pixels + reach - span - before))
    turned = Window(window.image_dilation, tuple(padding), window.strides, window.kernel_dilation, window.groups)
    wide = jnp.promote_types(cotangent.dtype, kernel.dtype)
    cotangent, kernel = cotangent.astype(wide), kernel.astype(wide)
    return cpu_algorithm(cotangent, kernel, turned)(cotangent, kernel, turned, precision).astype(images.dtype)


def native_kernel_gradient(
    images: Array, kernel: Array, cotangent: Array, window: Window, precision: Any = None
) -> Array:
    """A convolution of images with the cotangent, examples in place of channels; written down in the usual layout.

    JAX's transpose has another, which XLA's CPU backend runs in slow loops wherever the program is inside a `scan`.
    """
    sums = jnp.promote_types(cotangent.dtype, jnp.float32)
    if window.groups > 1:
        forward = functools.partial(native, images.astype(sums), window=window, precision=precision)
        wide = jax.ShapeDtypeStruct(kernel.shape, sums)
        return jax.linear_transpose(forward, wide)(cotangent.astype(sums))[0].astype(kernel.dtype)
    padding = []
    for axis, size in enumerate(kernel.shape[:-2]):
        before = window.padding[axis][0]
        span = (cotangent.shape[axis + 1] - 1) * window.strides[axis]
        pixels = (images.shape[axis + 1] - 1) * window.image_dilation[axis]
        padding.append((before, (size - 1) * window.kernel_dilation[axis] + span - pixels - before))
    turned = Window(window.kernel_dilation, tuple(padding), window.image_dilation, window.strides)
    images = jnp.swapaxes(images.astype(sums), 0, -1)
    cotangent = jnp.moveaxis(cotangent.astype(sums), 0, -2)
    return jnp.moveaxis(native(images, cotangent, turned, precision), 0, -2).astype(kernel.dtype)


def own_kernel_gradient(
    images: Array, kernel: Array, cotangent: Array, window: Window, precision: Any = None, *, blocks: bool = False
) -> Array:
    """The transpose of `patches` or `shifts`, linear in the kernel; `blocks`: summed over some examples at a time."""
    algorithm = shifts if is_depthwise(images, window) else patches
    sums = jnp.promote_types(cotangent.dtype, jnp.float32)

    def of(images: Array, cotangent: Array) -> Array:
        options = {"window": window, "precision": precision, "element_type": sums, "once": False}
        forward = functools.partial(algorithm, images, **options)
        (gradient,) = jax.linear_transpose(forward, kernel)(cotangent.astype(sums))
        return gradient.astype(sums)

    size = examples_at_a_time(images, kernel, cotangent) if blocks and blocks_pay() else images.shape[0]
    if size == images.shape[0]:
        return of(images, cotangent).astype(kernel.dtype)
    pairs = tuple(x.reshape(x.shape[0] // size, size, *x.shape[1:]) for x in (images, cotangent))
    total, _ = lax.scan(lambda total, pair: (total + of(*pair), None), jnp.zeros(kernel.shape, sums), pairs)
    return total.astype(kernel.dtype)


KERNEL_GRADIENTS: dict[str, Callable[..., Array]] = {
    "native": native_kernel_gradient,
    "patches": own_kernel_gradient,
    "patches in blocks": functools.partial(own_kernel_gradient, blocks=True),
    "shifts": own_kernel_gradient,
    "shifts in blocks": functools.partial(own_kernel_gradient, blocks=True),
}
"""By the names that `kernels.json` uses."""
