"""What the law is tried on: every weight type, and what functions do with a weight."""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import nncompress_jax as nnc
from nncompress_jax.methods.selection import LeftAlone
from nncompress_jax.weights.channel_pruned import ChannelPruned
from nncompress_jax.weights.channels import Channels
from nncompress_jax.weights.low_rank import LowRank


def draw(shape, seed):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@dataclasses.dataclass(frozen=True)
class Compression:
    """How a type is made, and how far a product of it may be from that of the dense array.

    Attributes:
      make: from a float array; one that it cannot take comes back as it is.
      input_error: of each entry of the inputs of a product, given their largest magnitude.
    """

    make: Callable[[Any], Any]
    input_error: Callable[[Any], Any] = lambda largest: 0.0


def by(*methods):
    def make(kernel):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LeftAlone)
            try:
                return nnc.compress({"kernel": kernel}, nnc.chain(*methods))["kernel"]
            except nnc.InputError:  # an odd number of input channels has no groups of two
                return kernel

    return make


def with_static_step(make):
    return lambda kernel: dataclasses.replace(make(kernel), input_scale=jnp.float32(5 / 127.5))


def low_rank(*methods, kind=""):
    """Of rank 2, whatever it costs; a method may compress the factors."""

    def make(kernel):
        random = np.random.default_rng(0)
        *spatial, inputs, outputs = kernel.shape
        ones = [1] * len(spatial)
        shapes = {
            "": [(*ones, inputs, 2), (*spatial, 2, 3), (*ones, 3, outputs)] if spatial else [(inputs, 2), (2, outputs)],
            "spatial": [(*spatial[:1], *ones[1:], inputs, 2), (*ones[:1], *spatial[1:], 2, outputs)],
            "cp": [
                (*ones, inputs, 2),
                *[(*ones[:i], size, *ones[i + 1 :], 1, 2) for i, size in enumerate(spatial)],
                (*ones, 2, outputs),
            ],
        }[kind]
        if inputs == 1:
            return kernel
        factors = [jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in shapes]
        weight = {"kernel": LowRank(tuple(factors))}
        return nnc.compress(weight, nnc.chain(*methods))["kernel"] if methods else weight["kernel"]

    return make


def by_255(stages=1):
    return lambda largest: stages * largest / 255


def half_of_the_channels(make=lambda kernel: kernel, fill=None):
    """Every second input and output channel; what is there may be compressed."""

    def made(kernel):
        cuts = [None] * (kernel.ndim - 2)
        cuts += [Channels.of(size, range(0, size, 2)) if size > 1 else None for size in kernel.shape[-2:]]
        for axis, cut in enumerate(cuts):
            kernel = kernel if cut is None else jnp.take(kernel, cut.indices, axis)
        return ChannelPruned(make(kernel), fill, tuple(cuts))

    return made


