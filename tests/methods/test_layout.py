"""Scales, groups and factors along the axes that the program says, with errors measured against the floats."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import nncompress_jax as nnc
from nncompress_jax.methods.selection import LeftAlone
from tests.tracing.test_roles import IMAGES, ROWS, SEQUENCE, Tokens, layers, oihw

RANDOM = np.random.default_rng(0)


def draw(*shape):
    return jnp.asarray(RANDOM.standard_normal(shape), jnp.float32)


def spread(shape, axis):
    """A weight of which each place along an axis has another magnitude, from 1 to 100."""
    sizes = np.geomspace(1, 100, shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return draw(*shape) * jnp.asarray(sizes, jnp.float32)


LAYOUTS = {
    "OIHW": (oihw, (6, 4, 3, 3), 0, jnp.ones((1, 8, 8, 4))),
    "rows of outputs": (lambda w, x: x @ w["w"].T, (6, 8), 0, ROWS),
    "heads": (lambda w, x: jnp.einsum("bi,ihk->bhk", x, w["w"]), (8, 5, 4), 1, ROWS),
    "members": (lambda w, x: jax.vmap(jnp.matmul)(x, w["w"]), (3, 8, 6), 0, SEQUENCE),
    "transposed": (
        lambda w, x: lax.conv_transpose(x, w["w"], (1, 1), "SAME", transpose_kernel=True),
        (3, 3, 6, 4),
        2,
        IMAGES,
    ),
}
METHODS = {
    "quantize": nnc.quantize(),
    "weights alone": nnc.quantize(inputs=False),
    "fake_quantize": nnc.fake_quantize(),
    "learned": nnc.fake_quantize(learned_scales=True),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_output_has_its_scale(layout, method):
    """Half a step of 127 of each output's own largest magnitude, however large the others are."""
    apply, shape, axis, inputs = LAYOUTS[layout]
    weights = {"w": spread(shape, axis)}
    small = nnc.compress(weights, METHODS[method], apply=apply, batches=[inputs])
    error = np.abs(nnc.decompress(nnc.convert(small))["w"] - weights["w"])
    others = tuple(i for i in range(len(shape)) if i != axis)
    largest = np.abs(weights["w"]).max(others)
    assert (error.max(others) <= largest / 127 / 2 * 1.001).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_products_stay_on_integers(layout):
    apply, shape, axis, inputs = LAYOUTS[layout]
    weights, inputs = {"w": spread(shape, axis)}, draw(*inputs.shape)
    small = nnc.compress(weights, apply=apply, batches=[inputs])
    assert [row.types for row in nnc.int8_report(apply, small, inputs).rows] == ["int8 x int8 -> int32"]
    got, wanted = nnc.inject(apply)(small, inputs), apply(weights, inputs)
    assert np.linalg.norm(got - wanted) < 0.02 * np.linalg.norm(wanted)


def test_signs_have_the_mean_of_each_output():
    weights = {"w": jnp.array([[1.0, -3.0], [10.0, 30.0]])}
    small = nnc.compress(weights, nnc.binarize(), apply=lambda w, x: x @ w["w"].T, batches=[jnp.ones((1, 2))])
    np.testing.assert_allclose(nnc.decompress(small)["w"], [[2, -2], [20, 20]])
    training = nnc.compress(
        weights, nnc.binarize(train=True), apply=lambda w, x: x @ w["w"].T, batches=[jnp.ones((1, 2))]
    )
    np.testing.assert_allclose(nnc.decompress(nnc.convert(training))["w"], [[2, -2], [20, 20]])


def test_layers_of_a_scan_have_scales_of_their_own():
    """One layer a hundred times as large leaves the others as they are; vectors stay float."""
    network = layers(4)
    variables = network.init(jax.random.key(0), SEQUENCE, None)
    kernel = variables["params"]["Dense_0"]["kernel"] * jnp.array([100.0, 1, 1, 1])[:, None, None]
    variables["params"]["Dense_0"]["kernel"] = kernel
    small = nnc.compress(variables, apply=network.apply, batches=[(SEQUENCE, None)])["params"]
    assert small["Dense_0"]["kernel"].scale.shape == (4, 1, 8)
    error = np.abs(small["Dense_0"]["kernel"].materialise() - kernel).max((1, 2))
    assert (error <= np.abs(kernel).max((1, 2)) / 254 * 1.001).all()
    vectors = [small["Dense_0"]["bias"], *small["LayerNorm_0"].values()]
    assert all(isinstance(vector, jax.Array) for vector in vectors)
    got, _ = nnc.inject(network.apply)({"params": small}, SEQUENCE, None)
    wanted, _ = network.apply(variables, SEQUENCE, None)
    assert np.linalg.norm(got - wanted) < 0.02 * np.linalg.norm(wanted)


def test_a_large_row_of_a_table_spoils_no_other():
    ids = jnp.zeros((3, 5), jnp.int32)
    variables = Tokens().init(jax.random.key(0), ids)
    table = variables["params"]["free"]["embedding"].at[7].multiply(1000)
    variables["params"]["free"]["embedding"] = table
    for known in ({}, {"apply": Tokens().apply, "batches": [ids]}):
        small = nnc.compress(variables, **known)["params"]["free"]["embedding"]
        error = np.abs(small.materialise() - table).max(1)
        assert (error <= np.abs(table).max(1) / 254 * 1.001).all()


HEADS = (lambda w, x: jnp.einsum("bi,ihk->bhk", x, w["w"]), (8, 3, 4))


