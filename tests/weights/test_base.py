"""What all compressed weights share: one at a time is made dense."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from tests.methods.drawn import draw


@pytest.mark.parametrize("recipe", ["quantize:4", "cluster:4", "prune:0.5", "prune:0.5+cluster:2"])
def test_one_layer_at_a_time_is_dense(recipe):
    """A program that holds its layers compressed does not hold them all dense at once."""
    layers, size = 6, 256
    kernels = {f"layer_{i}": {"kernel": draw(size, size, seed=i)} for i in range(layers)}
    small, x = nnc.compress(kernels, nnc.recipe(recipe)), jnp.ones((1, size))

    def apply(weights, x):
        for i in range(layers):
            x = jax.nn.relu(x @ weights[f"layer_{i}"]["kernel"])
        return x

    compiled = jax.jit(nnc.inject(apply)).lower(small, x).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 3 * 4 * size**2
    expected = apply(nnc.decompress(small), x)
    np.testing.assert_allclose(compiled(small, x), expected, atol=0.05 * jnp.abs(expected).max())
