"""The compiler leaves a kernel that is larger than its image where it stands, and computes the same."""

import jax
import numpy as np
from jax import lax

from nncompress_jax.ops.compiler import compiler_options

IMAGES = jax.random.normal(jax.random.key(0), (16, 2, 2, 8))
KERNEL = jax.random.normal(jax.random.key(1), (3, 3, 8, 8))


def convolution(images, kernel):
    return lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def compiled(options):
    return jax.jit(convolution, compiler_options=options).lower(IMAGES, KERNEL).compile()


def test_image_and_kernel_are_not_swapped():
    assert "window={size=3x3 pad=1_1x1_1}" in compiled(compiler_options()).as_text()
    assert "window={size=3x3 pad=1_1x1_1}" not in compiled({}).as_text()  # else the option is needed no more


def test_the_same_numbers():
    with_options, without = (compiled(options)(IMAGES, KERNEL) for options in (compiler_options(), {}))
    np.testing.assert_allclose(with_options, without, rtol=1e-5, atol=1e-5)


def test_nothing_is_changed_on_accelerators(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert compiler_options() == {}


def test_pooled_products_of_broadcast_scales():
    """They come back wrong where the simplifier is off and YNNPACK is given reductions (jax 0.10.2)."""
    sums = jax.random.randint(jax.random.key(2), (100, 32, 32, 64), -1000, 1000)
    steps = jax.random.uniform(jax.random.key(3), (100, 1, 1, 1))
    scales = jax.random.uniform(jax.random.key(4), (1, 1, 1, 64))

    def pooled(sums, steps, scales):
        outputs = sums.astype(np.float32) * (steps * scales)
        return lax.reduce_window(outputs, -np.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    with_options, without = (
        jax.jit(pooled, compiler_options=options)(sums, steps, scales) for options in (compiler_options(), {})
    )
    np.testing.assert_allclose(with_options, without, rtol=1e-6)
