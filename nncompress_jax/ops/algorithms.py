"""Three ways to compute the same convolution, and which of them a CPU runs well.

`native` is the backend's own operation, `patches` lays the windows of an image side by side for one dot product,
`shifts` adds up shifted images, each times one tap of a depthwise kernel. In a traced program each stands under its
name. Images are [B, H, W, I], kernels [H, W, I / groups, O], with any number of spatial axes.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.export import is_symbolic_dim

from nncompress_jax.ops.kernels import convolution_class, fastest
from nncompress_jax.ops.windows import Window, fits, taps
from nncompress_jax.types import Array

STATIC = ("window", "precision", "element_type")

BLOCK_BYTES = 2**22
"""Of the windows that lie side by side at a time on the CPU, or as many as the kernel has: they stay in its cache."""


WORD_BYTES = 4
"""Integer units multiply and add so many bytes at a time."""


def cpu_algorithm(images: Array, kernel: Array, window: Window, *, reused: bool = False) -> Callable[..., Array]:
    """The fastest one for such shapes on a CPU.

    Sums of shifted images that several operations use are computed in blocks, so that XLA does not fuse them into each:
    no operation alone shows it, but VGG16-DS trains 8 % faster.

    Args:
      images: [B, H, W, I].
      kernel: [H, W, I / groups, O].
      window: how the kernel moves.
      reused: several operations use the result, as in training.

    Returns:
      `native`, `patches` or `shifts`, with its options.
    """
    if not fits(images, kernel.shape[:-2], window):
        return native
    name = fastest("convolution", images.dtype, convolution_class(images, kernel, window))
    if reused and name == "shifts":
        name = "shifts in blocks"
    return ALGORITHMS[name if blocks_pay() else name.removesuffix(" in blocks")]


def blocks_pay() -> bool:
    """Whether to go through the examples in blocks: several devices that share them would all wait in each turn."""
    return jax.device_count() == 1


def is_depthwise(images: Array, window: Window) -> bool:
    """Whether each input channel is a group of its own."""
    return window.groups == images.shape[-1] and window.groups > 1


def channels_last(rank: int) -> lax.ConvDimensionNumbers:
    """lax's name for images [B, H, W, I] and kernels [H, W, I, O], of so many axes."""
    images = (0, rank - 1, *range(1, rank - 1))
    return lax.ConvDimensionNumbers(images, (rank - 1, rank - 2, *range(rank - 2)), images)


@functools.partial(jax.jit, static_argnames=STATIC)
def native(images: Array, kernel: Array, window: Window, precision: Any = None, element_type: Any = None) -> Array:
    """The backend's own convolution."""
    return lax.conv_general_dilated(
        images,
        kernel,
        window.strides,
        window.padding,
        window.image_dilation,
        window.kernel_dilation,
        channels_last(images.ndim),
        window.groups,
        precision=precision,
        preferred_element_type=element_type,
    )


