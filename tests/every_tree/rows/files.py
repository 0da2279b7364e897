"""Files, to the last bit."""

from typing import Any

import jax
import numpy as np
import onnxruntime
import safetensors

import nncompress_jax as nnc
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
