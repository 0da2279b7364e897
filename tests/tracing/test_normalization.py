"""Which batch normalizations a program holds."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from nncompress_jax.tracing.normalization import normalizations
from tests.normalized import NETWORKS, draw

PATHS = {
    "convolutional": [
        *(
            (f"batch_stats/BatchNorm_{n}/mean", scale, bias, axes, f"params/{layer}/kernel", layer_bias)
            for n, scale, bias, axes, layer, layer_bias in (
                (0, "params/BatchNorm_0/scale", "params/BatchNorm_0/bias", (3,), "Conv_0", "params/Conv_0/bias"),
                (1, "params/BatchNorm_1/scale", None, (3,), "Conv_1", None),
                (2, None, "params/BatchNorm_2/bias", (3,), "Conv_2", "params/Conv_2/bias"),
                (3, None, None, (1,), "Dense_0", "params/Dense_0/bias"),
            )
        )
    ],
    "NNX": [("norm/mean", "norm/scale", "norm/bias", (3,), "conv/kernel", "conv/bias")],
    "Haiku": [
        (
            "1/net/~/batch_norm/~/mean_ema/average",
            "0/net/~/batch_norm/scale",
            "0/net/~/batch_norm/offset",
            (3,),
            "0/net/~/conv/w",
            "0/net/~/conv/b",
        )
    ],
    "torch's order": [("bn.running_mean", "bn.weight", "bn.bias", (1,), "conv.weight", None)],
}


@pytest.mark.parametrize("name", PATHS)
def test_paths(name):
    apply, variables, x = NETWORKS[name]()
    found = normalizations(apply, variables, x).found
    assert [(n.mean, n.scale, n.bias, n.axes, n.weight, n.weight_bias) for n in found] == PATHS[name]
    assert all(not each.obstacle for each in found)


def test_epsilon_and_the_normalized_value():
    apply, variables, x = NETWORKS["convolutional"]()
    found = normalizations(apply, variables, x).found
    assert [each.epsilon for each in found] == pytest.approx([1e-5, 1e-5, 1e-2, 1e-5], rel=1e-6)
    assert [each.value.aval.shape for each in found] == [(2, 8, 8, 8), (2, 8, 8, 16), (2, 8, 8, 6), (2, 5)]


def test_equinox_under_vmap():
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(4, axis_name="batch", mode="ema", inference=True)
    layers = (eqx.nn.Conv2d(3, 4, 3, key=jax.random.key(0)), norm, state)
    arrays, rest = eqx.partition(layers, eqx.is_array)

    def apply(arrays, x):
        conv, norm, state = eqx.combine(arrays, rest)
        return jax.vmap(lambda x: norm(conv(x), state)[0], axis_name="batch")(x)

    (each,) = normalizations(apply, arrays, draw(2, 3, 8, 8)).found
    assert (each.scale, each.bias, each.weight, each.weight_bias) == ("1/weight", "1/bias", "0/weight", "0/bias")
    assert (each.axes, each.obstacle) == ((1,), "")


def test_shapes_are_enough():
    apply, variables, x = NETWORKS["Haiku"]()
    shapes = jax.eval_shape(lambda: variables)
    (each,) = normalizations(apply, shapes, jax.eval_shape(lambda: x)).found
    assert each.epsilon == pytest.approx(1e-4)


def test_epsilon_among_the_leaves():
    leaves = {"w": draw(3, 4), "mean": draw(4), "var": draw(4) ** 2, "eps": jnp.float32(0.25)}
    apply = lambda t, x: (x @ t["w"] - t["mean"]) * jax.lax.rsqrt(t["var"] + t["eps"])  # noqa: E731
    assert [each.epsilon for each in normalizations(apply, leaves, draw(2, 3)).found] == [0.25]


def test_one_after_the_other():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            first = nn.BatchNorm(use_running_average=True)(nn.Dense(4)(x))
            return nn.BatchNorm(use_running_average=True)(first)

    x = draw(2, 3)
    first, second = normalizations(Twice().apply, Twice().init(jax.random.key(0), x), x).found
    assert (first.bias, first.weight) == ("params/BatchNorm_0/bias", "params/Dense_0/kernel")
    assert (second.mean, second.weight) == ("batch_stats/BatchNorm_1/mean", None)
    assert second.obstacle == "what it normalizes is not the result of a product with one weight"


def test_other_normalizations_are_none():
    class Others(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.GroupNorm(2)(nn.LayerNorm()(nn.Dense(4)(x))) + nn.BatchNorm(use_running_average=False)(x)

    x = draw(2, 4)
    variables = Others().init(jax.random.key(0), x)
    assert normalizations(lambda v, x: Others().apply(v, x, mutable="batch_stats")[0], variables, x).found == ()


def test_a_sum_whose_weights_stand_in_another_order_is_none():
    leaves = {"w": draw(3, 4), "mean": draw(4), "var": draw(4) ** 2}
    apply = lambda t, x: (x @ t["w"] - t["mean"][::-1]) / jnp.sqrt(t["var"] + 1e-5)  # noqa: E731
    assert normalizations(apply, leaves, draw(2, 3)).found == ()


def norm(leaves, x):
    return (x - leaves["mean"]) / jnp.sqrt(leaves["var"] + 1e-5)


OBSTACLES = {
    "w is used at several places": lambda t, x: norm(t, x @ t["w"]) + jax.nn.relu(x) @ t["w"],
    "the result of w is used before its normalization": lambda t, x: norm(t, y := x @ t["w"]) + y,
    "mean, var: used elsewhere, too": lambda t, x: norm(t, x @ t["w"]) + norm(t, x @ t["v"]),
    "what it normalizes is not the result of a product with one weight": lambda t, x: norm(t, jnp.abs(x @ t["w"])),
}


@pytest.mark.parametrize("words", OBSTACLES)
def test_obstacles(words):
    leaves = {"w": draw(4, 4), "v": draw(4, 4), "mean": draw(4), "var": draw(4) ** 2}
    found = normalizations(OBSTACLES[words], leaves, draw(2, 4)).found
    assert {each.obstacle for each in found} == {words}
