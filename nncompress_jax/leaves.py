"""What a leaf of variables is: everything that takes its shape, its bytes or its numbers asks here."""

import sys
from collections.abc import Collection, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from nncompress_jax.errors import InputError

DTYPES = {
    name: np.dtype(getattr(ml_dtypes, name, None) or name)
    for name in (
        *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
        *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
        *("float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz"),
        *("float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "int4", "uint4"),
    )
}
"""Of arrays that files hold."""

ARRAYS_ALONE = (
    "save equinox.filter(variables, equinox.is_array_like), which leaves it out; loading with like=variables puts the "
    "arrays back into the whole tree"
)


def imported_nnx() -> Any:
    """`flax.nnx`, where the caller has imported it; else None, and nothing is of its types."""
    return sys.modules.get("flax.nnx")


def is_key(leaf: Any) -> bool:
    """Whether a leaf is an array of random keys, as `jax.random.key` makes them."""
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def is_number(leaf: Any) -> bool:
    """Whether a leaf is a number of Python, which takes the type of whatever it meets."""
    return type(leaf) in (bool, int, float, complex)


def is_donated(leaf: Any) -> bool:
    """Whether a program was given this array's memory, so that its numbers are gone."""
    return isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer) and leaf.is_deleted()


def described(leaf: Any) -> jax.ShapeDtypeStruct | None:
    """Shape and dtype of the numbers that a leaf stores.

    Args:
      leaf: an array, a traced value, a description of one, or anything else.

    Returns:
      Of random keys those of their key data; of a number those that jax gives it; dtypes in the machine's byte order.
      None for what stores no numbers, such as a function or a text.

    Example:
      >>> described(np.zeros((2, 3), ">f4")), described(jax.random.key(0)).shape, described(jax.nn.relu)
      (ShapeDtypeStruct(shape=(2, 3), dtype=float32), (2,), None)
    """
    if is_key(leaf):
        data = jax.eval_shape(jax.random.key_data, leaf)
        return jax.ShapeDtypeStruct(data.shape, data.dtype)
    if is_number(leaf):
        return jax.ShapeDtypeStruct((), jnp.result_type(type(leaf)))
    array = leaf if hasattr(leaf, "shape") and isinstance(getattr(leaf, "dtype", None), np.dtype) else None
    if array is None and hasattr(leaf, "__array__"):
        array = np.asarray(leaf)
    if array is None or not _is_numeric(array.dtype):
        return None
    return jax.ShapeDtypeStruct(tuple(array.shape), array.dtype.newbyteorder("="))


def native(leaf: Any) -> Any:
    """A leaf as jax can take it: arrays of numpy in the machine's byte order, all else as it is."""
    swapped = isinstance(leaf, np.ndarray | np.generic) and not leaf.dtype.isnative and _is_numeric(leaf.dtype)
    return leaf.astype(leaf.dtype.newbyteorder("=")) if swapped else leaf


def as_array(leaf: Any) -> Any:
    """A number of numpy as the array that a file gives back; anything else as it is."""
    return np.asarray(leaf) if isinstance(leaf, np.generic) else leaf


def numbers(path: str, leaf: Any) -> np.ndarray:
    """The numbers of a leaf in memory: C order, the machine's byte order, of random keys the key data.

    Args:
      path: for errors.
      leaf: what `described` describes.

    Raises:
      InputError: where they are not there, as those of traced values and of donated arrays.
    """
    if absent := _absent(leaf):
        raise InputError(f"{path}: {absent}")
    array = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
    return np.asarray(array, array.dtype.newbyteorder("="), order="C")


def on_device(leaf: Any) -> Any:
    """An array of numpy as one of jax; as it is, where jax would make it narrower, and anything else."""
    if not isinstance(leaf, np.ndarray) or jax.dtypes.canonicalize_dtype(leaf.dtype) != leaf.dtype:
        return leaf
    return jnp.asarray(leaf)


def check_there(leaves: Iterable[tuple[str, Any]]) -> None:
    """Refuses what has no numbers on any machine, all named; values that are traced, or on other hosts, pass.

    Example:
      >>> check_there([("kernel", jax.ShapeDtypeStruct((3,), jnp.float32))])
      Traceback (most recent call last):
      nncompress_jax.errors.InputError: kernel: a shape without numbers, expected an array
    """
    if absent := [f"{path}: {reason}" for path, leaf in leaves if (reason := _gone(leaf))]:
        raise InputError(", ".join(absent))


def check_held(leaves: Iterable[tuple[str, Any]], dtypes: Collection[str]) -> None:
    """Refuses leaves that a file cannot hold, all named.

    Args:
      leaves: paths with the arrays or other leaves.
      dtypes: names of those that the file can hold.

    Raises:
      InputError: with a way out for each kind of leaf.
    """
    typed = [(path, leaf, _dtype_name(leaf)) for path, leaf in leaves]
    if absent := [f"{path}: {reason}" for path, leaf, _ in typed if (reason := _absent(leaf))]:
        raise InputError(", ".join(absent))
    if strange := [f"{path}: {_in_words(leaf)}" for path, leaf, name in typed if name is None]:
        raise InputError(f"{', '.join(strange)}, which no file can hold; {ARRAYS_ALONE}")
    if wrong := [f"{path}: {name}" for path, _, name in typed if name not in dtypes]:
        raise InputError(f"{', '.join(wrong)}, expected one of {', '.join(dtypes)}; cast it, or leave it out")


def _absent(leaf: Any) -> str | None:
    """Why a leaf has no numbers that could be read here, and what to do; None: it has."""
    if isinstance(leaf, jax.core.Tracer):
        return "a value inside of jit or vmap, which has no numbers yet; call this outside of them"
    if gone := _gone(leaf):
        return gone
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        return "spread over several hosts; gather it by multihost_utils.process_allgather first"
    return None


def _gone(leaf: Any) -> str | None:
    """As `_absent`, of numbers that are nowhere."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return "a shape without numbers, expected an array"
    if is_donated(leaf):
        return "its array was donated to a program; copy what other trees share before a program takes it"
    return None


def _is_numeric(dtype: np.dtype) -> bool:
    return jnp.issubdtype(dtype, jnp.number) or jnp.issubdtype(dtype, jnp.bool_)


def _dtype_name(leaf: Any) -> str | None:
    """Of the array that a file would hold; a number has the one that numpy gives it. None: it is no array."""
    if is_number(leaf):
        return np.asarray(leaf).dtype.name
    shape = described(leaf)
    array = leaf if shape is None else shape
    return str(array.dtype) if hasattr(array, "dtype") else None


def _in_words(leaf: Any) -> str:
    if isinstance(leaf, str):
        return f"the text {leaf[:20]!r}"
    return f"the function {getattr(leaf, '__name__', type(leaf).__name__)}" if callable(leaf) else type(leaf).__name__
