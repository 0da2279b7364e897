"""A weight as a chain of smaller ones."""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import quax
from jax import lax
from jax.core import ShapedArray
from jax.typing import ArrayLike

from nncompress_jax.axes.movements import Movement, Placing, Reading
from nncompress_jax.axes.places import Places
from nncompress_jax.ops.algorithms import channels_last
from nncompress_jax.ops.conv import Layout
from nncompress_jax.types import Array
from nncompress_jax.weights.base import CompressedWeight, dense, is_compressed, moved, on_dense, run
from nncompress_jax.weights.clustered import Clustered
from nncompress_jax.weights.fake_quantized import FakeQuantized
from nncompress_jax.weights.quantized import Quantized
from nncompress_jax.weights.sparse import Sparse, SparseGroups


class LowRank(CompressedWeight):
    """The product of its factors, in which a convolution or dot product runs one after the other.

    A factor is a kernel of the weight's own rank, with size 1 along each spatial axis that another factor spans, and
    with the outputs of the one before it as inputs; one with a single input for each output multiplies channel by
    channel (depthwise). So two factors [I, R] [R, O] are a dense weight of rank R; [H, 1, I, R] [1, W, R, O] a spatial
    pair; [1, 1, I, R] [H, W, R, S] [1, 1, S, O] a Tucker-2 decomposition; [1, 1, I, R] [H, 1, 1, R] [1, W, 1, R]
    [1, 1, R, O] a canonical polyadic one. Error: that of float sums in another order, and of each factor's own type;
    where the weight meets anything but an ungrouped convolution or a matrix product it is materialised.

    Attributes:
      factors: float, or `Quantized`, `FakeQuantized`, `Sparse` or `Clustered`, each.
      dtype_name: logical dtype.

    Source: Jaderberg et al. 2014, "Speeding up Convolutional Neural Networks with Low Rank Expansions"; Kim et al.
    2016, "Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile Applications"; Lebedev et
    al. 2015, "Speeding-up Convolutional Neural Networks Using Fine-tuned CP-Decomposition".
    """

    TRAINS: ClassVar[tuple[str, ...]] = ("factors",)
    DECAYS: ClassVar[tuple[str, ...]] = ("factors",)
    HELD: ClassVar[tuple[str, ...]] = ("factors",)
    HOLDS: ClassVar[tuple[type, ...]] = (Quantized, FakeQuantized, Sparse, SparseGroups, Clustered)

    factors: tuple[Array | CompressedWeight, ...]
    dtype_name: str = eqx.field(static=True, default="float32")

    def aval(self) -> ShapedArray:
        spatial = [max(sizes) for sizes in zip(*(factor.shape[:-2] for factor in self.factors), strict=True)]
        channels = (self.factors[0].shape[-2], self.factors[-1].shape[-1])
        return ShapedArray((*spatial, *channels), jnp.dtype(self.dtype_name))

    def materialise(self) -> Array:
        return functools.reduce(_joined, map(dense, self.factors)).astype(self.dtype_name)

    def moved(self, movement: Movement) -> Any:
        """A matrix is transposed by its factors; rows that are read are those of the first, times the others."""
        if isinstance(movement, Placing) and movement.places == Places((1, 0), (None, None)):
            return transposed(self)
        if isinstance(movement, Reading) and self.ndim == 2 and movement.keeps_last:
            first, *others = self.factors
            rows = dense(moved(first, movement))
            return functools.reduce(jnp.matmul, map(dense, others), rows).astype(self.dtype_name)
        return super().moved(movement)

    def update_ranges(self, largest: Any) -> "LowRank":
        """The inputs meet the first factor."""
        first, *others = self.factors
        return LowRank((first.update_ranges(largest) if is_compressed(first) else first, *others), self.dtype_name)

    @property
    def ranks(self) -> tuple[int, ...]:
        return tuple(factor.shape[-1] for factor in self.factors[:-1])

    @property
    def density(self) -> float | None:
        """Of its factors."""
        densities = [factor.density if is_compressed(factor) else None for factor in self.factors]
        if not any(density is not None for density in densities):
            return None
        sizes = [math.prod(factor.shape) for factor in self.factors]
        return sum((density or 1) * size for density, size in zip(densities, sizes, strict=True)) / sum(sizes)

    def check_parts(self) -> str | None:
        factors = self.factors
        if type(factors) is not tuple or len(factors) < 2:
            return "fewer than two factors"
        for factor in factors:
            if wrong := self.check_held(factor):
                return wrong
        rank = len(factors[0].shape)
        if rank < 2 or any(len(factor.shape) != rank for factor in factors):
            return f"factors {', '.join(str(list(factor.shape)) for factor in factors)[:80]}"
        for before, factor in itertools.pairwise(factors):
            given = before.shape[-1]
            if factor.shape[-2] != given and not (factor.shape[-2] == 1 and factor.shape[-1] == given):
                return f"a factor {list(factor.shape)} behind one of {given} outputs"
        for sizes in zip(*(factor.shape[:-2] for factor in factors), strict=True):
            if sum(size != 1 for size in sizes) > 1:
                return "factors that span the same axis"
        return None