WEIGHTS = {
    "Quantized": Compression(by(nnc.quantize()), by_255()),
    "Quantized, one scale": Compression(by(nnc.quantize(axes=())), by_255()),
    "Quantized, scale by input channel": Compression(by(nnc.quantize(axes=(-2,))), by_255()),
    "Quantized, scale by both": Compression(by(nnc.quantize(axes=(-1, -2))), by_255()),
    "Quantized, static range": Compression(with_static_step(by(nnc.quantize())), lambda largest: 5 / 255),
    "Quantized, weight only": Compression(by(nnc.quantize(inputs=False))),
    "Quantized, 4 bits": Compression(by(nnc.quantize(bits=4)), by_255()),
    "Quantized, 3 bits": Compression(by(nnc.quantize(bits=3)), by_255()),
    "Quantized, 2 bits in groups": Compression(by(nnc.quantize(bits=2, group=2, where="kernel"))),
    "Quantized, 4 bits, zero point": Compression(by(nnc.quantize(bits=4, symmetric=False))),
    "FakeQuantized": Compression(by(nnc.fake_quantize()), by_255()),
    "FakeQuantized, 2 bits, learned steps": Compression(by(nnc.fake_quantize(bits=2, learned_scales=True)), by_255()),
    "FakeQuantized, static range": Compression(with_static_step(by(nnc.fake_quantize(bits=4))), lambda _: 5 / 255),
    "Binary": Compression(by(nnc.binarize())),
    "Binary, 8-bit inputs": Compression(by(nnc.binarize(inputs="int8")), by_255()),
    "FakeBinary": Compression(by(nnc.binarize(train=True, inputs="int8")), by_255()),
    "FakeBinary, unscaled": Compression(by(nnc.binarize(train=True, scaled=False))),
    "Clustered": Compression(by(nnc.cluster(bits=3))),
    "Clustered by channel": Compression(by(nnc.cluster(bits=1, by_channel=True))),
    "FakeTernary": Compression(by(nnc.ternarize(train=True))),
    "Hashed": Compression(by(nnc.hash_weights(share=0.3))),
    "Sparse": Compression(by(nnc.prune(sparsity=0.5))),
    "SparseGroups": Compression(by(nnc.prune(pattern=(1, 2)))),
    "Sparse of Quantized": Compression(by(nnc.prune(sparsity=0.5), nnc.quantize(axes=())), by_255()),
    "Sparse of Clustered": Compression(by(nnc.prune(sparsity=0.5), nnc.cluster(bits=2))),
    "SparseGroups of Quantized": Compression(by(nnc.prune(pattern=(1, 2)), nnc.quantize()), by_255()),
    "LowRank": Compression(low_rank()),
    "LowRank, spatial": Compression(low_rank(kind="spatial")),
    "LowRank, canonical polyadic": Compression(low_rank(kind="cp")),
    "LowRank of Quantized": Compression(low_rank(nnc.quantize()), by_255(3)),
    "LowRank of FakeQuantized": Compression(low_rank(nnc.fake_quantize()), by_255(3)),
    "LowRank of Sparse": Compression(low_rank(nnc.prune(sparsity=0.3))),
    "LowRank of Clustered": Compression(low_rank(nnc.cluster(bits=2))),
    "ChannelPruned": Compression(half_of_the_channels()),
    "ChannelPruned, filled": Compression(half_of_the_channels(fill=jnp.float32(0.5))),
}
INSIDE = (
    *("Quantized", "FakeQuantized", "Binary", "FakeBinary", "FakeTernary", "Clustered", "Hashed"),
    *("Sparse", "SparseGroups", "LowRank", "Sparse of Quantized", "LowRank of Quantized"),
)
WEIGHTS |= {
    f"ChannelPruned of {name}": Compression(half_of_the_channels(WEIGHTS[name].make), WEIGHTS[name].input_error)
    for name in INSIDE
}


