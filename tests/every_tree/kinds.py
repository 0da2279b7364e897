"""Kinds of trees: the network in every container, with leaves of every type.

Each is written as its users write it, and is asked for its arrays in its own way: nothing here is the package's.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from tests.every_tree.containers import (
    LINEN,
    Linen,
    casting,
    casting_weights,
    colliding,
    drawn_linen,
    equinox,
    frozen,
    haiku,
    linen,
    lists,
    named_tuples,
    nnx_module,
    nnx_state,
    nodes,
    of_linen,
    one_array,
    ordered,
    partitioned,
    stacked,
    whole_numbers,
    without_keys,
)
from tests.every_tree.network import WIDTH, Kind, of


def converted(convert: Callable[[Any], Any]) -> Callable[[], Kind]:
    """The linen network with each leaf as this function makes it."""

    def kind() -> Kind:
        return of(jax.tree.map(convert, drawn_linen()), of_linen, *LINEN)

    return kind


def beside(*left: str, **extra: Callable[[], Any]) -> Callable[[], Kind]:
    """The linen network, with more leaves in its tree."""

    def kind() -> Kind:
        tree = drawn_linen()
        tree["params"] |= {name: make() for name, make in extra.items()}
        return of(tree, of_linen, *LINEN, left=left)

    return kind


def strided(leaf: Any) -> np.ndarray:
    return np.repeat(np.asarray(leaf), 2, axis=-1)[..., ::2]


def read_only(leaf: Any) -> np.ndarray:
    array = np.array(leaf)
    array.flags.writeable = False
    return array


def donated(leaf: Any) -> Any:
    copy = leaf + 0
    copy.delete()
    return copy


KINDS: dict[str, Callable[[], Kind]] = {
    "linen": linen,
    "FrozenDict": frozen,
    "linen, partitioned": partitioned,
    "NNX state": nnx_state,
    "NNX module": nnx_module,
    "whole numbers as keys": whole_numbers,
    "Haiku": haiku,
    "keys that read the same": colliding,
    "Equinox": equinox,
    "lists and tuples": lists,
    "named tuples": named_tuples,
    "ordered dict": ordered,
    "dataclasses": nodes,
    "dataclasses that cast": casting,
    "dataclasses that cast weights": casting_weights,
    "nodes without keys": without_keys,
    "one array": one_array,
    "stacked": stacked,
    "bfloat16": converted(lambda leaf: leaf.astype(jnp.bfloat16)),
    "float16": converted(lambda leaf: leaf.astype(jnp.float16)),
    "float64, enabled": converted(lambda leaf: np.asarray(leaf, np.float64)),
    "float64, not enabled": converted(lambda leaf: np.asarray(leaf, np.float64)),
    "numpy": converted(np.asarray),
    "numpy, bfloat16": converted(lambda leaf: np.asarray(leaf, ml_dtypes.bfloat16)),
    "big-endian": converted(lambda leaf: np.asarray(leaf, ">f4")),
    "column-major": converted(lambda leaf: np.asfortranarray(np.asarray(leaf))),
    "strided": converted(strided),
    "read-only": converted(read_only),
    "shapes alone": converted(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)),
    "NaN": converted(lambda leaf: leaf.at[..., 0].set(jnp.nan)),
    "donated": converted(donated),
    "float8": beside("params/small/kernel", small=lambda: {"kernel": jnp.ones((WIDTH, WIDTH), jnp.float8_e4m3fn)}),
    "an empty kernel": beside("params/empty/kernel", empty=lambda: {"kernel": jnp.zeros((0, WIDTH))}),
    "a scalar kernel": beside("params/scalar/kernel", scalar=lambda: {"kernel": jnp.float32(2)}),
    "a complex kernel": beside("params/wave/kernel", wave=lambda: {"kernel": jnp.ones((WIDTH, WIDTH), jnp.complex64)}),
    "whole numbers": beside(codes=lambda: {"kernel": jnp.ones((WIDTH, WIDTH), jnp.int32), "flags": np.ones(3, bool)}),
    "random keys": beside(key=lambda: jax.random.key(0), keys=lambda: jax.random.split(jax.random.PRNGKey(0), 2)),
    "numbers of Python": beside(factor=lambda: 2.5, count=lambda: 3, flag=lambda: True, one=lambda: np.float32(3)),
    "None": beside(nothing=lambda: None, empty=dict),
    "texts": beside(name=lambda: "same", names=lambda: ["a", "b"]),
    "functions": beside(activation=lambda: jax.nn.relu, module=lambda: Linen),
    "objects": beside(thing=object, words=lambda: np.array(["a"]), days=lambda: np.zeros(2, "M8[D]")),
}