def is_depthwise(before: int, factor: Any) -> bool:
    """Whether a factor multiplies the channels that it is given (`before`, so many) one by one."""
    return bool(factor.shape[-2] == 1 and factor.shape[-1] == before > 1)


def _joined(left: Array, right: Array) -> Array:
    """Of kernels that span different spatial axes: one as large as both."""
    if is_depthwise(left.shape[-1], right):
        return left * right
    return left @ right


@quax.register(lax.conv_general_dilated_p)
def _(inputs: ArrayLike, kernel: LowRank, **params: Any) -> Any:
    """The stride, padding and dilations of an axis are those of the factor that spans it."""
    layout = Layout.of(params["dimension_numbers"])
    grouped = params["feature_group_count"] != 1 or params["batch_group_count"] != 1
    if grouped or layout.kernel != tuple(range(kernel.ndim)):
        reason = "a grouped convolution" if grouped else "a kernel in another layout than [H, W, I, O]"
        return on_dense(lax.conv_general_dilated_p, (inputs, kernel), params, reason=reason)
    places = [_place([factor.shape[axis] for factor in kernel.factors]) for axis in range(kernel.ndim - 2)]
    outputs = jnp.transpose(inputs, layout.images)
    for place, factor in enumerate(kernel.factors):
        here: dict[str, Any] = {"dimension_numbers": channels_last(kernel.ndim)}
        for name, blank in (("window_strides", 1), ("padding", (0, 0)), ("lhs_dilation", 1), ("rhs_dilation", 1)):
            own = zip(params[name], places, strict=True)
            here[name] = tuple(value if spans == place else blank for value, spans in own)
        if is_depthwise(outputs.shape[-1], factor):
            here["feature_group_count"] = outputs.shape[-1]
        outputs = run(lax.conv_general_dilated_p, (outputs, _cast(factor, kernel.dtype)), params | here)
    return layout.restored(outputs)


@quax.register(lax.dot_general_p)
def _(inputs: ArrayLike, kernel: LowRank, **params: Any) -> Any:
    (inputs_axes, kernel_axes), (_, batch) = params["dimension_numbers"]
    if kernel.ndim != 2 or len(kernel_axes) != 1 or batch:
        return on_dense(lax.dot_general_p, (inputs, kernel), params, reason="not a matrix product")
    factors = kernel.factors if kernel_axes[0] == 0 else transposed(kernel).factors
    outputs = jnp.moveaxis(inputs, inputs_axes[0], -1)
    for factor in factors:
        here: dict[str, Any] = {"dimension_numbers": (((outputs.ndim - 1,), (0,)), ((), ()))}
        asked = params["out_sharding"]
        if factor is not factors[-1] and asked is not None:  # all of the rank's entries, where the results will lie
            here["out_sharding"] = asked.update(spec=jax.P(*asked.spec[: outputs.ndim - 1]))
        outputs = run(lax.dot_general_p, (outputs, _cast(factor, kernel.dtype)), params | here)
    return outputs


@quax.register(lax.dot_general_p)
def _(kernel: LowRank, inputs: ArrayLike, **params: Any) -> Any:
    (kernel_axes, inputs_axes), (batch, _) = params["dimension_numbers"]
    if kernel.ndim != 2 or len(kernel_axes) != 1 or batch or params["out_sharding"] is not None:
        return on_dense(
            lax.dot_general_p, (kernel, inputs), params, reason="not a matrix product, or with an out_sharding"
        )
    numbers = ((inputs_axes, kernel_axes), ((), ()))
    outputs = run(lax.dot_general_p, (inputs, kernel), params | {"dimension_numbers": numbers})
    return jnp.moveaxis(outputs, -1, 0)


def transposed(weight: LowRank) -> LowRank:
    """[I, O] -> [O, I]."""
    turned = [run(lax.transpose_p, (factor,), {"permutation": (1, 0)}) for factor in reversed(weight.factors)]
    return LowRank(tuple(turned), weight.dtype_name)


def _cast(factor: Any, dtype: Any) -> Any:
    return factor.cast(dtype) if is_compressed(factor) else factor.astype(dtype)


def _place(sizes: Sequence[int]) -> int:
    """Of the factor that spans an axis; the first, where none does."""
    return max(range(len(sizes)), key=lambda place: sizes[place])
