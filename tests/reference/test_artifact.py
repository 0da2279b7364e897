"""How small the file of the imported VGG16 is. Needs NNCOMPRESS_REFERENCE and torch; skips without them."""

import lzma
import zlib

import jax
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.artifact.reader import opened
from nncompress_jax.artifact.sections import entropy_bytes
from nncompress_jax.tree import stored_bytes
from tests.reference.test_reference import network

pytestmark = pytest.mark.reference


@pytest.mark.parametrize("recipe", ["quantize:8", "prune_global:0.9+cluster:4"])
def test_size(recipe, tmp_path):
    apply, variables = network("vgg16")
    small = nnc.compress(variables, nnc.recipe(recipe))
    nnc.save(tmp_path / "a.nnc", small, model="vgg16", image_shape=(32, 32, 3))
    again = nnc.load(tmp_path / "a.nnc")
    images = jax.random.normal(jax.random.key(0), (4, 32, 32, 3))
    assert (jax.jit(again.apply)(again.variables, images) == jax.jit(nnc.inject(apply))(small, images)).all()
    coded, entropies = {}, {}
    with opened(tmp_path / "a.nnc") as file:
        for (path, section), array in zip(file.sections, file.arrays(), strict=True):
            coded[path] = section.size_bytes
            entropies[path], distinct = entropy_bytes(section, array)
            assert section.size_bytes <= 1.002 * entropies[path] + 64 + 2 * distinct, path
    size, whole = (tmp_path / "a.nnc").stat().st_size, stored_bytes(variables)
    print(f"{recipe}: {size:,} bytes, {size / whole:.4f} of floats, {size / sum(entropies.values()):.4f} of entropy")
    if recipe == "quantize:8":
        assert size <= 0.225 * whole
        codes = {path: bytes for path, bytes in coded.items() if path.endswith("codes")}
        plain = b"".join(
            np.asarray(layer["kernel"].codes).tobytes() for layer in small["params"].values() if "kernel" in layer
        )
        packers = {"zip -9": len(zlib.compress(plain, 9)), "xz": len(lzma.compress(plain))}
        print(f"codes: {sum(codes.values()):,}, {', '.join(f'{name} {size:,}' for name, size in packers.items())}")
        assert len(codes) == 14
        assert sum(codes.values()) < min(packers.values())
    else:
        parts = [path for path in coded if path.endswith(("positions", "codes.parts"))]
        assert sum(coded[path] for path in parts) <= 1.05 * sum(entropies[path] for path in parts)
        assert size <= 1.05 * sum(entropies.values())
