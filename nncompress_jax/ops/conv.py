"""Convolution in one layout: images [B, H, W, I], kernels [H, W, I / groups, O], any number of spatial axes.

The algorithm is chosen by platform when the program is lowered; in a traced program a convolution stands under the
name of its function.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.extend import core
from jax.interpreters import ad, batching, mlir

from nncompress_jax.ops.algorithms import (
    STATIC,
    cpu_algorithm,
    native,
)
from nncompress_jax.ops.gradients import images_gradient, kernel_gradient
from nncompress_jax.ops.windows import Window
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


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def convolution(images: Array, kernel: Array, window: Window, precision: Any = None, element_type: Any = None) -> Array:
    """Convolution (cross-correlation), and its derivatives, in the form that each platform runs well.

    Args:
      images: [B, H, W, I] float (one spatial axis or more).
      kernel: [H, W, I / groups, O].
      window: how the kernel moves.
      precision: as `lax.conv_general_dilated`'s.
      element_type: of the result; by default that of the operands.

    Returns:
      [B, H, W, O].

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


_form = core.Primitive("convolution_form")
"""The sum of outputs * convolution(images, kernel) is linear in all three. Its derivative by the one that is `missing`
takes the other two: these are the convolution and both its gradients, and of all of them the derivatives, too. The
parameters: `missing`, `like` (the type of the result), `window`, `precision`."""

ROLES = ("images", "kernel", "outputs")


def _derivative(*operands: Array, missing: str, like: Any, **options: Any) -> Array:
    if missing == "outputs":
        return float_convolution(*operands, **options, element_type=like.dtype)
    gradient = images_gradient if missing == "images" else kernel_gradient
    return gradient(*operands, like=like, **options)


def _transposed(place: int, cotangent: Array, *operands: Any, missing: str, **params: Any) -> Array:
    roles = [role for role in ROLES if role != missing]
    given = {missing: cotangent, roles[1 - place]: operands[1 - place]}
    params |= {"missing": roles[place], "like": operands[place].aval}
    return _form.bind(*(given[role] for role in ROLES if role in given), **params)


def _batched(operands: Sequence[Array], axes: Sequence[int | None], **params: Any) -> tuple[Array, int]:
    """Several at once are one: of more examples where all share a kernel, of more groups where each has its own."""
    roles = [role for role in ROLES if role != params["missing"]]
    (count, *_) = (x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    of_groups = "kernel" not in roles or axes[roles.index("kernel")] is not None
    place = -1 if of_groups else 0  # of the axis that grows

    def grown(x: Array, axis: int | None) -> Array:
        x = jnp.broadcast_to(x, (count, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        x = jnp.moveaxis(x, 0, x.ndim - 2 if of_groups else 0)
        return lax.collapse(x, x.ndim - 2, x.ndim) if of_groups else lax.collapse(x, 0, 2)

    folded = [
        grown(x, axis) if of_groups or role != "kernel" else x
        for role, x, axis in zip(roles, operands, axes, strict=True)
    ]
    shape, window = list(params["like"].shape), params["window"]
    size = shape[place]
    shape[place] = count * size
    groups = window.groups * (count if of_groups else 1)
    changed = {"like": params["like"].update(shape=tuple(shape)), "window": dataclasses.replace(window, groups=groups)}
    result = _form.bind(*folded, **params | changed)
    split = (*shape[:-1], count, size) if of_groups else (count, size, *shape[1:])
    return result.reshape(split), len(shape) - 1 if of_groups else 0


_form.def_impl(jax.jit(_derivative, static_argnames=("missing", "like", "window", "precision")))
_form.def_abstract_eval(lambda *_, like, **__: like)
mlir.register_lowering(_form, mlir.lower_fun(_derivative, multiple_results=False))
ad.defbilinear(_form, functools.partial(_transposed, 0), functools.partial(_transposed, 1))
batching.primitive_batchers[_form] = _batched


def derivative_program(equation: Any) -> Any:
    """The program of an equation that is one of these derivatives; None for others."""
    if equation.primitive is not _form:
        return None
    return jax.make_jaxpr(functools.partial(_derivative, **equation.params))(*(x.aval for x in equation.invars))


def linear_convolution(
    images: Array, kernel: Array, window: Window, precision: Any = None, element_type: Any = None
) -> Array:
    """`convolution` as derivatives hold it: one operation, whose transposes are the gradients' own forms."""
    varying = [jax.typeof(x).manual_axis_type.varying for x in (images, kernel)]  # of jax.shard_map
    images, kernel = (
        x if own == varying[0] | varying[1] else lax.pcast(x, tuple((varying[0] | varying[1]) - own), to="varying")
        for x, own in zip((images, kernel), varying, strict=True)
    )
    forward = functools.partial(native, window=window, precision=precision, element_type=element_type)
    (like,) = jax.make_jaxpr(forward)(images, kernel).out_avals
    return _form.bind(images, kernel, missing="outputs", like=like, window=window, precision=precision)


@functools.partial(convolution.defjvp, symbolic_zeros=True)
def _(window: Window, precision: Any, element_type: Any, primals: Any, tangents: Any) -> Any:
    (images, kernel), (of_images, of_kernel) = primals, tangents
    outputs = float_convolution(images, kernel, window, precision, element_type, reused=True)
    form = functools.partial(linear_convolution, window=window, precision=precision, element_type=element_type)
    terms = [] if isinstance(of_images, SymbolicZero) else [form(of_images, kernel)]
    terms += [] if isinstance(of_kernel, SymbolicZero) else [form(images, of_kernel)]
    return outputs, functools.reduce(jnp.add, terms)


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
