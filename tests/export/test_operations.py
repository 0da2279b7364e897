"""Single operations, on batches of any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

import nncompress_jax as nnc
from tests.export.runtime import exported, same

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((4, 6, 8, 5)).astype(np.float32)
W = {"w": jnp.asarray(RANDOM.standard_normal((5, 7)), jnp.float32)}
TOKENS = RANDOM.integers(0, 9, (4, 6)).astype(np.int32)


def of_x(function):
    return lambda weights, x: function(x)


POSITIVE = {
    "log": jnp.log, "log1p": jnp.log1p, "sqrt": jnp.sqrt, "rsqrt": lax.rsqrt, "power": lambda x: x**2.5,
    "reciprocal": lambda x: 1 / x, "arccosh": lambda x: jnp.arccosh(1 + x),
}  # fmt: skip
ENTRYWISE = {
    **{name: getattr(jnp, name) for name in ("exp", "expm1", "tanh", "abs", "sign", "floor", "ceil", "sin", "cos")},
    **{name: getattr(jnp, name) for name in ("square", "negative", "round", "sinh", "cosh", "arctan", "exp2")},
    **{name: getattr(jax.nn, name) for name in ("relu", "relu6", "silu", "gelu", "softplus", "elu", "hard_swish")},
    **{name: getattr(jax.nn, name) for name in ("sigmoid", "leaky_relu", "softmax", "log_softmax", "standardize")},
    "erfc": lax.erfc, "cube": lambda x: x**3, "clip": lambda x: jnp.clip(x, -0.5, 0.7), "finite": jnp.isfinite,
    "where": lambda x: jnp.where(x > 0, x, x - 1), "mod": lambda x: jnp.fmod(x, 0.7), "different": lambda x: x != 0,
    "both": lambda x: (x > 0) & (x < 1) | ~(x > -1),
    "three": lambda x: lax.select_n((x > 0).astype(int) + (x > 1), x, -x, 2 * x),
    "integers": lambda x: (x * 10).astype(jnp.int32) * 3 + 1, "bounds": lambda x: jnp.clip(x, x - 1, 0.5 * x + 1),
}  # fmt: skip
MOVING = {
    "transpose": lambda x: x.transpose(0, 2, 3, 1),
    "reshape": lambda x: x.reshape(len(x), 12, 20),
    "merged": lambda x: x.reshape(-1, 5),
    "flat": lambda x: x.transpose(0, 3, 1, 2).reshape(len(x), -1),
    "ones": lambda x: x[:, None, :, :, :, None].squeeze(1),
    "slices": lambda x: x[:, 1:5:2, -3:, ::-1],
    "one": lambda x: x[:, 2, :, 1],
    "rows": lambda x: x[:, jnp.array([3, 0, 3])],
    "concatenate": lambda x: jnp.concatenate([x, 2 * x, jnp.ones((len(x), 1, 8, 5))], 1),
    "stack": lambda x: jnp.stack([x, -x], 2),
    "pad": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 0), (3, 0)), constant_values=2.0),
    "crop": lambda x: lax.pad(x, 0.0, ((0, 0, 0), (-1, 2, 0), (1, -3, 0), (0, 0, 0))),
    "reflect": lambda x: jnp.pad(x, ((0, 0), (2, 2), (0, 0), (0, 0)), mode="reflect"),
    "flip": lambda x: x[:, ::-1],
    "roll": lambda x: jnp.roll(x, 2, 2),
    "split": lambda x: jnp.split(x, [2, 3], 1),
    "tile": lambda x: jnp.tile(x, (1, 2, 1, 3)),
    "broadcast": lambda x: jnp.broadcast_to(x[:, :1], x.shape) + x,
    "class token": lambda x: jnp.concatenate([jnp.tile(jnp.ones((1, 1, 8, 5)), (len(x), 1, 1, 1)), x], 1),
    "repeat": lambda x: jnp.repeat(x, 2, 1),
    "shuffle": lambda x: x.reshape(len(x), 6, 2, 4, 5).swapaxes(2, 3).reshape(x.shape),
    "windows": lambda x: x.reshape(len(x), 3, 2, 4, 2, 5).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 4, 5),
}  # fmt: skip
SUMS = {
    **{name: (lambda x, name=name: getattr(jnp, name)(x, (1, 2))) for name in ("sum", "max", "min", "mean", "prod")},
    "deviation": lambda x: jnp.std(x, 3), "argmax": lambda x: jnp.argmax(x, 2), "argmin": lambda x: x.argmin(1),
    "any": lambda x: (x > 2).any(1), "all": lambda x: (x > -2).all((1, 3)), "cumsum": lambda x: jnp.cumsum(x, 2),
    "norm": lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True), "logsumexp": lambda x: jax.nn.logsumexp(x, 3),
    "positions": lambda x: x + jnp.arange(6.0)[:, None, None], "causal": lambda x: jnp.tril(x[..., 0]),
    "max pool": lambda x: nn.max_pool(x, (3, 2), (2, 2), "SAME"), "unpadded": lambda x: nn.max_pool(x, (2, 2)),
    "average": lambda x: nn.avg_pool(x, (2, 3), (1, 2), "SAME"),
    "of those there": lambda x: nn.avg_pool(x, (3, 3), (2, 2), "SAME", False),
}  # fmt: skip
PRODUCTS = {
    "dense": lambda v, x: x @ v["w"] + 1,
    "weight first": lambda v, x: jnp.einsum("io,bhwi->obhw", v["w"], x),
    "two axes": lambda v, x: jnp.einsum("bhwi,hij->bwj", x, jnp.ones((6, 5, 3)) * v["w"][0, 0]),
    "attention": lambda v, x: jnp.einsum("bhqd,bhkd->bhqk", x, x * 2),
    "outer": lambda v, x: jnp.einsum("bhwi,bvwj->bwhvij", x, x[:, :2]),
    "all": lambda v, x: jnp.einsum("bhwi,bhwi->b", x, x),
    "of two types": lambda v, x: jnp.einsum("bhwi,h->bhwi", x, jnp.arange(6)),
    "a weight and integers": lambda v, x: lax.dot(
        jnp.sign(x[:, 0, 0]).astype(int), v["w"], preferred_element_type=float
    ),
    "integers": lambda v, x: jnp.sign(x).astype(int) @ jnp.arange(15).reshape(5, 3),
    "products of weights": lambda v, x: x @ (v["w"] @ v["w"].T),
}


@pytest.mark.parametrize("name", [*ENTRYWISE, *MOVING, *SUMS])
def test_of_data(name, tmp_path):
    same(tmp_path, of_x((ENTRYWISE | MOVING | SUMS)[name]), {}, X)


@pytest.mark.parametrize("name", POSITIVE)
def test_of_positive_data(name, tmp_path):
    same(tmp_path, of_x(POSITIVE[name]), {}, np.abs(X) + 0.1)


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name, tmp_path):
    same(tmp_path, PRODUCTS[name], W, X)


CONVOLUTIONS = {
    "strided": {"window_strides": (2, 1), "padding": "SAME"},
    "dilated": {"window_strides": (1, 1), "padding": "VALID", "rhs_dilation": (2, 1)},
    "grouped": {"window_strides": (1, 1), "padding": ((1, 0), (2, 1)), "feature_group_count": 2},
    "transposed": {"window_strides": (1, 1), "padding": ((2, 1), (1, 2)), "lhs_dilation": (2, 3)},
    "transposed, grouped": {
        **{"window_strides": (1, 1), "padding": ((1, 1), (1, 1)), "lhs_dilation": (2, 2), "feature_group_count": 2},
    },
}


@pytest.mark.filterwarnings("ignore:.*integers in the file, multiplied as floats. in transposed")
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name, layout, tmp_path):
    options = CONVOLUTIONS[name]
    groups = options.get("feature_group_count", 1)
    x = RANDOM.standard_normal((4, 6, 8, 4)).astype(np.float32)
    kernel = jnp.asarray(RANDOM.standard_normal((3, 2, 4 // groups, 6)), jnp.float32)
    kernels = "HWIO"
    if layout == "NCHW":
        x, kernel, kernels = x.transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1), "OIHW"

    def apply(v, x):
        y = lax.conv_general_dilated(x, v["w"], **options, dimension_numbers=(layout, kernels, layout))
        y = y * v["scale"].reshape((1, 1, 1, -1) if layout == "NHWC" else (1, -1, 1, 1)) - 0.5
        return jax.nn.relu(y)

    weights = {"w": kernel, "scale": jnp.asarray(RANDOM.standard_normal(6), jnp.float32)}
    same(tmp_path, apply, weights, x)
    small = nnc.compress(weights, nnc.quantize(where="w"), apply=apply, batches=[x])
    run, report = exported(tmp_path, apply, small, x, batches=[x])
    assert report.integer == ("transposed" not in name)
    expected = np.asarray(apply(weights, x))
    assert np.abs(run(x)[0] - expected).max() < 0.05 * expected.max()


def test_tokens_and_masks(tmp_path):
    weights = {"table": jnp.asarray(RANDOM.standard_normal((9, 5)), jnp.float32)}

    def apply(v, tokens, mask):
        x = jnp.take(v["table"], tokens, axis=0) + v["table"][:6]
        scores = jnp.where(mask[:, None, :] > 0, jnp.einsum("bid,bjd->bij", x, x), -1e9)
        return {"attention": jax.nn.softmax(scores), "states": x}

    same(tmp_path, apply, weights, TOKENS, (TOKENS > 2).astype(np.int32))


def test_loops_are_written_turn_by_turn(tmp_path):
    weights = {"w": jnp.asarray(RANDOM.standard_normal((3, 5, 5)) / 3, jnp.float32)}

    def apply(v, x):
        x, means = lax.scan(lambda x, w: (jnp.tanh(x @ w), x.mean((1, 2, 3))), x, v["w"])
        x = lax.fori_loop(0, 3, lambda i, x: x + i, x)
        return jax.checkpoint(jnp.sin)(x), means

    same(tmp_path, apply, weights, X)


def test_a_recurrent_network(tmp_path):
    module = nn.RNN(nn.GRUCell(4))
    x = X[:, :, 0]
    same(tmp_path, module.apply, module.init(jax.random.key(0), x), x)


def test_branches(tmp_path):
    def apply(v, x):
        return lax.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, x)

    run, _ = exported(tmp_path, apply, {}, X)
    for x in (np.abs(X), -np.abs(X)):
        np.testing.assert_allclose(run(x)[0], apply({}, x), rtol=1e-6)


def test_all_that_cannot_be_written_is_named(tmp_path):
    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return jnp.sort(x, axis=1) + jnp.cumprod(x, axis=1)

    with pytest.raises(nnc.InputError, match="sort in Layer: .*; cumprod in Layer: "):
        nnc.export_onnx(tmp_path / "x.onnx", Layer().apply, {}, X)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (lambda v, x: x[:3] if len(x) == 2 else x + 1, "other things with another number of examples"),
        (lambda v, x: jnp.concatenate([x, x[:1]]), "a size of 3 with 2 examples, and of 129 with 128"),
        (lambda v, x: x / len(x), "div in apply: the number 2.0 goes with the number of examples"),
        (lambda v, x: x + np.ones((len(x), 1, 1, 1), np.float32), "an array that goes with the number of examples"),
        (lambda v, x: lax.while_loop(lambda x: x.sum() < 9, lambda x: x + 1, x), "turns depends on data"),
    ],
)
def test_refusals(apply, message, tmp_path):
    with pytest.raises(nnc.InputError, match=message):
        nnc.export_onnx(tmp_path / "x.onnx", apply, {}, X)


def test_random_keys(tmp_path):
    def apply(v, x, key):
        return x * jax.random.bernoulli(key, 0.5, x.shape)

    with pytest.raises(nnc.InputError, match="inputs 1: random keys, which ONNX has none of"):
        nnc.export_onnx(tmp_path / "x.onnx", apply, {}, (X, jax.random.key(0)))
    run, _ = exported(tmp_path, lambda v, x: apply(v, x, jax.random.key(0)), {}, X, any_batch=False)
    np.testing.assert_array_equal(run(X)[0], apply({}, X, jax.random.key(0)))


def test_an_older_opset(tmp_path):
    with pytest.raises(nnc.InputError, match="opset=13: expected 21 or later"):
        nnc.export_onnx(tmp_path / "x.onnx", lambda v, x: x, {}, X, opset=13)
