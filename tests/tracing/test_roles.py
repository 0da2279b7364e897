"""What axes are for, in programs whose axes are known by their construction."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import lax

from nncompress_jax.tracing.roles import Use, uses

SEQUENCE = jnp.ones((3, 5, 8))
IMAGES = jnp.ones((1, 8, 8, 4))
ROWS = jnp.ones((2, 8))


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return x + nn.Dense(8)(nn.LayerNorm()(x)), None


class Tokens(nn.Module):
    @nn.compact
    def __call__(self, ids):
        tied = nn.Embed(50, 8, name="tied")
        x = nn.Embed(60, 8, name="free")(ids) + tied(ids) + self.param("places", nn.initializers.normal(), (1, 5, 8))
        return tied.attend(nn.Dense(8)(nn.LayerNorm()(x)))


def layers(times):
    return nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=times)()


def roles_of(apply, variables, *inputs):
    return {path: [use.roles for use in found] for path, found in uses(apply, variables, *inputs).items()}


MODULES = {
    "attention": (
        nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=8),
        (SEQUENCE,),
        {
            **{f"params/{name}/kernel": ("input", "output", "output") for name in ("query", "key", "value")},
            "params/out/kernel": ("input", "input", "output"),
        },
    ),
    "scanned layers": (layers(4), (SEQUENCE, None), {"params/Dense_0/kernel": ("stacked", "input", "output")}),
    "convolution": (nn.Conv(6, (3, 3)), (IMAGES,), {"params/kernel": ("window", "window", "input", "output")}),
    "transposed convolution": (
        nn.ConvTranspose(6, (3, 3), transpose_kernel=True),
        (IMAGES,),
        {"params/kernel": ("window", "window", "output", "input")},
    ),
    "depthwise": (
        nn.Conv(4, (3, 3), feature_group_count=4),
        (IMAGES,),
        {"params/kernel": ("window", "window", "stacked", "output")},
    ),
    "weight norm": (
        nn.WeightNorm(nn.Dense(6)),
        (SEQUENCE,),
        {"params/layer_instance/kernel": ("input", "output"), "params/layer_instance/kernel/scale": ("output",)},
    ),
    "LSTM": (
        nn.RNN(nn.LSTMCell(6)),
        (SEQUENCE,),
        {f"params/cell/{side}{gate}/kernel": ("input", "output") for side in "ih" for gate in "ifgo"},
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules(name):
    """Biases and what normalizes data multiply nothing; the scale of a weight multiplies with it."""
    module, inputs, expected = MODULES[name]
    variables = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    assert roles_of(module.apply, variables, *inputs) == {path: [roles] for path, roles in expected.items()}


def test_tables():
    ids = jnp.zeros((3, 5), jnp.int32)
    variables = jax.eval_shape(Tokens().init, jax.random.key(0), ids)
    assert uses(Tokens().apply, variables, ids) == {
        "params/free/embedding": [Use("look-up", ("stacked", "output"))],
        "params/tied/embedding": [Use("dot", ("output", "input"))],
        "params/Dense_0/kernel": [Use("dot", ("input", "output"))],
    }


def standardised(w, x):
    kernel = (w["w"] - w["w"].mean((0, 1, 2))) / jnp.sqrt(w["w"].var((0, 1, 2)) + 1e-5)
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def oihw(w, x):
    return lax.conv_general_dilated(x, w["w"], (1, 1), "SAME", dimension_numbers=("NHWC", "OIHW", "NHWC"))


FUNCTIONS = {
    "OIHW": (oihw, (6, 4, 3, 3), IMAGES, ("output", "input", "window", "window")),
    "standardised": (standardised, (3, 3, 4, 6), IMAGES, ("window", "window", "input", "output")),
    "rows of outputs": (lambda w, x: x @ w["w"].T, (6, 8), ROWS, ("output", "input")),
    "split into heads": (
        lambda w, x: jnp.einsum("bi,ishd->bshd", x, w["w"].reshape(8, 3, 2, 4)),
        (8, 24),
        ROWS,
        ("input", "output"),
    ),
    "one of three": (lambda w, x: x @ w["w"][:, 1], (8, 3, 6), ROWS, ("input", "stacked", "output")),
    "merged inputs": (lambda w, x: x @ w["w"].reshape(8, 6), (2, 4, 6), ROWS, ("input", "input", "output")),
    "members": (
        lambda w, x: jax.vmap(jnp.matmul)(x, w["w"]),
        (3, 8, 6),
        SEQUENCE,
        ("stacked", "input", "output"),
    ),
    "loop": (
        lambda w, x: lax.fori_loop(0, 4, lambda i, x: x @ w["w"][i], x),
        (4, 8, 8),
        ROWS,
        ("stacked", "input", "output"),
    ),
    "chosen expert": (
        lambda w, x: x @ w["w"][jnp.argmax(x[0])],
        (4, 8, 6),
        ROWS,
        ("stacked", "input", "output"),
    ),
    "ragged": (
        lambda w, x: lax.ragged_dot(x, w["w"], jnp.array([1, 1])),
        (2, 8, 6),
        ROWS,
        ("stacked", "input", "output"),
    ),
    "one entry": (lambda w, x: x @ w["w"], (8, 1), ROWS, ("input", "stacked")),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    apply, shape, inputs, expected = FUNCTIONS[name]
    weights = {"w": jax.ShapeDtypeStruct(shape, "float32")}
    assert roles_of(apply, weights, inputs) == {"w": [expected]}


def test_several_weights_and_places():
    weights = {"a": jnp.ones((8, 4)), "b": jnp.ones((8, 4)), "gain": jnp.ones(4), "unused": jnp.ones((8, 4))}

    def apply(w, x):
        joined = jnp.concatenate([w["a"], w["b"] * w["gain"]], axis=1)
        return lax.cond(x[0, 0] > 0, lambda y: y @ w["a"].T, lambda y: x, (x @ joined)[:, :4])

    assert roles_of(apply, weights, ROWS) == {
        "a": [("input", "output"), ("output", "input")],
        "b": [("input", "output")],
        "gain": [("output",)],
    }


def test_what_meets_data_entry_by_entry_is_data():
    weights = {"places": jnp.ones((2, 8)), "kernel": jnp.ones((8, 6))}
    found = roles_of(lambda w, x: (x + w["places"]) @ w["kernel"], weights, ROWS)
    assert found == {"kernel": [("input", "output")]}
