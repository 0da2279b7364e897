"""Convolution in one layout: images [B, H, W, I], kernels [H, W, I / groups, O], any number of spatial axes.

The algorithm is chosen by platform when the program is lowered; in a traced program a convolution stands under the
name of its function.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nncompress_jax.ops.algorithms import (
    STATIC,
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


@functools.partial(jax.jit, static_argnames=(*STATIC, "reused"))
def float_convolution(
    images: Array,
    kernel: Array,
    window: Window,
    precision: Any = None,
    element_type: Any = None,
    reused: bool = False,
) -> Array:
    """What `convolution` is in a program; `reused`: several operations use the result, as in training."""
    options = {"window": window, "precision": precision, "element_type": element_type}
    cpu = functools.partial(cpu_algorithm(images, kernel, window, reused=reused), **options)
    return lax.platform_dependent(images, kernel, cpu=cpu, default=functools.partial(native, **options))


@functools.partial(jax.jit, static_argnames=STATIC)
def float_convolution_gradients(
    images: Array, kernel: Array, cotangent: Array, window: Window, precision: Any = None, element_type: Any = None
) -> tuple[Array, Array]:
    """Of images and kernel. Left to JAX, the choice of the forward pass would run its transposes in slow loops."""

    def default(images: Array, kernel: Array, cotangent: Array) -> tuple[Array, Array]:
        forward = functools.partial(native, window=window, precision=precision, element_type=element_type)
        return jax.vjp(forward, images, kernel)[1](cotangent)

    def cpu(images: Array, kernel: Array, cotangent: Array) -> tuple[Array, Array]:
        if not fits(images, kernel.shape[:-2], window):
            return default(images, kernel, cotangent)
        return gradients(images, kernel, cotangent, window, precision)

    return lax.platform_dependent(images, kernel, cotangent, cpu=cpu, default=default)


def gradients(
    images: Array, kernel: Array, cotangent: Array, window: Window, precision: Any = None
) -> tuple[Array, Array]:
    """Of images and kernel, as a CPU runs them well."""
    arguments = (images, kernel, cotangent, window, precision)
    name = fastest("kernel gradient", images.dtype, convolution_class(images, kernel, window))
    return _images_gradient(*arguments), KERNEL_GRADIENTS[name](*arguments)


def _images_gradient(images: Array, kernel: Array, cotangent: Array, window: Window, precision: Any) -> Array:
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
        return jax.linear_transpose(forward, kernel.astype(sums))(cotangent.astype(sums))[0].astype(kernel.dtype)
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


def _forward(images: Array, kernel: Array, *options: Any) -> tuple[Array, tuple[Array, Array]]:
    return float_convolution(images, kernel, *options, reused=True), (images, kernel)


def _backward(window: Window, precision: Any, element_type: Any, saved: Any, cotangent: Array) -> tuple[Array, Array]:
    return float_convolution_gradients(*saved, cotangent, window, precision, element_type)


convolution.defvjp(_forward, _backward)


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