def convolution(**options):
    def run(w, x):
        return lax.conv_general_dilated(
            x,
            w,
            **({"window_strides": (1, 1), "padding": "SAME"} | options),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    return run


# (kernel's shape, inputs' shape, function), linear in the inputs.
PRODUCTS = {
    "convolution": ((3, 3, 4, 6), (2, 8, 8, 4), convolution()),
    "strided": ((3, 3, 4, 6), (2, 8, 8, 4), convolution(window_strides=(2, 2))),
    "dilated": ((3, 3, 4, 6), (2, 8, 8, 4), convolution(rhs_dilation=(2, 2))),
    "grouped": ((3, 3, 2, 6), (2, 8, 8, 4), convolution(feature_group_count=2)),
    "depthwise": ((3, 3, 1, 4), (2, 8, 8, 4), convolution(feature_group_count=4)),
    "tiny image": ((3, 3, 4, 6), (2, 2, 2, 4), convolution()),
    "pointwise": ((1, 1, 4, 6), (2, 8, 8, 4), convolution()),
    "batch groups": ((3, 3, 4, 6), (2, 8, 8, 4), convolution(batch_group_count=2)),
    "transposed": ((3, 3, 4, 6), (2, 8, 8, 4), lambda w, x: lax.conv_transpose(x, w, (2, 2), "SAME")),
    "transposed, flipped": (
        (3, 3, 6, 4),
        (2, 8, 8, 4),
        lambda w, x: lax.conv_transpose(x, w, (2, 2), "SAME", transpose_kernel=True),
    ),
    "one axis": (
        (3, 4, 6),
        (2, 8, 4),
        lambda w, x: lax.conv_general_dilated(x, w, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")),
    ),
    "channels first": (
        (3, 3, 4, 6),
        (2, 4, 8, 8),
        lambda w, x: lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NCHW", "HWIO", "NCHW")),
    ),
    "dense": ((4, 6), (2, 4), lambda w, x: x @ w),
    "dense, kernel first": ((4, 6), (4, 2), lambda w, x: w.T @ x),
    "tied embedding": ((6, 4), (2, 5, 4), lambda w, x: x @ w.T),
    "heads": ((4, 3, 6), (2, 5, 4), lambda w, x: jnp.einsum("bti,ihd->bthd", x, w)),
    "back from heads": ((3, 6, 4), (2, 5, 3, 6), lambda w, x: jnp.einsum("bthd,hdo->bto", x, w)),
    "expert for each": ((3, 4, 6), (3, 5, 4), lambda w, x: jnp.einsum("eti,eio->eto", x, w)),
    "ragged": ((3, 4, 6), (5, 4), lambda w, x: lax.ragged_dot(x, w, jnp.array([2, 0, 3]))),
    "merged axes": ((4, 3, 6), (2, 4), lambda w, x: x @ w.reshape(4, 18)),
    "split axis": ((4, 18), (2, 4), lambda w, x: jnp.einsum("bi,ihd->bhd", x, w.reshape(4, 3, 6))),
    "scaled": ((4, 6), (2, 4), lambda w, x: x @ (2 * w / 3)),
    "one image of a convolution as dense": ((1, 1, 4, 6), (2, 4), lambda w, x: x @ w[0, 0]),
    "under jit": ((4, 6), (2, 4), lambda w, x: jax.jit(lambda a, b: b @ a)(w, x)),
    "under vmap": ((3, 4, 6), (3, 5, 4), lambda w, x: jax.vmap(lambda w, x: x @ w)(w, x)),
    "integers": ((4, 6), (2, 4), lambda w, x: jnp.round(x).astype(jnp.int32) @ w),
}

OTHERS = {
    "plus one": lambda w: w + 1,
    "sigmoid": jax.nn.sigmoid,
    "exp, summed": lambda w: jnp.exp(w).sum(-1),
    "where": lambda w: jnp.where(w > 0.1, w, 5.0),
    "square": lambda w: w**2,
    "negative": lambda w: -w,
    "product with itself": lambda w: w.T @ w,
    "times an array": lambda w: w * jnp.arange(w.shape[-1]),
    "halved": lambda w: w / 2,
    "norm": lambda w: jnp.linalg.norm(w, axis=0),
    "sorted": lambda w: jnp.sort(w, axis=0),
    "cumulative": lambda w: jnp.cumsum(w, axis=1),
    "largest": lambda w: (w.max(), w.argmax(0)),
    "transposed": lambda w: w.T,
    "flipped": lambda w: jnp.flip(w),
    "reshaped": lambda w: w.reshape(2, -1, 3),
    "flat": lambda w: w.ravel(),
    "an axis more": lambda w: (w.reshape(*w.shape, 1), w.reshape(1, *w.shape), w.reshape(4, 1, 6)),
    "broadcast": lambda w: jnp.broadcast_to(w[:, None], (4, 5, 6)),
    "row": lambda w: w[1],
    "rows": lambda w: jnp.take(w, jnp.array([2, 0, 2]), axis=0),
    "sliced": lambda w: w[1:3, ::2],
    "joined": lambda w: jnp.concatenate([w, w], axis=1),
    "cast to integers": lambda w: (8 * w).astype(jnp.int32),
    "as it is": lambda w: w,
    "shape and type": lambda w: jnp.zeros(w.shape, w.dtype),
}
