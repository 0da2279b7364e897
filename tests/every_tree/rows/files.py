"""Files, to the last bit."""

from typing import Any

import jax
import numpy as np
import onnxruntime
import safetensors

import nncompress_jax as nnc
from nncompress_jax.leaves import is_number, native
from nncompress_jax.programs.running import leaves_of
from tests.every_tree.rows.checks import compressed, eps, row, same, wide


@row
def save(kind, folder):
    nnc.save(folder / "a.nnc", kind.variables)
    same(kind.variables, nnc.load(folder / "a.nnc", like=kind.variables).variables)


@row
def load(kind, folder):
    small = compressed(kind, nnc.quantize())
    nnc.save(folder / "a.nnc", small)
    apply, again, _ = nnc.load(folder / "a.nnc", like=kind.variables, apply=kind.apply)
    same(small, again)
    assert (wide(apply(again, kind.x)) == wide(nnc.inject(kind.apply)(small, kind.x))).all()


@row
def save_of_program(kind, folder):
    """The same, from the file alone."""
    nnc.save(folder / "a.nnc", kind.variables, apply=kind.apply, example=kind.x)
    apply, again, _ = nnc.load(folder / "a.nnc")
    expected = wide(nnc.inject(kind.apply)(kind.variables, kind.x))
    np.testing.assert_array_equal(wide(apply(again, kind.x)), expected)


@row
def export_stablehlo(kind, folder):
    """Run by jax.export; it takes no numbers to write."""
    nnc.export_stablehlo(folder / "a.hlo", kind.apply, kind.variables, kind.x)
    again = jax.export.deserialize(bytearray((folder / "a.hlo").read_bytes()))
    leaves = jax.tree.leaves(kind.variables)
    if not any(isinstance(leaf, jax.ShapeDtypeStruct) or getattr(leaf, "is_deleted", bool)() for leaf in leaves):
        expected = wide(nnc.inject(kind.apply)(kind.variables, kind.x))
        by_path = {path: leaf for path, leaf in leaves_of(kind.variables) if not is_number(leaf)}
        taken = kind.variables if again.in_tree == jax.tree.structure(((kind.variables, kind.x), {})) else by_path
        found = wide(again.call(jax.tree.map(native, taken), kind.x))
        atol = 4 * eps(kind) * np.nan_to_num(np.abs(expected)).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


@row
def save_safetensors(kind, folder):
    """Read by the library that the format comes from."""
    nnc.save_safetensors(folder / "a.safetensors", kind.variables)
    held = dict(safetensors.deserialize((folder / "a.safetensors").read_bytes()))
    parts = [exact_array(leaf) for leaf in jax.tree.leaves(kind.variables)]
    assert sorted((tuple(each["shape"]), bytes(each["data"])) for each in held.values()) == sorted(
        (part.shape, part.tobytes()) for part in parts
    )


@row
def export_onnx(kind, folder):
    """Run by onnxruntime."""
    nnc.export_onnx(folder / "a.onnx", kind.apply, kind.variables, kind.x)
    session = onnxruntime.InferenceSession(folder / "a.onnx")
    (found,) = session.run(None, {"input": np.asarray(kind.x)})
    expected = wide(nnc.inject(kind.apply)(kind.variables, kind.x))
    epsilon = max(eps(kind), np.finfo(np.float32).eps)
    np.testing.assert_allclose(found, expected, rtol=0, atol=4 * epsilon * np.abs(expected).max())


def exact_array(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    return array.astype(array.dtype.newbyteorder("<"))


@row
def load_safetensors(kind, folder):
    nnc.save_safetensors(folder / "a.safetensors", kind.variables)
    again = nnc.load_safetensors(folder / "a.safetensors", like=kind.variables)
    same(jax.tree.map(lambda leaf: leaf if hasattr(leaf, "dtype") else np.asarray(leaf), kind.variables), again)
