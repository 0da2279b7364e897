"""Which leaves become integers, which refuse, and what the integers are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import nncompress_jax as nnc
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Context
from nncompress_jax.weights.base import dense, is_compressed
from nncompress_jax.weights.quantized import Quantized


def taken(tree, **options):
    return [
        path
        for path, leaf in named_leaves(nnc.compress(tree, nnc.quantize(**options)), is_compressed)
        if is_compressed(leaf)
    ]


TREE = {
    "params": {
        "Conv_0": {"kernel": jnp.ones((3, 3, 1, 4)), "bias": jnp.ones(4)},
        "Embed_0": {"embedding": jnp.ones((64, 16))},
        "small": jnp.ones((8, 8)),
        "steps": jnp.ones((64, 64), jnp.int32),
        "long": jnp.ones(4096),
    },
    "batch_stats": {"kernel": jnp.ones((64, 64))},
}


def test_leaves_taken_by_default():
    assert taken(TREE) == ["params/Conv_0/kernel", "params/Embed_0/embedding"]
    assert taken(TREE["params"]) == ["Conv_0/kernel", "Embed_0/embedding"]
    assert taken(jnp.ones((64, 64))) == ["array"]
    assert taken([{"kernel": jnp.ones(3)}]) == ["0/kernel"]


def test_leaves_taken_by_choice():
    assert taken(TREE, where="*/small") == ["params/small"]
    assert taken(TREE, where=lambda path: path.endswith("bias")) == ["params/Conv_0/bias"]


def test_the_rest_is_the_same_object():
    small = nnc.compress(TREE)
    assert small["params"]["Conv_0"]["bias"] is TREE["params"]["Conv_0"]["bias"]
    assert isinstance(TREE["params"]["Conv_0"]["kernel"], jax.Array)


@settings(max_examples=20, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=4, max_side=5),
        elements=st.floats(-1e6, 1e6, width=32).filter(lambda x: x == 0 or abs(x) > 1e-6),
    )
)
def test_codes(kernel):
    weight = nnc.compress({"kernel": kernel})["kernel"]
    assert (weight.codes.dtype, weight.scale.dtype) == (jnp.int8, jnp.float32)
    assert weight.scale.shape == (1,) * (kernel.ndim - 1) + kernel.shape[-1:]
    largest = np.abs(kernel).max(tuple(range(kernel.ndim - 1)))
    assert np.abs(np.asarray(weight.codes, int)).max((*range(kernel.ndim - 1),)).tolist() == [
        127 * (x > 0) for x in largest
    ]
    assert (np.abs(weight.materialise() - kernel) <= np.asarray(weight.scale) * 0.5001).all()
    np.testing.assert_array_equal(np.asarray(weight.codes)[kernel == 0], 0)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_logical_types(dtype):
    weight = nnc.compress({"kernel": jnp.ones((4, 4), dtype)})["kernel"]
    assert weight.dtype == weight.materialise().dtype == dtype
    assert weight.scale.dtype == jnp.float32


def test_under_jit():
    small = jax.jit(nnc.compress)({"kernel": jnp.arange(16.0).reshape(4, 4)})
    assert small["kernel"].codes[-1].tolist() == [127] * 4


@pytest.mark.parametrize(("name", "limit"), [("vgg16", 0.27), ("vgg16ds", 0.30)])
def test_nothing_but_integers_is_stored(name, limit):
    """Bytes of all variables, batch statistics and biases included."""
    network = nnc.models.create(name)
    variables = jax.tree.map(
        lambda leaf: jnp.ones(leaf.shape, leaf.dtype),
        jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3))),
    )
    small = nnc.compress(variables)
    before, after = (sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) for tree in (variables, small))
    assert after <= limit * before
    floats = [leaf for leaf in jax.tree.leaves(small) if leaf.dtype != jnp.int8]
    widest = 512
    assert max(leaf.size for leaf in floats) <= widest  # a vector for each output channel, and no kernel


@pytest.mark.parametrize(
    ("tree", "options", "words"),
    [
        (
            nnc.compress(TREE),
            {},
            ["params/Conv_0/kernel, params/Embed_0/embedding", "compressed already", "decompress"],
        ),
        (
            {"a": {"kernel": jnp.array([[jnp.nan]])}, "b": {"kernel": jnp.array([[jnp.inf]])}},
            {},
            ["a/kernel, b/kernel", "NaN"],
        ),
        (TREE, {"where": "*/kernels"}, ["where='*/kernels'", "of 7 leaves", "params/Conv_0/bias"]),
        (TREE, {"where": "*/steps"}, ["params/steps: not floating point"]),
        ({"kernel": jnp.ones((0, 4))}, {"where": "*"}, ["kernel: no entries"]),
        ({"bias": jnp.ones(4)}, {}, ["by default", "bias"]),
        (TREE, {"ranges": nnc.calibration.abs_max}, ["apply=", "batches="]),
    ],
)
def test_refusals(tree, options, words):
    with pytest.raises(nnc.InputError) as error:
        nnc.compress(tree, nnc.quantize(**options))
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_methods_are_functions():
    assert isinstance(nnc.quantize()({"kernel": jnp.ones((2, 2))}, Context())["kernel"], Quantized)


def kernel(*shape):
    return jax.random.normal(jax.random.key(0), shape)


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_few_bits_are_packed(bits):
    weight = nnc.compress({"kernel": kernel(3, 3, 32, 16)}, nnc.quantize(bits=bits))["kernel"]
    assert weight.codes.shape == (3, 3, 32, 16)
    assert weight.nbytes == 3 * 3 * 32 * 16 * bits // 8 + 4 * 16
    codes = np.asarray(dense(weight.codes), int)
    assert np.abs(codes).max() == 2 ** (bits - 1) - 1
    error = np.abs(weight.materialise() - kernel(3, 3, 32, 16))
    assert (error <= 0.5001 * np.asarray(weight.scale)).all()


def test_groups_of_inputs():
    weights = {"a": {"kernel": kernel(3, 3, 64, 16)}, "b": {"kernel": kernel(3, 3, 3, 16)}}
    small = nnc.compress(weights, nnc.quantize(bits=4, group=32))
    assert small["a"]["kernel"].scale.shape == (1, 1, 2, 16)
    assert small["b"]["kernel"].scale.shape == (1, 1, 1, 16)  # fewer inputs than a group
    halves = [nnc.compress({"kernel": kernel(3, 3, 64, 16)[:, :, half]}, nnc.quantize(bits=4)) for half in HALVES]
    for half, alone in zip(HALVES, halves, strict=True):
        np.testing.assert_array_equal(small["a"]["kernel"].materialise()[:, :, half], alone["kernel"].materialise())
    with pytest.raises(nnc.InputError, match="a/kernel: 64 input channels, expected a multiple of group=48"):
        nnc.compress(weights, nnc.quantize(group=48))


HALVES = (slice(0, 32), slice(32, 64))


def test_a_zero_point_spends_no_codes_on_what_is_not_there():
    positive = {"kernel": jnp.abs(kernel(64, 16)) * (kernel(64, 16) > 0)}
    errors = {}
    for symmetric in (True, False):
        weight = nnc.compress(positive, nnc.quantize(bits=4, symmetric=symmetric))["kernel"]
        errors[symmetric] = float(jnp.abs(weight.materialise() - positive["kernel"]).max())
        np.testing.assert_array_equal(weight.materialise()[positive["kernel"] == 0], 0)
    assert errors[False] < 0.6 * errors[True]


def test_other_bits():
    with pytest.raises(nnc.InputError, match="bits=5: expected one of 8, 4, 3, 2"):
        nnc.quantize(bits=5)
