"""What all compressed weights share: one at a time is made dense."""

import chex
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


TRANSFORMED = {
    "jit": jax.jit,
    "remat": jax.checkpoint,
    "vmap": lambda apply: lambda weights, x: jax.vmap(apply, (None, 0))(weights, x[None])[0],
    "scan": lambda apply: lambda weights, x: jax.lax.scan(lambda c, x: (c, apply(weights, x)), 0, x[None])[1][0],
    "gradient": lambda apply: jax.grad(lambda weights, x: (apply(weights, x) ** 2).sum()),
    "linearized": lambda apply: lambda weights, x: jax.linearize(apply, weights, x)[1](weights, x),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_why_a_weight_was_materialised_survives(name):
    weights, x = nnc.compress({"kernel": draw(8, 8)}, nnc.factorize(rank=2)), draw(3, 8, seed=1)

    def apply(weights, x):
        return x @ jnp.sort(weights["kernel"], axis=0)

    injected = TRANSFORMED[name](nnc.inject(apply))
    expected = TRANSFORMED[name](lambda weights, x: apply(nnc.decompress(weights), x))(weights, x)
    assert "reason=no rule for sort" in str(jax.make_jaxpr(injected)(weights, x))
    for results in (injected(weights, x), jax.jit(injected)(weights, x)):
        chex.assert_trees_all_close(results, expected, atol=1e-5)
