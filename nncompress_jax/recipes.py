"""Compressing variables, by one method or a chain of them, and undoing it."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from nncompress_jax.errors import InputError
from nncompress_jax.methods.binarize import binarize
from nncompress_jax.methods.channels.pruning import prune_channels
from nncompress_jax.methods.channels.unused import remove_unused_channels
from nncompress_jax.methods.cluster import cluster
from nncompress_jax.methods.factorize import factorize
from nncompress_jax.methods.fake_quantize import fake_quantize
from nncompress_jax.methods.hash_weights import hash_weights
from nncompress_jax.methods.layout import context_of
from nncompress_jax.methods.prune import prune
from nncompress_jax.methods.quantize import quantize
from nncompress_jax.methods.ternarize import ternarize
from nncompress_jax.types import Apply, Context, Method
from nncompress_jax.weights.base import dense, is_compressed


def compress(
    variables: Any, method: Method | None = None, *, apply: Apply | None = None, batches: Sequence[Any] = ()
) -> Any:
    """Compresses the weights of a network.

    Args:
      variables: any pytree of arrays; it stays as it is. Arrays that the method does not take stand in both trees: a
        program that donates one tree takes them from the other, so copy it first: `jax.tree.map(jnp.copy, small)`.
      method: what is done, such as `quantize(...)` or `chain(...)`; by default 8-bit integers, one scale for each
        output channel, in every kernel and every larger matrix.
      apply: the network. With it and `batches` every method knows what the axes of each weight are for; some need it.
      batches: representative inputs; each a tuple of apply's further arguments, or the only one: an array, a dict.
        Labels are no part of them.

    Returns:
      The same tree with compressed weights in the leaves' places; for `inject(apply)`.

    Raises:
      InputError: as the method says; for traced variables (under `jax.jit`, `vmap`, `eval_shape`), where the method
        keeps what depends on their values. Integers, floats that stand for them and signs do not.

    Example:
      >>> import jax.numpy as jnp
      >>> small = compress({"kernel": jnp.ones((64, 64)), "bias": jnp.ones(64)})
      >>> type(small["kernel"]).__name__, small["kernel"].shape, small["kernel"].nbytes
      ('Quantized', (64, 64), 4352)
    """
    try:
        return (method or quantize())(variables, context_of(variables, apply, batches))
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError):
        raise InputError(
            "what is kept depends on values, and those of traced variables are not known; "
            "compress outside of jax.jit, vmap and eval_shape"
        ) from None


def decompress(variables: Any) -> Any:
    """The same tree with dense arrays in the places of compressed weights; one at several places stays one.

    Arrays that were dense stand in both trees, as with `compress`. Removed channels are zeros, and the dense network
    computes what the cut one does, but where a program divides them by zero, as weight normalization without an
    epsilon does: there `nnc.inject` takes 0/0 for zero, and the dense network makes NaN. `prune_channels` warns of it.

    Example:
      >>> import jax.numpy as jnp
      >>> decompress(compress({"kernel": jnp.ones((64, 64))}))["kernel"].shape
      (64, 64)
    """
    leaves, structure = jax.tree.flatten(variables, is_leaf=is_compressed)
    once = {id(leaf): dense(leaf) for leaf in leaves}
    return jax.tree.unflatten(structure, [once[id(leaf)] for leaf in leaves])


def chain(*methods: Method) -> Method:
    """Several methods as one, the first first.

    Each sees what the one before it made. Where both would take the same leaf, the second refuses and names it.

    Example:
      >>> import jax.numpy as jnp
      >>> method = chain(quantize(where="a"), quantize(where="b", inputs=False))
      >>> [leaf.integer for leaf in compress({"a": jnp.ones((8, 8)), "b": jnp.ones((8, 8))}, method).values()]
      [True, False]
    """

    def method(variables: Any, context: Context) -> Any:
        return functools.reduce(lambda result, step: step(result, context), methods, variables)

    return method


STEPS: Mapping[str, tuple[str, Callable[[float], Method]]] = {
    "quantize": ("8", lambda bits: quantize(bits=_whole(bits))),
    "rate": ("2", lambda bits: quantize(rate=bits)),
    "step": ("0.01", lambda step: quantize(step=step)),
    "fake_quantize": ("8", lambda bits: fake_quantize(bits=_whole(bits), learned_scales=bits < 8)),
    "price": ("1e-7", lambda price: fake_quantize(price=price)),
    "target_rate": ("1", lambda rate: fake_quantize(target_rate=rate)),
    "binarize": ("1", lambda _: binarize()),
    "fake_binarize": ("1", lambda _: binarize(train=True)),
    "ternarize": ("1", lambda _: ternarize()),
    "fake_ternarize": ("1", lambda _: ternarize(train=True)),
    "cluster": ("4", lambda bits: cluster(bits=_whole(bits))),
    "hash": ("0.125", lambda share: hash_weights(share=share)),
    "prune": ("0.9", lambda sparsity: prune(sparsity=sparsity)),
    "prune_global": ("0.9", lambda sparsity: prune(sparsity=sparsity, scope="global")),
    "channels": ("0.5", lambda macs: prune_channels(macs=macs)),
    "unused": ("1", lambda multiple: remove_unused_channels(round_to=_whole(multiple))),
    "factorize": ("0.5", lambda macs: factorize(macs=macs)),
    "tucker": ("0.5", lambda macs: factorize(macs=macs, kind="tucker")),
    "dense": ("0", lambda _: lambda variables, context: decompress(variables)),
}
"""The words of `recipe`: the number that stands for none, and the method with a number."""


def recipe(text: str) -> Method:
    """A chain of methods in words, as commands take it.

    Args:
      text: steps joined by `+`, each a word of `STEPS` and, after a colon, its number: bits (of `rate` and
        `target_rate`: of entropy), the step between values, the price of a bit, sparsity, the share of values or of
        multiply-accumulates, or (of `unused`) a multiple that channels stay.

    Raises:
      InputError: for words or numbers that are not there.

    Example:
      >>> import jax.numpy as jnp
      >>> small = compress({"kernel": jnp.arange(64.0).reshape(8, 8)}, recipe("prune:0.5+cluster:2"))
      >>> small["kernel"].values.codebook.shape
      (4,)
    """
    methods = []
    for step in text.split("+"):
        word, _, number = step.strip().partition(":")
        if word not in STEPS:
            raise InputError(f"unknown step {word!r} in recipe {text!r}; choose of {', '.join(STEPS)}")
        default, method = STEPS[word]
        try:
            value = float(number or default)
        except ValueError:
            raise InputError(f"{step!r} in recipe {text!r}: expected a number, as in {word}:{default}") from None
        methods.append(method(value))
    return chain(*methods)


def _whole(number: float) -> int:
    if number != int(number):
        raise InputError(f"{number}: expected a whole number")
    return int(number)
