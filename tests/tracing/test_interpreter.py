"""Programs inside programs: weights stay integers under remat, in loops, branches, and own derivatives."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import nncompress_jax as nnc
from tests.tracing.test_injection import IMAGES, Block, close, initialized, lowered, products


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
    assert static["params"]["blocks"]["Conv_1"]["kernel"].input_scale.shape == (3,)
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
