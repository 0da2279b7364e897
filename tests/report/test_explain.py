"""What is said of each weight, against what was made and what the program holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.tree import stored_bytes

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
KERNEL = jnp.asarray(np.random.default_rng(0).standard_normal((3, 3, 16, 32)), jnp.float32)
DENSE = jnp.asarray(np.random.default_rng(1).standard_normal((32, 8)), jnp.float32)
IMAGES = jnp.ones((4, 8, 8, 16))
WHOLE = 8 * 8 * 9 * 16 * 32


def network(weights, x):
    x = jax.lax.conv_general_dilated(x, weights["conv"]["kernel"], (1, 1), "SAME", dimension_numbers=DIMENSIONS)
    return jnp.mean(x, (1, 2)) @ weights["dense"]["kernel"]


def explained(recipe):
    weights = {"conv": {"kernel": KERNEL}, "dense": {"kernel": DENSE, "unused": jnp.ones(3)}}
    weights = nnc.compress(weights, nnc.recipe(recipe))
    return weights, nnc.explain(network, weights, IMAGES)


@pytest.mark.parametrize(
    ("recipe", "kind", "bits", "types", "runs"),
    [
        ("quantize:8", "Quantized", 8.06, "int8 x int8 -> int32", "compressed"),
        ("quantize:4", "Quantized", 4.22, "int8 x int8 -> int32", "compressed"),
        ("quantize:3", "Quantized", 3.22, "int8 x int8 -> int32", "compressed"),
        ("quantize:2", "Quantized", 2.22, "int8 x int8 -> int32", "compressed"),
        ("prune:0.9+quantize:8", "Sparse of Quantized", 4, "int8 x int8 -> int32", "compressed"),
        ("fake_binarize", "FakeBinary", 32, "float32 x float32 -> float32", "materialised: the weight is quantized"),
        ("fake_quantize:8", "FakeQuantized", 32, "int8 x int8 -> int32", "compressed"),
        (
            "cluster:4",
            "Clustered",
            4.11,
            "float32 x float32 -> float32",
            "materialised: no rule for conv_general_dilated",
        ),
        ("prune:0.9", "Sparse", 6.4, "float32 x float32 -> float32", "materialised: no rule for conv_general_dilated"),
        ("prune:0.9+cluster:4", "Sparse of Clustered", 3.72, "float32 x float32 -> float32", "materialised: no rule"),
        ("factorize:0.5", "LowRank", 16, "float32 x float32 -> float32", "compressed"),
        ("factorize:0.5+quantize:8", "LowRank of Quantized", 4.4, "int8 x int8 -> int32", "compressed"),
    ],
)
def test_a_row_for_each_type(recipe, kind, bits, types, runs):
    weights, explanation = explained(recipe)
    conv, dense = explanation.weights
    assert (conv.path, dense.path) == ("conv/kernel", "dense/kernel")
    assert (conv.type, conv.shape) == (kind, (3, 3, 16, 32))
    assert conv.stored_bytes == stored_bytes(weights["conv"]) == conv.bits * 9 * 16 * 32 / 8
    assert conv.bits == pytest.approx(bits, rel=0.03)
    assert {place.types for place in conv.places} == {types}
    assert conv.runs.startswith(runs)
    macs = sum(place.macs for place in conv.places)
    assert macs == WHOLE if kind[:7] != "LowRank" else 0.45 * WHOLE < macs <= 0.5 * WHOLE
    assert len(explanation.places) == len(conv.places) + len(dense.places)
    if "prune" in recipe:
        assert conv.density == pytest.approx(0.1, rel=0.01)
    if "factorize" in recipe:
        assert conv.rank == str(weights["conv"]["kernel"].factors[0].shape[-1])


def test_dense_weights_and_what_forced_a_materialisation():
    weights = {"a": {"kernel": DENSE}, "b": {"kernel": DENSE}}
    small = nnc.compress(weights, nnc.quantize(where="a/kernel"))

    def apply(weights, x):
        return x @ jnp.sort(weights["a"]["kernel"], axis=0) + x @ weights["b"]["kernel"]

    a, b = nnc.explain(apply, small, jnp.ones((2, 32))).weights
    assert a.runs == "materialised: no rule for sort"
    assert (b.type, b.runs, b.bits) == ("dense", "dense", 32)


def test_the_report_of_integers_is_a_view(capsys):
    weights, explanation = explained("factorize:0.5")
    report = nnc.int8_report(network, weights, IMAGES)
    assert [row.path for row in report.rows] == [place.path for place in explanation.places]
    assert {row.why_float for row in report.rows} == {"LowRank: floats"}
    explanation.print()
    printed = capsys.readouterr().out
    assert f"2 weights, {explanation.weights[0].stored_bytes + explanation.weights[1].stored_bytes:,} bytes" in printed
    assert "conv/kernel" in printed
