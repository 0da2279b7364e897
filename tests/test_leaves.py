"""Every kind of leaf: its shape, its bytes, its checksum, and what becomes of it in compression."""

import struct
import zlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax import checksums
from nncompress_jax.leaves import described, native, numbers
from nncompress_jax.tree import stored_bytes

VALUES = [[-0.99, 2.5, 3.0], [4.0, -5.5, 6.25]]
AS_BYTES = struct.pack("<6f", *VALUES[0], *VALUES[1])
SAME = {
    "jax": jnp.array(VALUES, jnp.float32),
    "numpy": np.array(VALUES, np.float32),
    "big-endian": np.array(VALUES, ">f4"),
    "column-major": np.asfortranarray(np.array(VALUES, np.float32)),
    "view": np.repeat(np.array(VALUES, np.float32), 2, axis=1)[:, ::2],
    "reversed": np.array(VALUES, np.float32)[::-1, ::-1].copy()[::-1, ::-1],
    "big-endian, column-major": np.asfortranarray(np.array(VALUES, ">f4")),
}


@pytest.mark.parametrize("kind", SAME)
def test_the_same_numbers_are_the_same_bytes(kind):
    leaf = SAME[kind]
    assert numbers("a", leaf).tobytes() == AS_BYTES
    assert checksums.of_leaves({"a": leaf}) == {"a": zlib.crc32(AS_BYTES)}
    assert described(leaf) == jax.ShapeDtypeStruct((2, 3), np.float32)
    assert stored_bytes({"a": leaf}) == 24
    small = nnc.compress({"kernel": leaf, "bias": leaf}, nnc.quantize(where="kernel"))
    assert small["kernel"].codes.tolist() == [[-32, 58, 61], [127, -127, 127]]  # 127.5 x / the column's largest
    assert jnp.asarray(small["bias"]).tolist() == np.float32(VALUES).tolist()
    assert small["bias"].dtype.isnative


@pytest.mark.parametrize(
    ("leaf", "shape", "dtype", "size_bytes"),
    [
        (1.5, (), "float32", 4),
        (3, (), "int32", 4),
        (True, (), "bool", 1),
        (np.float64(3), (), "float64", 8),
        (np.ones(3, ml_dtypes.bfloat16), (3,), "bfloat16", 6),
        (np.ones((0, 4), np.int64), (0, 4), "int64", 0),
        (jax.random.key(0), (2,), "uint32", 8),
        (jax.random.split(jax.random.key(0, impl="rbg"), 3), (3, 4), "uint32", 48),
        (jax.ShapeDtypeStruct((5,), jnp.float16), (5,), "float16", 10),
        (jax.nn.relu, None, None, 0),
        ("same", None, None, 0),
        (np.array(["text"]), None, None, 0),
        (np.array([None]), None, None, 0),
        (np.zeros(2, "M8[D]"), None, None, 0),
        (np.zeros(2, [("x", "f4")]), None, None, 0),
        (object(), None, None, 0),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, str) else None,
)
def test_what_a_leaf_stores(leaf, shape, dtype, size_bytes):
    expected = None if shape is None else jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
    assert described(leaf) == expected
    assert stored_bytes([leaf, None]) == size_bytes


def test_what_is_native_stays_the_object_that_it_is():
    for leaf in (SAME["jax"], SAME["column-major"], 1.5, "text", jax.nn.relu, np.zeros(2, [("x", ">f4")])):
        assert native(leaf) is leaf


def test_numbers_that_are_not_there():
    gone = jnp.ones(3)
    jax.jit(lambda x: x + 1, donate_argnums=0)(gone)
    with pytest.raises(nnc.InputError, match="a: its array was donated to a program; copy what other trees share"):
        numbers("a", gone)
    with pytest.raises(nnc.InputError, match="a: a shape without numbers, expected an array"):
        numbers("a", jax.ShapeDtypeStruct((3,), jnp.float32))
    with pytest.raises(nnc.InputError, match="a: a value inside of jit or vmap"):
        jax.eval_shape(lambda x: numbers("a", x), jnp.ones(3))


def test_methods_name_what_was_donated():
    """Biases and what else no method takes are the same arrays before and after compression."""
    variables = {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)}
    small = nnc.compress(variables)
    jax.jit(lambda v: jax.tree.map(lambda x: x + 1, v), donate_argnums=0)(small)
    with pytest.raises(nnc.InputError, match="bias: donated to a program; copy what trees share before: jax.tree.map"):
        nnc.compress(variables, nnc.quantize(where="bias"))


def test_gradients_leave_functions_and_texts_alone():
    variables = {"kernel": jnp.ones((3, 1)), "activation": jax.nn.relu, "name": "x", "key": jax.random.key(0), "n": 2}
    small = nnc.compress(variables, nnc.prune(sparsity=0.5, where="kernel"))

    def apply(v, x):
        return (v["n"] * v["activation"](x @ v["kernel"])).sum()

    value, gradients = nnc.value_and_grad(nnc.inject(apply))(small, jnp.array([[1.0, 2.0, 4.0]]))
    kept = [[1.0, 2.0, 4.0][place] for place in np.flatnonzero(nnc.decompress(small)["kernel"][:, 0])]
    assert value == 2 * sum(kept)
    assert gradients["kernel"].values.tolist() == [2 * x for x in kept]
    assert [gradients[name] for name in ("activation", "name", "key", "n")] == [None] * 4


def test_methods_name_what_is_no_float_array():
    leaves = {"function": jax.nn.relu, "text": "same", "key": jax.random.key(0), "words": np.array(["a"])}
    with pytest.raises(nnc.InputError, match="function, key, text, words: not floating point; choose other leaves"):
        nnc.compress(leaves | {"kernel": jnp.ones((4, 4))}, nnc.quantize(where="*"))
    small = nnc.compress(leaves | {"kernel": jnp.ones((4, 4))})
    assert {name: small[name] for name in leaves} == leaves
    assert nnc.decompress(small)["text"] == "same"


def test_what_stores_no_numbers_has_no_checksum():
    """The bytes of an object are where it stands in memory: other ones in each process."""
    leaves = {"kernel": np.ones(3, np.float32), "activation": jax.nn.relu, "name": "x", "words": np.array(["a"])}
    assert checksums.of_leaves(leaves) == {"kernel": zlib.crc32(struct.pack("<3f", 1, 1, 1))}