@functools.partial(jax.jit, static_argnames=(*STATIC, "multiple", "blocks", "once"))
def patches(
    images: Array,
    kernel: Array,
    window: Window,
    precision: Any = None,
    element_type: Any = None,
    multiple: int = 1,
    blocks: bool = False,
    once: bool = True,
) -> Array:
    """Windows side by side, and one dot product with the kernel for each group.

    Args:
      images: [B, H, W, I].
      kernel: [H, W, I / groups, O].
      window: how the kernel moves.
      precision: of the dot product.
      element_type: of the result.
      multiple: zeros fill up the sums of products to a multiple of so many; those of bytes to whole words at least.
      blocks: as many examples at a time as stay in the cache, unless the outputs are larger than the patches.
      once: as of `taps`, but for blocks.
    """
    options = {"precision": precision, "preferred_element_type": element_type}
    once = once and not blocks
    forward = functools.partial(_patches, kernel=kernel, window=window, multiple=multiple, once=once, options=options)
    outputs = jax.eval_shape(forward, images)
    size = examples_at_a_time(images, kernel, outputs)
    window_bytes = math.prod(kernel.shape[:-2]) * images.shape[-1] * images.dtype.itemsize
    if not blocks or size == images.shape[0] or window_bytes <= kernel.shape[-1] * outputs.dtype.itemsize:
        return forward(images)
    return lax.map(forward, images.reshape(images.shape[0] // size, size, *images.shape[1:])).reshape(outputs.shape)


def _patches(
    images: Array, *, kernel: Array, window: Window, multiple: int, once: bool, options: dict[str, Any]
) -> Array:
    columns = jnp.stack(list(taps(images, kernel.shape[:-2], window, once=once)), axis=-2)
    *outer, count, channels = columns.shape
    groups, outputs = window.groups, kernel.shape[-1]
    # Axes that are spread over devices cannot be merged; others are, since the transpose of their product would copy.
    rows = outer if any(jax.typeof(columns).sharding.spec) else [math.prod(outer)]
    columns = columns.reshape(*rows, count, groups, channels // groups)
    kernel = kernel.reshape(count, channels // groups, groups, outputs // groups)
    columns = jnp.moveaxis(columns, -2, 0).reshape(groups, *rows, -1)
    kernel = jnp.moveaxis(kernel, 2, 0).reshape(groups, -1, outputs // groups)
    missing = -columns.shape[-1] % math.lcm(multiple, WORD_BYTES if images.dtype == jnp.int8 else 1)
    columns = jnp.pad(columns, (*[(0, 0)] * (columns.ndim - 1), (0, missing)))
    kernel = jnp.pad(kernel, ((0, 0), (0, missing), (0, 0)))
    last = len(rows)
    if groups == 1:
        result = lax.dot_general(columns[0], kernel[0], (((last,), (0,)), ((), ())), **options)
    else:
        result = lax.dot_general(columns, kernel, (((last + 1,), (1,)), ((0,), (0,))), **options)
        result = jnp.moveaxis(result, 0, -2)
    return result.reshape(*outer, outputs)


def examples_at_a_time(images: Array, kernel: Array, outputs: Array) -> int:
    """So many divide all examples evenly, and their windows side by side stay in a processor's cache."""
    count = math.prod(kernel.shape[:-2])
    if count == 1 or is_symbolic_dim(images.shape[0]):  # nothing is repeated, or no block divides them for sure
        return images.shape[0]
    bytes_each = count * math.prod(outputs.shape[1:-1]) * images.shape[-1] * images.dtype.itemsize
    block_bytes = max(BLOCK_BYTES, kernel.size * kernel.dtype.itemsize)  # each block reads the whole kernel
    most = min(max(block_bytes // max(bytes_each, 1), 1), images.shape[0])
    return next((size for size in range(most, 0, -1) if images.shape[0] % size == 0), 1)


@functools.partial(jax.jit, static_argnames=(*STATIC, "blocks", "once"))
def shifts(
    images: Array,
    kernel: Array,
    window: Window,
    precision: Any = None,
    element_type: Any = None,
    blocks: bool = False,
    once: bool = True,
) -> Array:
    """Sum over the taps of shifted images times the tap's weights; depthwise kernels [H, W, 1, O] only.

    `blocks`: of some examples at a time. XLA then computes each sum once, where it would fuse it into every operation
    that uses it. `once`: as of `taps`, but for blocks.
    """
    kind, once = element_type or images.dtype, once and not blocks
    forward = functools.partial(_shifts, kernel=kernel, window=window, element_type=kind, once=once)
    outputs = jax.eval_shape(forward, images)
    size = examples_at_a_time(images, kernel, outputs)
    if not blocks or size == images.shape[0]:
        return forward(images)
    return lax.map(forward, images.reshape(images.shape[0] // size, size, *images.shape[1:])).reshape(outputs.shape)


def _shifts(images: Array, *, kernel: Array, window: Window, element_type: Any, once: bool) -> Array:
    # The product of two 8-bit integers fits into 16 bits, of which a processor multiplies twice as many at a time.
    exact = jnp.float32 if jnp.issubdtype(element_type, jnp.floating) else jnp.int16
    factors = jnp.promote_types(images.dtype, exact)
    sums = jnp.promote_types(element_type, factors)
    weights = kernel.reshape(-1, kernel.shape[-1]).astype(factors)
    copies = kernel.shape[-1] // images.shape[-1]
    seen = taps(images, kernel.shape[:-2], window, once=once)
    shifted = (jnp.repeat(tap, copies, axis=-1).astype(factors) for tap in seen)
    products = ((tap * weight).astype(sums) for tap, weight in zip(shifted, weights, strict=True))
    return functools.reduce(jnp.add, products).astype(element_type)


ALGORITHMS: dict[str, Callable[..., Array]] = {
    "native": native,
    "patches": patches,
    "patches in blocks": functools.partial(patches, blocks=True),
    "shifts": shifts,
    "shifts in blocks": functools.partial(shifts, blocks=True),
}
"""By the names that `kernels.json` uses; `shifts` are for depthwise kernels alone."""
