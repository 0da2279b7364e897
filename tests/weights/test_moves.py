"""What may stand between a weight and its product: the weight stays in integers, or the program says why not."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import nncompress_jax as nnc
from nncompress_jax.axes.rules import RULES as AXES
from nncompress_jax.tracing.program import walk
from nncompress_jax.weights import moves, parts
from nncompress_jax.weights.base import CompressedWeight, dense

LAYERS, INPUTS, OUTPUTS, ROWS = 4, 96, 64, 8


def draw(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def sharded(x):
    mesh = jax.sharding.Mesh(jax.devices()[:1], "data")
    return lax.with_sharding_constraint(x, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def chosen(x):
    """A number that only the running program knows."""
    return jnp.argmax(x[0]) % LAYERS


INTEGERS = ""
# by name: a function of stacked layers [L, I, O] and inputs [B, I], linear in these; why it is not on integers
CASES = {
    "transpose": (lambda w, x: jnp.einsum("bi,loi->lbo", x, w.transpose(0, 2, 1)), INTEGERS),
    "squeeze": (lambda w, x: x @ lax.squeeze(w[1:2], (0,)), INTEGERS),
    "reshape": (lambda w, x: x @ w.reshape(2, 2, INPUTS, OUTPUTS)[1, 0], INTEGERS),
    "reshape of a matrix to heads": (lambda w, x: jnp.einsum("bi,ihd->bhd", x, w[0].reshape(INPUTS, 4, -1)), INTEGERS),
    "broadcast_in_dim": (
        lambda w, x: jnp.einsum("bi,bio->bo", x, jnp.broadcast_to(w[0], (ROWS, INPUTS, OUTPUTS))),
        INTEGERS,
    ),
    "slice": (lambda w, x: x[:, 8:40:2] @ w[2, 8:40:2, :5], INTEGERS),
    "rev": (lambda w, x: x @ jnp.flip(w[3]), INTEGERS),
    "tile": (lambda w, x: jnp.tile(x, 2) @ lax.tile(w[0], (2, 1)), INTEGERS),
    "split": (lambda w, x: jnp.stack([x @ part for part in jnp.split(w[0], 4, axis=1)]), INTEGERS),
    "unstack": (lambda w, x: sum(x @ layer for layer in jnp.unstack(w)), INTEGERS),
    "concatenate": (lambda w, x: x @ jnp.concatenate([w[0], w[1, :, ::2]], 1), INTEGERS),
    "concatenate of inputs": (lambda w, x: jnp.tile(x, 2) @ jnp.concatenate([w[0], w[1]], 0), "scales vary along axes"),
    "reshape with an axis more": (
        lambda w, x: jnp.einsum("bi,iol->bol", x, w[1].reshape(INPUTS, OUTPUTS, 1)),
        INTEGERS,
    ),
    "stack": (lambda w, x: jnp.einsum("bi,lio->lbo", x, jnp.stack([w[0], w[2]])), INTEGERS),
    "pad": (lambda w, x: jnp.pad(x, ((0, 0), (1, 0))) @ jnp.pad(w[0], ((1, 0), (0, 2))), INTEGERS),
    "pad with one": (lambda w, x: x @ jnp.pad(w[0], ((0, 0), (0, 2)), constant_values=1.0), "padded with what"),
    "dynamic_slice": (lambda w, x: x @ w[chosen(x)], INTEGERS),
    "dynamic_slice of a matrix": (
        lambda w, x: x[:, :8] @ lax.dynamic_slice(w[0], (chosen(x), 0), (8, OUTPUTS)),
        INTEGERS,
    ),
    "gather of layers": (lambda w, x: jnp.einsum("bi,bio->bo", x, w[jnp.arange(ROWS) % LAYERS]), INTEGERS),
    "gather of layers, filled": (
        lambda w, x: jnp.einsum("bi,bio->bo", x, jnp.take(w, jnp.arange(ROWS) % LAYERS, 0)),
        INTEGERS,
    ),
    "gather of outputs": (lambda w, x: x @ w[0][:, jnp.array([3, 1, 2])], INTEGERS),
    "stop_gradient": (lambda w, x: x @ lax.stop_gradient(w[0]), INTEGERS),
    "optimization_barrier": (lambda w, x: x @ lax.optimization_barrier((w, x))[0][0], INTEGERS),
    "sharding_constraint": (lambda w, x: x @ sharded(w)[0], INTEGERS),
    "name": (lambda w, x: x @ checkpoint_name(w, "weight")[0], INTEGERS),
    "copy": (lambda w, x: x @ jnp.copy(w)[0], INTEGERS),
    "convert_element_type": (
        lambda w, x: (x.astype(jnp.bfloat16) @ w[0].astype(jnp.bfloat16)).astype(jnp.float32),
        INTEGERS,
    ),
    "times one": (lambda w, x: x @ (w * 1)[0], INTEGERS),
    "halved": (lambda w, x: x @ (w[0] / 2), INTEGERS),
    "times an array": (lambda w, x: x @ (w[0] * jnp.arange(OUTPUTS)), "mul with an array"),
    "plus one": (lambda w, x: x @ (w[0] + 1), "no rule for add"),
    "scan over layers": (lambda w, x: lax.scan(lambda x, w: (x @ w @ w.T / 9, None), x, w)[0], INTEGERS),
    "scan that indexes layers": (
        lambda w, x: lax.fori_loop(0, LAYERS, lambda i, y: y + x @ w[i], jnp.zeros((ROWS, OUTPUTS))),
        INTEGERS,
    ),
    "branch": (lambda w, x: lax.cond(x[0, 0] > 0, lambda w: x @ w[0], lambda w: x @ w[1], w), INTEGERS),
    "vmap": (lambda w, x: jax.vmap(lambda w: x @ w)(w), INTEGERS),
    "experts": (lambda w, x: jnp.einsum("lti,lio->lto", x.reshape(LAYERS, -1, INPUTS), w), INTEGERS),
    "ragged_dot": (lambda w, x: lax.ragged_dot(x, w, jnp.array([2, 0, 5, 1])), INTEGERS),
    "ragged_dot of groups of inputs": (
        lambda w, x: lax.ragged_dot_general(
            x,
            w[0],
            jnp.array([40, 56]),
            lax.RaggedDotDimensionNumbers((((1,), (0,)), ((), ())), (1,), ()),
        ),
        "groups along other axes",
    ),
    "conv_general_dilated": (
        lambda w, x: lax.conv_general_dilated(x[None], w, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))[0],
        INTEGERS,
    ),
}


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("case", CASES)
def test_between_a_weight_and_its_product(case, bits):
    function, reason = CASES[case]
    x = jnp.round(draw((ROWS, INPUTS), 1) * 20).at[:, 0].set(127.0)
    x = x.at[:, 8].set(127.0).at[:, 8::2].set(jnp.clip(x[:, 8::2], -127, 127))  # codes of scale one: exact in int8
    weights = {"kernel": nnc.compress({"kernel": draw((LAYERS, INPUTS, OUTPUTS))}, nnc.quantize(bits=bits))["kernel"]}
    apply = lambda weights, x: function(weights["kernel"], x)  # noqa: E731
    lowered = jax.jit(nnc.inject(apply)).lower(weights, x)
    outputs, expected = lowered.compile()(weights, x), apply({"kernel": dense(weights["kernel"])}, x)
    assert np.abs(outputs - expected).max() < 0.02 * np.abs(expected).max()
    on_integers = re.search(r"(dot_general|convolution).*tensor<[\dx]*xi8>, tensor<[\dx]*xi8>", lowered.as_text())
    assert bool(on_integers) == (reason == INTEGERS)
    if reason:
        (row,) = nnc.explain(apply, weights, x).rows()
        assert reason in row["runs"]
    elif case not in ("broadcast_in_dim", "gather of layers", "gather of layers, filled"):  # a matrix for each row
        assert lowered.compile().memory_analysis().temp_size_in_bytes < 3 * LAYERS * INPUTS * OUTPUTS


def test_every_rule_is_tried():
    """Each primitive that moves the entries of weights stands in the program of a case."""
    tried: set[str] = set()
    for function, _ in CASES.values():
        program = jax.make_jaxpr(function)(draw((LAYERS, INPUTS, OUTPUTS)), draw((ROWS, INPUTS))).jaxpr
        tried |= {visit.equation.primitive.name for visit in walk(program, [None] * len(program.invars))[0]}
    assert {name for name in moves.RULES if hasattr(lax, f"{name}_p")} <= tried
    assert moves.RULES.keys() - {"reshape", "stop_gradient", "copy"} <= AXES.keys()


ROWS_OF = {
    "Quantized": nnc.quantize(),
    "Quantized, 4 bits": nnc.quantize(bits=4),
    "Quantized, in groups": nnc.quantize(bits=4, group=16),
    "Clustered": nnc.cluster(bits=4),
    "Clustered by channel": nnc.cluster(bits=4, by_channel=True),
    "Binary": nnc.binarize(),
    "LowRank": nnc.factorize(rank=4, where="*"),
}


@pytest.mark.parametrize("kind", ROWS_OF)
def test_rows_of_an_embedding(kind):
    """What is read does not grow with the vocabulary; places outside of it are NaN, as in the dense array."""
    table, places = draw((20_000, 32)), jnp.array([[0, 19_999, 7], [20_000, -20_001, 3]])
    small = nnc.compress({"embedding": table}, ROWS_OF[kind])

    def looked_up(w, places):
        return jnp.take(w["embedding"], places, axis=0)

    def scanned(w, places):
        return lax.scan(lambda _, row: (None, looked_up(w, row)), None, places)[1]

    weight = small["embedding"]
    expected = jnp.take(dense(weight), places, axis=0)
    assert np.isnan(expected).any()
    for function in (looked_up, scanned):
        compiled = jax.jit(lambda w, x, f=function: dense(nnc.inject(f)(w, x))).lower(small, places).compile()
        np.testing.assert_allclose(compiled(small, places), expected, rtol=1e-5, atol=1e-6)
        assert compiled.memory_analysis().temp_size_in_bytes < 32_000


def test_rows_at_places_that_are_clipped_or_promised():
    small = nnc.compress({"embedding": draw((200, 8))})
    rows = small["embedding"]
    for mode, places in (("clip", [3, -1, 277]), (None, [3, 1, 199])):
        read = lambda w, x, mode=mode: w["embedding"].at[x].get(mode=mode)  # noqa: E731
        found = nnc.inject(read)(small, jnp.array(places))
        assert isinstance(found, CompressedWeight)
        np.testing.assert_array_equal(dense(found), read({"embedding": dense(rows)}, jnp.array(places)))


def test_groups_of_different_sizes_are_joined():
    """One after another along one axis, where groups of neighbours along the other share scales."""
    kernels = [draw((12, 4), seed) for seed in (1, 2)]
    small = {
        name: nnc.compress({"kernel": kernel}, nnc.quantize(bits=4, group=group))["kernel"]
        for name, kernel, group in zip("ab", kernels, (4, 6), strict=True)
    }
    joined = nnc.inject(lambda w: jnp.concatenate([w["a"], w["b"]], 1))(small)
    assert isinstance(joined, CompressedWeight)
    np.testing.assert_array_equal(dense(joined), jnp.concatenate([*map(dense, small.values())], 1))


def test_gradients_stop_where_the_function_stops_them():
    weights = nnc.compress({"kernel": draw((8, 4))}, nnc.fake_quantize())
    apply = nnc.inject(lambda w, x, stop: (x @ (lax.stop_gradient(w["kernel"]) if stop else w["kernel"])).sum())
    for stop in (True, False):
        _, gradients = parts.value_and_grad(lambda w, stop=stop: apply(w, draw((3, 8)), stop))(weights)
        assert all(bool((leaf != 0).any()) != stop for leaf in jax.tree.leaves(gradients))
