"""What must hold of a compressed weight before a program may run on it: checked where it comes from outside."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nncompress_jax.ops.packing import unpack
from nncompress_jax.weights.base import is_compressed
from nncompress_jax.weights.binary import Binary, FakeBinary
from nncompress_jax.weights.channel_pruned import ChannelPruned
from nncompress_jax.weights.channels import Channels
from nncompress_jax.weights.clustered import Clustered
from nncompress_jax.weights.fake_quantized import FakeQuantized
from nncompress_jax.weights.low_rank import LowRank
from nncompress_jax.weights.packed import Packed
from nncompress_jax.weights.quantized import Quantized
from nncompress_jax.weights.sparse import Sparse, SparseGroups

FLOATS = ("float16", "bfloat16", "float32", "float64")
INSIDE: dict[type, tuple[type, ...]] = {
    ChannelPruned: (Quantized, FakeQuantized, Binary, FakeBinary, Clustered, Sparse, SparseGroups, LowRank),
    LowRank: (Quantized, FakeQuantized, Sparse, SparseGroups, Clustered),
    Sparse: (Quantized, Clustered),
    SparseGroups: (Quantized, Clustered),
}
"""Which types may be what another holds."""


def fault(weight: Any) -> str | None:
    """What is wrong with a compressed weight, in words; None: it is sound.

    Args:
      weight: with arrays of numpy or on a device as parts.

    Example:
      >>> fault(Clustered(np.zeros(2, np.float32), np.array([[0, 1, 2]], np.uint8)))
      'codes up to 2 for 2 values'
    """
    if not isinstance(weight, ChannelPruned | Packed) and weight.dtype_name not in FLOATS:
        return f"dtype_name {str(weight.dtype_name)[:20]!r}, expected one of {', '.join(FLOATS)}"
    return CHECKS[type(weight)](weight)


def _quantized(weight: Quantized) -> str | None:
    if wrong := _codes(weight.codes, "int8"):
        return wrong
    shape = weight.codes.shape
    if not _is(weight.scale, "float32", len(shape)):
        return _found("scale", weight.scale, f"float32 of {len(shape)} axes")
    sizes = zip(weight.scale.shape, shape, strict=True)
    if any(size < 1 or whole % size for size, whole in sizes if size != whole):
        return f"scale {list(weight.scale.shape)} for codes {list(shape)}"
    if weight.input_scale is not None and not (_is(weight.input_scale, "float32") and weight.input_scale.ndim < 2):
        return _found("input_scale", weight.input_scale, "a float32")
    zero = weight.zero_point
    if zero is not None and not (_is(zero, "int8") and zero.shape == weight.scale.shape):
        return _found("zero_point", zero, f"int8 {list(weight.scale.shape)}")
    if weight.straight is not None and not (_is(weight.straight, "float32") and weight.straight.shape == shape):
        return _found("straight", weight.straight, f"float32 {list(shape)}")
    return None if type(weight.integer) is bool else f"integer is {str(weight.integer)[:20]!r}"


def _fake_quantized(weight: FakeQuantized) -> str | None:
    if not _is(weight.weight, "float32"):
        return _found("weight", weight.weight, "float32")
    rank, axes = weight.weight.ndim, weight.axes
    if weight.bits not in (2, 4, 8) or type(weight.tracked) is not bool:
        return f"bits {str(weight.bits)[:20]}, tracked {str(weight.tracked)[:20]}"
    if type(axes) is not tuple or any(type(axis) is not int or not -rank <= axis < rank for axis in axes):
        return f"axes {str(axes)[:40]} of {rank}"
    scale = weight.scale
    if scale is not None and not _fits(scale, weight.weight.shape):
        return _found("scale", scale, f"float32 that fits {list(weight.weight.shape)}")
    if weight.input_scale is not None and not (_is(weight.input_scale, "float32") and weight.input_scale.ndim < 2):
        return _found("input_scale", weight.input_scale, "a float32")
    return None


def _binary(weight: Binary) -> str | None:
    wrong = _codes(weight.signs, "int8", most=1)
    if wrong or not _fits(weight.scale, weight.signs.shape) or weight.inputs not in ("float", "int8", "sign"):
        return wrong or f"scale {list(np.shape(weight.scale))}, inputs {str(weight.inputs)[:20]!r}"
    return None


def _fake_binary(weight: FakeBinary) -> str | None:
    if not _is(weight.weight, "float32") or weight.weight.ndim < 1:
        return _found("weight", weight.weight, "float32")
    known = weight.inputs in ("float", "int8", "sign") and type(weight.scaled) is bool
    return None if known else f"inputs {str(weight.inputs)[:20]!r}, scaled {str(weight.scaled)[:20]}"


def _clustered(weight: Clustered) -> str | None:
    if wrong := _codes(weight.codes, "uint8"):
        return wrong
    book = weight.codebook
    if not _is(book, "float32") or book.ndim not in (1, 2) or not 2 <= book.shape[0] <= 256:
        return _found("codebook", book, "float32 [K] or [K, O], K from 2 to 256")
    if book.ndim == 2 and book.shape[1] != weight.codes.shape[-1]:
        return f"codebook {list(book.shape)} for codes {list(weight.codes.shape)}"
    largest = _largest(weight.codes)
    return None if largest < book.shape[0] else f"codes up to {largest} for {book.shape[0]} values"


def _sparse(weight: Sparse) -> str | None:
    shape, places = weight.dense_shape, weight.positions
    if type(shape) is not tuple or any(type(size) is not int or not 0 <= size < 2**31 for size in shape):
        return f"dense_shape {str(shape)[:60]}"
    if not _is(places, "int32", 1) or not places.size:
        return _found("positions", places, "int32 [n], n at least 1")
    if wrong := _values(weight, places.shape):
        return wrong
    held, size = np.asarray(places), math.prod(shape)
    if held[0] < 0 or held[-1] >= size or (np.diff(held) <= 0).any():
        return f"positions from {held[0]} to {held[-1]} of {size}, expected ascending ones"
    return None


def _sparse_groups(weight: SparseGroups) -> str | None:
    places = weight.positions
    if wrong := _codes(places, "uint8"):
        return wrong
    if len(places.shape) < 3 or type(weight.group) is not int or not places.shape[-2] <= weight.group <= 256:
        return f"positions {list(places.shape)} in groups of {str(weight.group)[:20]}"
    held = np.sort(_unpacked(places), axis=-2)
    if held.size and (held.max() >= weight.group or (np.diff(held.astype(np.int16), axis=-2) == 0).any()):
        return f"positions up to {held.max()}, or twice the same, in groups of {weight.group}"
    return _values(weight, places.shape)


def _low_rank(weight: LowRank) -> str | None:
    factors = weight.factors
    if type(factors) is not tuple or len(factors) < 2:
        return "fewer than two factors"
    for factor in factors:
        if wrong := _inner(weight, factor):
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


def _kept(weight: ChannelPruned) -> str | None:
    if type(weight.channels) is not tuple or not any(isinstance(cut, Channels) for cut in weight.channels):
        return f"channels {str(weight.channels)[:40]}"
    if any(cut is not None and not isinstance(cut, Channels) for cut in weight.channels):
        return f"channels {str(weight.channels)[:40]}"
    if wrong := _inner(weight, weight.values):
        return wrong
    shape = weight.values.shape
    if len(weight.channels) > len(shape):
        return f"channels of {len(weight.channels)} axes, values {list(shape)}"
    for cut, size in zip(reversed(weight.channels), reversed(shape), strict=False):
        if cut is not None and (len(cut) != size or not 0 < len(cut) < cut.size):
            return f"values {list(shape)} for channels {weight.channels}"
    fill = weight.fill
    if fill is not None and not (_is(fill, weight.values.dtype) and fill.ndim < 2):
        return _found("fill", fill, f"a {weight.values.dtype}")
    return None


def _packed(weight: Packed) -> str | None:
    parts, bits, last = weight.parts, weight.bits, weight.size_last
    if not _is(parts, "uint8") or not parts.ndim or type(last) is not int or bits not in (1, 2, 4):
        return _found("packed codes", parts, "uint8")
    if last < 1 or parts.shape[-1] != -(-last * bits // 8):
        return f"{parts.shape[-1]} bytes for {last} codes of {bits} bits"
    limits = {"int8": (-128, 127), "uint8": (0, 255)}.get(str(weight.dtype_name))
    lowest = weight.lowest
    if limits is None or type(lowest) is not int or not limits[0] <= lowest <= limits[1] + 1 - 2**bits:
        return f"codes from {str(lowest)[:20]} of {str(weight.dtype_name)[:20]!r}"
    used = last * bits % 8
    if used and (np.asarray(parts)[..., -1] >> used).any():
        return "bits behind the last code that are not 0"
    return None


CHECKS: dict[type, Callable[[Any], str | None]] = {
    Quantized: _quantized,
    FakeQuantized: _fake_quantized,
    Binary: _binary,
    FakeBinary: _fake_binary,
    Clustered: _clustered,
    Sparse: _sparse,
    SparseGroups: _sparse_groups,
    LowRank: _low_rank,
    ChannelPruned: _kept,
    Packed: _packed,
}


def _is(part: Any, dtype: Any, rank: int | None = None) -> bool:
    """Whether a part is an array of that type and rank."""
    if is_compressed(part) or not hasattr(part, "dtype"):
        return False
    return part.dtype == dtype and rank in (None, part.ndim)


def _fits(scale: Any, shape: tuple[int, ...]) -> bool:
    """Whether it is a float32 that is broadcast to the shape."""
    if not _is(scale, "float32", len(shape)):
        return False
    return all(size in (1, whole) for size, whole in zip(scale.shape, shape, strict=True))


def _codes(codes: Any, dtype: str, most: int | None = None) -> str | None:
    """What is wrong with whole numbers, packed or not."""
    if isinstance(codes, Packed):
        wrong = _packed(codes)
        if wrong or codes.dtype_name != dtype:
            return wrong or f"packed codes of {codes.dtype_name}, expected {dtype}"
    elif not _is(codes, dtype) or not codes.ndim:
        return _found("codes", codes, dtype)
    if most is not None and (_largest(codes) > most or _unpacked(codes).min(initial=0) < 0):
        return f"codes up to {_largest(codes)}, expected 0 to {most}"
    return None


def _largest(codes: Any) -> int:
    return int(_unpacked(codes).max(initial=0))


def _unpacked(codes: Any) -> np.ndarray:
    if not isinstance(codes, Packed):
        return np.asarray(codes)
    return unpack(np.asarray(codes.parts), codes.bits, codes.size_last) + np.asarray(codes.lowest, codes.dtype_name)


def _values(weight: Sparse | SparseGroups, shape: tuple[int, ...]) -> str | None:
    if wrong := _inner(weight, weight.values):
        return wrong
    found = list(weight.values.shape)
    return None if found == list(shape) else f"values {found} at positions {list(shape)}"


def _inner(weight: Any, part: Any) -> str | None:
    """What is wrong with a float array, or what may stand for one inside of this type."""
    if isinstance(part, INSIDE[type(weight)]):
        return fault(part)
    if is_compressed(part) or not hasattr(part, "dtype"):
        return f"a {type(part).__name__} inside of {type(weight).__name__}"
    if not isinstance(weight, ChannelPruned) and part.dtype.name not in FLOATS:
        return f"{part.dtype} inside of {type(weight).__name__}, expected floats"
    return None


def _found(name: str, part: Any, expected: str) -> str:
    found = f"{part.dtype} {list(part.shape)}" if hasattr(part, "dtype") else type(part).__name__
    return f"{name} {found}, expected {expected}"
