"""Signs, of weights and of inputs, as the papers define them."""

import jax
import jax.numpy as jnp
import numpy as np

import nncompress_jax as nnc
from nncompress_jax.weights.base import dense
from tests.methods.drawn import compressed, draw


def test_signs_and_their_scale():
    kernel = draw(16, 24)
    weight = compressed(kernel, nnc.binarize())
    np.testing.assert_allclose(weight.materialise(), np.sign(kernel) * np.abs(kernel).mean(0), rtol=1e-6)
    assert weight.nbytes == 16 * 3 + 4 * 24
    unscaled = compressed(kernel, nnc.binarize(scaled=False))
    np.testing.assert_array_equal(unscaled.materialise(), np.sign(kernel))


def test_signs_of_inputs_are_weighed_by_their_magnitude():
    """XNOR-Net: sign(x) * sign(w), times the mean |x| under the kernel and the mean |w|; on integers."""
    kernel, x = draw(3, 3, 8, 16), draw(2, 6, 6, 8, seed=1)

    def apply(weights, x):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, weights["kernel"], (1, 1), "VALID", dimension_numbers=dimensions)

    small = nnc.compress({"kernel": kernel}, nnc.binarize(inputs="sign"))
    signs = apply({"kernel": jnp.sign(kernel)}, jnp.sign(x)) * jnp.abs(kernel).mean((0, 1, 2))
    expected = signs * apply({"kernel": jnp.full((3, 3, 8, 1), 1 / 72)}, jnp.abs(x))
    np.testing.assert_allclose(nnc.inject(apply)(small, x), expected, atol=1e-4)
    types = [row.types for row in nnc.int8_report(apply, small, x).rows]
    assert "int8 x int8 -> int32" in types
    dense_form = nnc.inject(lambda w, x: x @ w["kernel"])
    small = nnc.compress({"kernel": draw(8, 4)}, nnc.binarize(inputs="sign"))
    rows = draw(3, 8, seed=2)
    expected = (jnp.sign(rows) @ dense(small["kernel"])) * jnp.abs(rows).mean(1, keepdims=True)
    np.testing.assert_allclose(dense_form(small, rows), expected, atol=1e-5)
