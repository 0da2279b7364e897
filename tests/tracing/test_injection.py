"""Functions that people have, unedited, on compressed variables: integers wherever a weight goes."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import nncompress_jax as nnc
from nncompress_jax.weights.base import is_compressed

IMAGES = jax.random.normal(jax.random.key(0), (4, 8, 8, 8))


def lowered(apply, *args):
    return jax.jit(nnc.inject(apply)).lower(*args).as_text()


def products(text):
    """Operand types of each product in a lowered program, in order."""
    lines = re.findall(r"stablehlo\.(?:convolution|dot_general).* : \((.*)\) ->", text)
    return [tuple(re.findall(r"x([a-z]+\d+)>", line)) for line in lines]


def close(apply, variables, *args, layers, images=IMAGES):
    """Runs a model compressed; all of so many layers on integers, and the outputs near the float ones."""
    small = nnc.compress(variables)
    types = products(lowered(apply, small, images, *args))
    assert types
    assert set(types) == {("i8", "i8")}
    report = nnc.int8_report(apply, small, images, *args)
    assert (len(report.rows), report.floats) == (layers, ())
    expected, result = apply(variables, images, *args), jax.jit(nnc.inject(apply))(small, images, *args)
    assert result.dtype == expected.dtype
    assert 0 < np.abs(result - expected).max() < 0.06 * np.abs(expected).max()


class Block(nn.Module):
    dtype: object = jnp.float32

    @nn.compact
    def __call__(self, x):
        y = nn.relu(nn.Conv(8, (3, 3), dtype=self.dtype)(x))
        return x + nn.Conv(8, (3, 3), dtype=self.dtype)(y)


def initialized(module):
    return jax.jit(module.init)(jax.random.key(1), IMAGES)


def test_residual_block():
    close(Block().apply, initialized(Block()), layers=2)


def test_bfloat16():
    module = Block(dtype=jnp.bfloat16)
    close(module.apply, initialized(module), layers=2)


def test_attention_with_layer_norm():
    class Encoder(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = x + nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x))
            return x + nn.Dense(8)(nn.gelu(nn.Dense(32)(nn.LayerNorm()(x))))

    tokens = IMAGES.reshape(4, 64, 8)
    variables = Encoder().init(jax.random.key(1), tokens)
    small = nnc.compress(variables)
    report = nnc.int8_report(Encoder().apply, small, tokens)
    assert (len(report.rows), report.floats) == (6, ())
    expected, result = Encoder().apply(variables, tokens), jax.jit(nnc.inject(Encoder().apply))(small, tokens)
    assert 0 < jnp.abs(result - expected).max() < 0.05 * jnp.abs(expected).max()


def test_nnx():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv, self.norm = nnx.Conv(8, 16, (3, 3), rngs=rngs), nnx.BatchNorm(16, rngs=rngs)
            self.dense = nnx.Linear(16, 10, rngs=rngs)

        def __call__(self, x):
            return self.dense(nnx.relu(self.norm(self.conv(x), use_running_average=True)).mean((1, 2)))

    graph, params, rest = nnx.split(Net(nnx.Rngs(0)), nnx.Param, ...)
    close(lambda params, x: nnx.merge(graph, params, rest)(x), params, layers=2)
    small = nnc.compress(params)
    assert is_compressed(small["conv"]["kernel"].get_value())


def test_keywords_collections_and_randomness():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.BatchNorm(use_running_average=not train)(nn.Conv(8, (3, 3))(x))
            return nn.Dropout(0.5, deterministic=not train)(x)

    variables = Net().init(jax.random.key(1), IMAGES, train=False)
    apply = nnc.inject(Net().apply)
    small = nnc.compress(variables)
    assert apply(small, IMAGES, train=False).shape == IMAGES.shape
    keys = {"dropout": jax.random.key(3)}
    outputs, changed = apply(small, IMAGES, train=True, mutable=["batch_stats"], rngs=keys)
    assert 0.4 < (outputs == 0).mean() < 0.6
    assert jax.tree.structure(changed["batch_stats"]) == jax.tree.structure(variables["batch_stats"])


def test_mapped_over_examples_and_over_networks():
    variables = {"kernel": jax.random.normal(jax.random.key(2), (8, 4)), "bias": jnp.arange(4.0)}

    def apply(variables, x):
        return x @ variables["kernel"] + variables["bias"]

    small, x = nnc.compress(variables), IMAGES.reshape(-1, 8)
    expected = nnc.inject(apply)(small, x)
    by_example = jax.vmap(nnc.inject(apply), (None, 0))(small, x)
    np.testing.assert_allclose(by_example, expected, rtol=1e-5, atol=1e-5)
    two = jax.tree.map(lambda part: jnp.stack([part, part]), small)
    np.testing.assert_allclose(jax.vmap(nnc.inject(apply), (0, None))(two, x)[1], expected, rtol=1e-5, atol=1e-5)


def test_without_a_compressed_weight_it_is_the_function_itself():
    def apply(variables, x):
        return float(x.sum()) * variables  # no traced value becomes a float

    assert nnc.inject(apply)(2.0, jnp.ones(3)) == 6.0
    assert nnc.inject(apply).__name__ == "apply"


def closes_over(small):
    return [
        lambda x: Block().apply(small, x),
        lambda x: x @ small["params"]["Conv_0"]["kernel"],
        lambda x: 2 * small["params"]["Conv_0"]["kernel"],
        lambda x: jnp.einsum("bhwi,xyio->bo", x, small["params"]["Conv_0"]["kernel"]),
        lambda x: lax.neg(small["params"]["Conv_0"]["kernel"]),
    ]


@pytest.mark.parametrize("case", range(5))
def test_closing_over_a_compressed_weight(case):
    small = nnc.compress(initialized(Block()))
    apply = closes_over(small)[case]
    for run in (nnc.inject(apply), jax.jit(nnc.inject(apply))):
        with pytest.raises(nnc.InputError, match="closes over none") as error:
            run(IMAGES)
        assert "\n" not in str(error.value)
    with pytest.raises(nnc.InputError, match="closes over none"):
        nnc.inject(lambda variables, x: apply(x))(small, IMAGES)


def test_without_inject():
    """A linen module says what to do."""
    with pytest.raises(nnc.InputError, match="call nnc.inject"):
        Block().apply(nnc.compress(initialized(Block())), IMAGES)


def test_observe_statistics_of_compressed_variables():
    variables = initialized(Block())
    largest = jax.jit(nnc.observe(Block().apply, lambda path, x: jnp.abs(x).max()))
    for tree in (variables, nnc.compress(variables)):
        outputs, observed = largest(tree, IMAGES)
        assert list(observed) == ["params/Conv_0/kernel", "params/Conv_1/kernel"]
        (entered,) = observed["params/Conv_0/kernel"]
        assert entered.value == jnp.abs(IMAGES).max()
        assert bool(entered.reached)
        assert outputs.shape == IMAGES.shape


def test_a_program_for_each_device_takes_dense_weights():
    mesh, spec = jax.sharding.Mesh(jax.devices()[:1], "data"), jax.sharding.PartitionSpec
    by_device = jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(spec("data"), spec()), out_specs=spec("data"))
    weights, x = {"kernel": jax.random.normal(jax.random.key(2), (8, 4))}, IMAGES.reshape(-1, 8)
    small = nnc.compress(weights)
    apply = lambda weights, x: by_device(x, weights["kernel"])  # noqa: E731
    outputs, expected = jax.jit(nnc.inject(apply))(small, x), apply(nnc.decompress(small), x)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
    (row,) = nnc.explain(apply, small, x).rows()
    assert row["runs"] == "materialised: no rule for shard_map"
