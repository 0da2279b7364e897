"""Products of quantized weights: whose scale each row takes, and for batches that are not known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

import nncompress_jax as nnc
from nncompress_jax.methods.calibration import abs_max


def test_ragged_products_with_a_static_range():
    """Each row by the scale of its own group, written out in numpy; the groups differ a hundredfold."""
    random = np.random.default_rng(0)
    kernels = random.standard_normal((3, 8, 6)).astype(np.float32) * np.array([1, 100, 0.01], np.float32)[:, None, None]
    rows, counts = random.standard_normal((7, 8)).astype(np.float32), [2, 4, 1]

    def apply(weights, x):
        return lax.ragged_dot(x, weights["kernel"], jnp.array(counts))

    small = nnc.compress({"kernel": jnp.asarray(kernels)}, nnc.quantize(ranges=abs_max), apply=apply, batches=[rows])
    step = np.abs(rows).max() / 127.5
    codes = np.clip(np.round(rows / step), -127, 127)
    groups = np.repeat(np.arange(3), counts)
    expected = np.einsum("mi,mio->mo", codes * step, np.asarray(nnc.decompress(small)["kernel"])[groups])
    error = np.linalg.norm(nnc.inject(apply)(small, rows) - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert error.max() < 1e-5
    assert [row.types for row in nnc.int8_report(apply, small, rows).rows] == ["int8 x int8 -> int32"]


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("groups", [1, 4])
def test_convolutions_of_unknown_batches(groups, fast):
    """Exported for any batch, they compute what they do for this one."""
    kernel = jnp.asarray(np.random.default_rng(0).standard_normal((3, 3, 4 // groups, 8)), jnp.float32)
    images = jnp.asarray(np.random.default_rng(1).standard_normal((5, 8, 8, 4)), jnp.float32)
    small = nnc.compress({"kernel": kernel})

    def convolved(weights, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x, weights["kernel"], (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=groups
        )

    apply = jax.jit(nnc.inject(convolved, fast=fast))
    any_batch = jax.ShapeDtypeStruct(export.symbolic_shape("b, 8, 8, 4"), jnp.float32)
    called = export.deserialize(export.export(apply)(small, any_batch).serialize()).call(small, images)
    np.testing.assert_allclose(called, apply(small, images), atol=1e-5)


def test_derivatives_of_the_forward_mode():
    """Along the inputs: the same product of what is changed and the dense weight, on floats."""
    random = np.random.default_rng(0)
    kernel, x, along = (jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in ((6, 4), (3, 6), (3, 6)))
    products = {
        "dot": lambda w, x: x @ w["kernel"],
        "weight first": lambda w, x: w["kernel"].T @ x.T,
        "ragged": lambda w, x: lax.ragged_dot(x, w["kernel"][None], jnp.array([3])),
        "convolution": lambda w, x: lax.conv(x[:, :, None], w["kernel"].T[:, :, None], (1,), "VALID"),
    }
    small = nnc.compress({"kernel": kernel})
    for name, apply in products.items():
        _, tangent = jax.jvp(lambda x, apply=apply: nnc.inject(apply)(small, x), (x,), (along,))
        np.testing.assert_allclose(tangent, apply(nnc.decompress(small), along), rtol=1e-5, atol=1e-6, err_msg=name)
