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


def test_remat():
    module = nn.remat(Block)()
    close(module.apply, initialized(module), layers=2)


def test_scan_over_layers():
    class Deep(nn.Module):
        @nn.compact
        def __call__(self, x):
            scan = nn.scan(
                lambda block, x, _: (block(x), None), variable_axes={"params": 0}, split_rngs={"params": True}, length=3
            )
            return scan(nn.remat(Block)(name="blocks"), x, None)[0]

    variables = initialized(Deep())
    close(Deep().apply, variables, layers=2)
    kernels = nnc.compress(variables, nnc.quantize(axes=(0, -1)))["params"]["blocks"]["Conv_0"]["kernel"]
    assert kernels.scale.shape == (3, 1, 1, 1, 8)
    outputs, observed = jax.jit(nnc.observe(Deep().apply))(variables, IMAGES)
    entered = observed["params/blocks/Conv_0/kernel"][0]
    assert entered.value.shape == (3, *IMAGES.shape)
    np.testing.assert_array_equal(entered.value[0], IMAGES)
    np.testing.assert_allclose(outputs, Deep().apply(variables, IMAGES), rtol=1e-5)
    method = nnc.quantize(axes=(0, -1), ranges=nnc.calibration.abs_max)
    static = nnc.compress(variables, method, apply=Deep().apply, batches=[IMAGES])
    assert static["params"]["blocks"]["Conv_1"]["kernel"].input_step.shape == (3,)
    result = jax.jit(nnc.inject(Deep().apply))(static, IMAGES)
    np.testing.assert_allclose(result, outputs, atol=0.06 * float(jnp.abs(outputs).max()))


@jax.custom_vjp
def doubled_gradient(kernel, x):
    return x @ kernel


doubled_gradient.defvjp(
    lambda kernel, x: (x @ kernel, (kernel, x)),
    lambda saved, g: (2 * jnp.einsum("bi,bo->io", saved[1], g), 2 * g @ saved[0].T),
)


@jax.custom_jvp
def tripled_tangent(kernel, x):
    return x @ kernel


@tripled_tangent.defjvp
def _(primals, tangents):
    (kernel, x), (kernel_dot, x_dot) = primals, tangents
    return x @ kernel, 3 * (x_dot @ kernel + x @ kernel_dot)


@pytest.mark.parametrize(("function", "factor"), [(doubled_gradient, 2), (tripled_tangent, 3)])
def test_functions_with_their_own_derivatives(function, factor):
    variables, x = {"kernel": jax.random.normal(jax.random.key(2), (16, 4))}, IMAGES.reshape(-1, 16)

    def apply(variables, x):
        return function(variables["kernel"], x)

    close(apply, variables, layers=1, images=x)
    small = nnc.compress(variables)
    gradient = jax.grad(lambda x: nnc.inject(apply)(small, x).sum())(x)
    dense = nnc.decompress(small)["kernel"]
    np.testing.assert_allclose(gradient, factor * jnp.ones((len(x), 4)) @ dense.T, rtol=1e-5)


def test_a_function_with_its_own_derivative_that_hands_the_kernel_on():
    @jax.custom_vjp
    def scaled_gradient(kernel):
        return kernel

    scaled_gradient.defvjp(lambda kernel: (kernel, None), lambda _, g: (0.5 * g,))
    variables = {"kernel": jax.random.normal(jax.random.key(2), (8, 4))}
    close(lambda v, x: x @ scaled_gradient(v["kernel"]), variables, layers=1)


def test_branches():
    variables = {"a": jnp.ones((8, 64)), "kernel": jax.random.normal(jax.random.key(2), (8, 4))}

    def apply(variables, x, choice=0):
        kernel = variables["kernel"]
        twice = lax.switch(choice, [lambda w: w, lambda w: 2 * w, lambda w: w + 1], kernel)  # one of them is dense
        x = lax.cond(choice < 2, lambda w, x: x @ w, lambda w, x: x @ -twice, kernel, x)
        return lax.platform_dependent(
            x, variables["a"], cpu=lambda x, a: x[..., :1] @ a[:1], default=lambda x, a: x @ a[:4]
        )

    small = nnc.compress(variables, nnc.quantize(where="kernel"))
    for choice in range(3):
        expected = apply(variables, IMAGES, choice)
        result = jax.jit(nnc.inject(apply))(small, IMAGES, choice)
        np.testing.assert_allclose(result, expected, atol=0.06 * float(jnp.abs(expected).max()))
    _, observed = jax.jit(nnc.observe(apply))(variables, IMAGES, 2)
    assert [bool(place.reached) for place in observed["kernel"]] == [True, False]  # lax puts the false branch first
    assert ("i8", "i8") in products(lowered(apply, small, IMAGES, 0))


def test_loops():
    variables = {"kernel": 0.3 * jax.random.normal(jax.random.key(2), (8, 8))}

    def constant(variables, x):
        return lax.fori_loop(0, 3, lambda _, x: jnp.tanh(x @ variables["kernel"]), x)

    def carried(variables, x):
        def body(state):
            step, kernel, x = state
            return step + 1, kernel, jnp.tanh(x @ kernel)

        return lax.while_loop(lambda state: state[0] < 3, body, (0, variables["kernel"], x))[2]

    def changed(variables, x):
        body = lambda kernel, _: (kernel + 0.1, x @ kernel)  # noqa: E731
        return lax.scan(body, variables["kernel"], None, length=2)[1].sum(0)

    close(constant, variables, layers=1)
    close(carried, variables, layers=1)
    small = nnc.compress(variables)
    np.testing.assert_allclose(
        jax.jit(nnc.inject(changed))(small, IMAGES), changed(nnc.decompress(small), IMAGES), rtol=1e-4, atol=1e-5
    )


def test_a_recurrent_state_that_begins_as_a_constant():
    variables = {name: {"kernel": 0.3 * jax.random.normal(jax.random.key(2), (8, 8))} for name in ("inputs", "state")}

    def recurrent(variables, x):
        def step(state, x):
            return jnp.tanh(x @ variables["inputs"]["kernel"] + state @ variables["state"]["kernel"]), None

        return lax.scan(step, jnp.zeros((8, 8)), x)[0]

    def looped(variables, x):
        def step(i, state):
            return jnp.tanh(x[i] @ variables["inputs"]["kernel"] + state @ variables["state"]["kernel"])

        return lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, step(*s)), (0, jnp.zeros((8, 8))))[1]

    images = IMAGES.reshape(-1, 8, 8)[:6]
    close(recurrent, variables, layers=2, images=images)
    close(looped, variables, layers=2, images=images)
    _, observed = nnc.observe(recurrent)(variables, images)
    assert {path: len(places) for path, places in observed.items()} == {"inputs/kernel": 1, "state/kernel": 1}
    np.testing.assert_array_equal(observed["state/kernel"][0].value[0], np.zeros((8, 8)))


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


def test_several_devices():
    """A batch that is spread over eight devices, weights on each."""
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
    share, whole = (jax.sharding.NamedSharding(mesh, jax.P(*axes)) for axes in (("data",), ()))
    images = jnp.concatenate([IMAGES, -IMAGES])
    small = nnc.compress(initialized(Block()))
    apply = jax.jit(nnc.inject(Block().apply))
    spread = apply(jax.device_put(small, whole), jax.device_put(images, share))
    assert len(spread.sharding.device_set) == 8
    np.testing.assert_allclose(spread, apply(small, images), rtol=1e-5, atol=1e-5)


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