def test_groups_lie_along_the_inputs():
    apply, shape = HEADS
    weights = {"w": spread(shape, 0)}
    small = nnc.compress(weights, nnc.quantize(bits=4, group=2), apply=apply, batches=[ROWS])["w"]
    assert small.scale.shape == (4, 3, 4)
    pairs = np.asarray(weights["w"]).reshape(4, 2, 3, 4)
    error = np.abs(np.asarray(small.materialise()).reshape(4, 2, 3, 4) - pairs)
    assert (error <= np.abs(pairs).max(1, keepdims=True) / 14 * 1.001).all()


@pytest.mark.parametrize("then", [None, nnc.quantize()])
def test_n_of_m_lie_along_the_inputs(then):
    """Of every four neighbours along the first axis the two largest stay."""
    apply, shape = HEADS
    weights = {"w": draw(*shape)}
    method = nnc.prune(pattern=(2, 4)) if then is None else nnc.chain(nnc.prune(pattern=(2, 4)), then)
    small = nnc.compress(weights, method, apply=apply, batches=[ROWS])
    groups = np.asarray(weights["w"]).reshape(2, 4, 3, 4)
    smallest = np.argsort(np.abs(groups), axis=1)[:, :2]
    expected = groups.copy()
    np.put_along_axis(expected, smallest, 0, axis=1)
    step = 0 if then is None else np.abs(weights["w"]).max(0) / 254 * 1.001
    assert (np.abs(small["w"].materialise() - expected.reshape(shape)) <= step).all()
    if then is not None:
        assert small["w"].values.scale.size == 12
        assert nnc.int8_report(apply, small, ROWS).floats == ()


def test_attention_without_its_program():
    attention = nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=8)
    small = nnc.compress(attention.init(jax.random.key(0), SEQUENCE))["params"]
    assert small["query"]["kernel"].scale.shape == (1, 2, 4)
    assert small["out"]["kernel"].scale.shape == (1, 1, 8)
    assert isinstance(small["query"]["bias"], jax.Array)


SELECTED = {
    "params/a/w": (4, 4),
    "params/b/weight": (4, 4),
    "params/c/embedding": (4, 4),
    "params/d/kernel": (4, 4),
    "params/e": (64, 64),
}
LEFT = {
    "params/a/b": (24, 768),
    "params/norm/scale": (24, 768),
    "params/norm/offset": (24, 768),
    "params/norm/mean": (24, 768),
    "params/norm/w": (768,),
    "params/batchnorm/~/mean_ema/average": (1, 1, 1, 2048),
    "params/batchnorm/~/var_ema/hidden": (24, 768),
    "params/vector": (1, 1, 4096),
    "batch_stats/norm/kernel": (64, 64),
    "cache/attention/cached_key": (2, 64, 2, 8),
}


def test_what_is_taken_by_name():
    leaves = [(path, jnp.ones(shape)) for path, shape in (SELECTED | LEFT).items()]
    assert set(nnc.tree.selected(leaves)) == SELECTED.keys()


def test_what_cannot_be_taken_by_default_is_left_and_said():
    weights = {
        "good": {"kernel": draw(8, 4)},
        "empty": {"kernel": jnp.zeros((0, 4))},
        "single": {"kernel": jnp.float32(3)},
        "complex": {"kernel": jnp.ones((4, 4), jnp.complex64)},
        "whole": {"kernel": jnp.ones((4, 4), jnp.int32)},
    }
    for method in (nnc.quantize(), nnc.prune(sparsity=0.5), nnc.cluster(), nnc.binarize(), nnc.factorize(rank=1)):
        with pytest.warns(LeftAlone) as said:
            small = nnc.compress(weights, method)
        assert not isinstance(small["good"]["kernel"], jax.Array)
        rest = {name: small[name]["kernel"] for name in weights if name != "good"}
        assert all(leaf is weights[name]["kernel"] for name, leaf in rest.items())
        words = " ".join(str(each.message) for each in said)
        assert all(part in words for part in ("empty/kernel", "no entries", "a scalar", "complex64"))


CHEAPER = {
    "heads": (nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=8), (SEQUENCE,)),
    "scanned layers": (layers(4), (SEQUENCE, None)),
    "LSTM": (nn.RNN(nn.LSTMCell(16)), (SEQUENCE,)),
    "table": (Tokens(), (jnp.zeros((3, 5), jnp.int32),)),
    "depthwise": (nn.Conv(4, (3, 3), feature_group_count=4), (IMAGES,)),
}


@pytest.mark.filterwarnings("ignore::nncompress_jax.methods.selection.LeftAlone")
@pytest.mark.parametrize("kind", ["spatial", "tucker"])
@pytest.mark.parametrize("name", CHEAPER)
def test_factors_are_never_dearer(name, kind):
    module, inputs = CHEAPER[name]
    variables = module.init(jax.random.key(0), *inputs)
    small = nnc.compress(variables, nnc.factorize(macs=0.5, kind=kind), apply=module.apply, batches=[inputs])
    before, after = (nnc.cost(module.apply, tree, *inputs) for tree in (variables, small))
    macs = {layer.path: layer.macs for layer in before.layers}
    assert all(layer.macs <= macs[layer.path] for layer in after.layers)


@pytest.mark.filterwarnings("ignore::nncompress_jax.methods.selection.LeftAlone")
@pytest.mark.parametrize("kind", ["spatial", "tucker", "cp"])
def test_kernels_of_zeros_stay(kind):
    weights = {"kernel": jnp.zeros((3, 3, 8, 8))}
    small = nnc.compress(weights, nnc.factorize(macs=0.5, kind=kind))
    np.testing.assert_array_equal(nnc.decompress(small)["kernel"], weights["kernel"])
