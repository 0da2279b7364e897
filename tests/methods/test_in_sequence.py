"""Second-order rounding and pruning of whole networks."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import nncompress_jax as nnc
from nncompress_jax import InputError
from nncompress_jax.methods.selection import LeftAlone
from nncompress_jax.types import Context
from tests.methods.drawn import draw
from tests.methods.obq import damped, obq, rounded_layer

TAKES = {
    "whole": {},
    "one scale": {"axes": ()},
    "of inputs": {"axes": (0,)},
    "of both": {"axes": (0, 1)},
    "groups": {"group": 4},
    "zero points": {"symmetric": False},
    "groups with zero points": {"group": 4, "symmetric": False},
    "a step": {"step": 0.02},
}


def mixed(rows, size, seed=1):
    """Inputs that have something in common, so that weights can make up for one another."""
    return jax.nn.relu(draw(rows, size, seed=seed) @ draw(size, size, seed=99))


def mlp(weights, x):
    return jax.nn.relu(x @ weights["up"]) @ weights["down"]


def error(apply, one, other, x):
    return float(jnp.square(nnc.inject(apply)(one, x) - apply(other, x)).mean())


@pytest.mark.parametrize("arguments", TAKES.values(), ids=TAKES)
def test_on_inputs_that_have_nothing_in_common_codes_are_the_nearest(arguments):
    weights = {"kernel": draw(16, 6)}
    nearest, second = (
        nnc.compress(
            weights,
            nnc.quantize(where="*", rounding=rounding, **arguments),
            apply=lambda w, x: x @ w["kernel"],
            batches=[jnp.eye(16)],
        )
        for rounding in ("nearest", "second_order")
    )
    for one, other in zip(jax.tree.leaves(nearest), jax.tree.leaves(second), strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)


def test_layers_are_solved_for_on_what_the_layers_before_them_leave():
    weights, x, step = {"up": draw(6, 5), "down": draw(5, 3, seed=7)}, mixed(60, 6), 0.5
    small = nnc.compress(
        weights, nnc.quantize(where="*", step=step, rounding="second_order"), apply=mlp, batches=[x[:30], x[30:]]
    )
    a = rounded_layer(weights["up"], x, x, step)
    now, before = np.maximum(x @ a, 0), np.maximum(x @ weights["up"], 0)
    b = rounded_layer(weights["down"], now, before, step)
    assert np.array_equal(small["up"].materialise(), a)
    assert np.array_equal(small["down"].materialise(), b)


@pytest.mark.parametrize("price", [0.02, 0.1])
def test_with_a_price_a_code_is_worth_its_bits(price):
    """Of all codes the cheapest, where inputs have nothing in common."""
    weights, step = {"kernel": draw(64, 48)}, 0.8
    options = {"apply": lambda w, x: x @ w["kernel"], "batches": [jnp.eye(64)]}
    one, other = (
        nnc.compress(weights, nnc.quantize(where="*", step=step, rounding="second_order", price=each), **options)
        for each in (0, price)
    )
    whole = weights["kernel"] / step
    codes = np.arange(-127, 128)
    counts = (np.rint(whole)[..., None] == codes).sum((0, 1)) + 1
    costs = np.square(whole[..., None] - codes) - price * np.log2(counts / counts.sum())
    assert np.array_equal(other["kernel"].codes, codes[costs.argmin(-1)])
    assert nnc.stored_size(other) < nnc.stored_size(one)


def test_a_price_needs_steps_and_the_second_order():
    for arguments in ({"price": -1, "step": 0.5}, {"price": 0.1, "step": 0.5}, {"price": 0.1}):
        with pytest.raises(nnc.InputError, match=r"price=.*: expected 0 or more, with step= or rate= and rounding="):
            nnc.quantize(**arguments)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_outputs_are_closer_than_those_of_the_nearest(bits):
    weights = {"up": draw(12, 16), "down": draw(16, 4, seed=7)}
    options = {"apply": mlp, "batches": [mixed(400, 12)]}
    found = {
        rounding: nnc.compress(weights, nnc.quantize(where="*", bits=bits, inputs=False, rounding=rounding), **options)
        for rounding in ("nearest", "second_order")
    }
    test = mixed(100, 12, seed=30)
    nearest, second = (error(mlp, small, weights, test) for small in found.values())
    assert second < 0.6 * nearest
    assert found["second_order"]["up"].codes.materialise().min() >= -(2 ** (bits - 1) - 1)


METHODS = {
    "clusters": (nnc.cluster, {"bits": 2}, 0.8),
    "clusters of channels": (nnc.cluster, {"bits": 2, "by_channel": True}, 0.8),
    "clusters with zeros": (nnc.cluster, {"bits": 2, "keeps_zero": True}, 0.8),
    "signs": (nnc.binarize, {}, 0.8),
    "signs alone": (nnc.binarize, {"scaled": False}, 0.8),
}


@pytest.mark.parametrize(("method", "arguments", "most"), METHODS.values(), ids=METHODS)
def test_other_methods_round_as_well(method, arguments, most):
    zeros = draw(12, 16, seed=5) < -0.5
    weights = {"up": jnp.where(zeros, 0, draw(12, 16)), "down": draw(16, 4, seed=7)}
    options = {"apply": mlp, "batches": [mixed(400, 12)]}
    nearest, second = (
        nnc.compress(weights, method(where="*", rounding=rounding, **arguments), **options)
        for rounding in ("nearest", "second_order")
    )
    assert jax.tree.structure(nearest) == jax.tree.structure(second)
    test = mixed(100, 12, seed=30)
    assert error(mlp, second, weights, test) < most * error(mlp, nearest, weights, test)
    if arguments.get("keeps_zero"):
        assert not np.asarray(second["up"].materialise())[zeros].any()


def test_a_cluster_is_chosen_as_obq_has_it():
    weights, x = {"kernel": draw(6, 5)}, mixed(60, 6)
    method = nnc.cluster(bits=2, rounding="second_order")
    small = nnc.compress(weights, method, apply=lambda w, x: x @ w["kernel"], batches=[x])["kernel"]
    values = np.asarray(small.codebook, np.float64)
    squares = damped(np.asarray(x, np.float64).T @ np.asarray(x, np.float64))
    order = np.argsort(-np.diag(squares), kind="stable")
    wanted = obq(weights["kernel"], squares, lambda row, _: values[abs(values - row[:, None]).argmin(-1)], order)
    np.testing.assert_allclose(small.materialise(), wanted, atol=1e-6)


def conv(weights, x):
    return lax.conv_general_dilated(
        x, weights["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
    )


def scanned(weights, x):
    return lax.scan(lambda x, kernel: (jax.nn.relu(x @ kernel), None), x, weights["kernel"])[0]


def loop(weights, x):
    return lax.fori_loop(0, 3, lambda _, x: jax.nn.relu(x @ weights["kernel"]) / 8, x)


def twice(weights, x):
    return jax.nn.relu(x @ weights["kernel"]) @ weights["kernel"]


def heads(weights, x):
    return jnp.einsum("bi,ihd->bhd", x, weights["kernel"])


def part(weights, x):
    return x @ weights["kernel"][:, :5]


NETWORKS = {
    "grouped convolution": (conv, draw(3, 3, 2, 6), mixed(200, 4).reshape(8, 5, 5, 4)),
    "layers stacked for a scan": (scanned, draw(3, 8, 8), mixed(300, 8)),
    "a loop": (loop, draw(8, 8), mixed(300, 8)),
    "a weight at two places": (twice, draw(8, 8), mixed(300, 8)),
    "heads": (heads, draw(8, 2, 3), mixed(300, 8)),
    "a part of a weight": (part, draw(8, 8), mixed(300, 8)),
}


@pytest.mark.parametrize(("apply", "kernel", "x"), NETWORKS.values(), ids=NETWORKS)
def test_any_network(apply, kernel, x):
    weights = {"kernel": kernel}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        errors = [
            error(
                apply,
                nnc.compress(
                    weights, nnc.quantize(where="*", bits=4, inputs=False, rounding=r), apply=apply, batches=[x]
                ),
                weights,
                x,
            )
            for r in ("nearest", "second_order")
        ]
    assert errors[1] < 0.85 * errors[0]


def test_what_multiplies_nothing_is_rounded_to_the_nearest():
    weights, x = {"kernel": draw(8, 8)}, mixed(300, 8)
    small = nnc.compress(weights, nnc.quantize(where="*", step=0.1, rounding="second_order"), apply=part, batches=[x])
    rest = np.asarray(weights["kernel"])[:, 5:]
    np.testing.assert_allclose(small["kernel"].materialise()[:, 5:], np.round(rest / 0.1) * 0.1, atol=1e-6)


def test_a_weight_that_no_batch_reached_is_named_and_rounded_to_the_nearest():
    weights = {"up": draw(6, 6), "down": draw(6, 6, seed=3)}
    apply = lambda weights, x: x @ weights["up"] + 0 * (weights["down"] ** 2).sum()  # noqa: E731
    with pytest.warns(LeftAlone, match="^down: no batch reached it"):
        small = nnc.compress(
            weights, nnc.quantize(where="*", rounding="second_order"), apply=apply, batches=[mixed(50, 6)]
        )
    nearest = nnc.compress({"down": weights["down"]}, nnc.quantize(where="*"))
    assert np.array_equal(small["down"].codes, nearest["down"].codes)


def test_sparse_weights_keep_their_zeros():
    weights, options = {"up": draw(12, 16), "down": draw(16, 4, seed=7)}, {"apply": mlp, "batches": [mixed(400, 12)]}
    method = nnc.chain(
        nnc.prune(where="*", sparsity=0.5, compensate=True), nnc.quantize(where="*", bits=4, rounding="second_order")
    )
    small = nnc.compress(weights, method, **options)
    plain = nnc.compress(
        weights, nnc.chain(nnc.prune(where="*", sparsity=0.5), nnc.quantize(where="*", bits=4)), **options
    )
    for path, leaf in weights.items():
        assert np.count_nonzero(small[path].materialise()) <= leaf.size // 2
    assert error(mlp, small, weights, options["batches"][0]) < 0.5 * error(mlp, plain, weights, options["batches"][0])


def test_without_a_network_or_with_another_word_it_is_refused():
    with pytest.raises(InputError, match="second order needs apply= and batches="):
        nnc.compress({"kernel": draw(4, 4)}, nnc.quantize(where="*", rounding="second_order"))
    with pytest.raises(InputError, match="rounding='best': expected 'nearest' or 'second_order'"):
        nnc.quantize(rounding="best")
    with pytest.raises(InputError, match="kernel: its outputs are sums over 64 inputs, and the batches have 2 rows"):
        nnc.compress(
            {"kernel": draw(64, 4)},
            nnc.quantize(where="*", rounding="second_order"),
            apply=lambda w, x: x @ w["kernel"],
            batches=[jnp.ones((2, 64))],
        )


@pytest.mark.filterwarnings("ignore:the variances of 1 of 1")
def test_what_one_context_has_compiled_serves_again():
    """And gives what another context gives, for other weights of the same shapes."""
    context, other = (
        Context(lambda v, x: (mlp(v, x) - v["mean"]) / jnp.sqrt(v["var"] + 1e-5), [mixed(60, 6)]) for _ in range(2)
    )
    first, second = (
        {"up": draw(6, 5, seed=seed), "down": draw(5, 3, seed=seed + 1), "mean": jnp.zeros(3), "var": jnp.ones(3)}
        for seed in (3, 5)
    )
    method = nnc.chain(nnc.quantize(where="[ud]*", step=0.5, rounding="second_order"), nnc.reestimate)
    lowered = []

    def listen(event, seconds, **_):
        lowered.append(event == "/jax/core/compile/jaxpr_to_mlir_module_duration")

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        method(first, context)
        anew = sum(lowered)
        lowered.clear()
        again = method(second, context)
        assert sum(lowered) < anew / 4
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    for one, same in zip(jax.tree.leaves(again), jax.tree.leaves(method(second, other)), strict=True):
        assert np.array_equal(one, same)
