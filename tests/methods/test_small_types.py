"""Clustering, pruning, factorizing, signs, and training through them: against the definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.methods.cluster import k_means
from nncompress_jax.methods.prune import random
from nncompress_jax.methods.selection import LeftAlone
from nncompress_jax.weights import parts
from nncompress_jax.weights.base import dense


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def compressed(kernel, *methods):
    return nnc.compress({"kernel": kernel}, nnc.chain(*methods))["kernel"]


@pytest.mark.parametrize("start", ["linear", "density", "k-means++"])
def test_k_means_finds_what_is_there_and_rests(start):
    random = np.random.default_rng(0)
    truth = np.array([-3.0, -1.0, 0.5, 4.0])
    values = (random.choice(truth, 5000) + 0.05 * random.standard_normal(5000)).astype(np.float32)
    centers, codes = k_means(values, 4, start)
    np.testing.assert_allclose(centers, truth, atol=0.02)
    nearest = np.abs(values[:, None] - centers).argmin(1)
    np.testing.assert_array_equal(codes, nearest)
    means = [values[codes == k].mean() for k in range(4)]
    np.testing.assert_allclose(centers, means, rtol=1e-5)


def test_zeros_stay_zero():
    kernel = draw(32, 16) * (draw(32, 16, seed=1) > 0)
    weight = compressed(kernel, nnc.cluster(bits=3, keeps_zero=True))
    np.testing.assert_array_equal(weight.materialise() == 0, kernel == 0)
    assert weight.codebook.shape == (8,)


def test_a_codebook_by_channel_is_nearer():
    kernel = draw(64, 8) * jnp.arange(1.0, 9.0)
    errors = [
        float(jnp.square(compressed(kernel, nnc.cluster(bits=2, by_channel=by)).materialise() - kernel).mean())
        for by in (False, True)
    ]
    assert errors[1] < 0.7 * errors[0]


def test_a_value_trains_like_its_entries_on_average():
    weights = nnc.compress({"kernel": draw(64, 8)}, nnc.recipe("prune:0.5+cluster:2"))
    target = draw(64, 8, seed=1)
    _, gradients = nnc.value_and_grad(lambda w: (nnc.inject(lambda w: w["kernel"] * target)(w)).sum())(weights)
    mean = parts.preconditioned(weights, gradients)["kernel"].values.codebook
    codes = np.asarray(dense(weights["kernel"].values.codes))
    entries = np.asarray(target).ravel()[weights["kernel"].positions]
    np.testing.assert_allclose(mean, [entries[codes == k].mean() for k in range(4)], rtol=1e-5)
    assert gradients["kernel"].positions is None


def test_few_values_and_one():
    assert compressed(jnp.ones((4, 4)), nnc.cluster(bits=4)).materialise().tolist() == [[1.0] * 4] * 4
    assert compressed(jnp.zeros((4, 4)), nnc.cluster(bits=2, keeps_zero=True)).materialise().tolist() == [[0.0] * 4] * 4


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_magnitude_pruning_keeps_the_largest(sparsity):
    kernel = draw(3, 3, 16, 16)
    weight = compressed(kernel, nnc.prune(sparsity=sparsity))
    kept = np.asarray(weight.materialise()) != 0
    assert kept.sum() == weight.values.size == kernel.size - round(sparsity * kernel.size)
    np.testing.assert_array_equal(weight.materialise()[kept], kernel[kept])
    if sparsity:
        assert np.abs(kernel[kept]).min() >= np.abs(kernel[~kept]).max()


def test_global_pruning_takes_from_the_weakest_layer():
    tree = {"strong": {"kernel": 10 * draw(32, 32)}, "weak": {"kernel": draw(32, 32, seed=1)}}
    small = nnc.compress(tree, nnc.prune(sparsity=0.4, scope="global"))
    sizes = {name: small[name]["kernel"].values.size for name in tree}
    assert sum(sizes.values()) == 2048 - round(0.4 * 2048)
    assert sizes["strong"] > 2 * sizes["weak"]


def test_a_pattern_keeps_so_many_of_each_group():
    kernel = draw(3, 3, 16, 8)
    weight = compressed(kernel, nnc.prune(pattern=(2, 4)))
    groups = np.asarray(weight.materialise()).reshape(3, 3, 4, 4, 8)
    assert ((groups != 0).sum(3) == 2).all()
    largest = np.sort(np.abs(np.asarray(kernel)).reshape(3, 3, 4, 4, 8), axis=3)[:, :, :, 2:]
    np.testing.assert_array_equal(np.sort(np.abs(groups), axis=3)[:, :, :, 2:], largest)
    assert weight.nbytes == kernel.nbytes // 2 + kernel.size // 2 // 4
    with pytest.warns(LeftAlone, match="kernel: left as it is: 3 input channels, expected a multiple of 4"):
        assert compressed(draw(3, 3, 3, 8), nnc.prune(pattern=(2, 4))).shape == (3, 3, 3, 8)


def test_random_pruning_is_the_seeds():
    first, again, other = (
        compressed(draw(16, 16), nnc.prune(sparsity=0.5, criterion=random(jax.random.key(k)))) for k in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.positions, again.positions)
    assert (first.positions != other.positions).any()


@pytest.mark.parametrize("kind", ["spatial", "tucker", "cp"])
def test_factors_of_full_rank_are_the_kernel(kind):
    """What has low rank is found; the chain is as cheap as was asked for."""
    exact = {"spatial": 2, "tucker": 2, "cp": 2}[kind]
    parts = [draw(3, exact), draw(3, exact, seed=1), draw(16, exact, seed=2), draw(24, exact, seed=3)]
    kernel = jnp.einsum("hr,wr,ir,or->hwio", *parts)
    weight = compressed(kernel, nnc.factorize(rank=exact, kind=kind))
    assert jnp.linalg.norm(weight.materialise() - kernel) < (0.02 if kind == "cp" else 1e-4) * jnp.linalg.norm(kernel)


@pytest.mark.parametrize("kind", ["spatial", "tucker", "cp"])
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_budget_of_operations(kind, share):
    def apply(weights, x):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, weights["kernel"], (1, 1), "SAME", dimension_numbers=dimensions)

    weights, images = {"kernel": draw(3, 3, 32, 48)}, jnp.ones((1, 8, 8, 32))
    small = nnc.compress(weights, nnc.factorize(macs=share, kind=kind))
    whole, chain = (nnc.cost(nnc.inject(apply), tree, images).macs for tree in (weights, small))
    assert 0.85 * share * whole < chain <= share * whole
    np.testing.assert_allclose(
        nnc.inject(apply)(small, draw(1, 8, 8, 32)),
        apply(nnc.decompress(small), draw(1, 8, 8, 32)),
        atol=1e-3,
    )


def test_the_pair_is_the_best_of_its_rank():
    kernel = draw(3, 3, 8, 8)
    values = np.linalg.svd(np.asarray(kernel).transpose(0, 2, 1, 3).reshape(24, 24), compute_uv=False)
    weight = compressed(kernel, nnc.factorize(rank=6))
    np.testing.assert_allclose(
        jnp.linalg.norm(weight.materialise() - kernel), np.sqrt((values[6:] ** 2).sum()), rtol=1e-4
    )
    energy = 1 - (values[6:] ** 2).sum() / (values**2).sum()
    assert compressed(kernel, nnc.factorize(energy=energy - 1e-4)).factors[0].shape[-1] == 6


def test_what_would_not_be_cheaper_is_left_alone():
    with pytest.warns(LeftAlone, match=r"kernel: left as it is: its chain would take 1\.\d+ times"):
        assert compressed(draw(8, 8), nnc.factorize(rank=6)).shape == (8, 8)
    with pytest.warns(LeftAlone, match="depthwise"):
        compressed(draw(3, 3, 1, 8), nnc.factorize(rank=1))
    with pytest.warns(LeftAlone, match="relative error of 0"):
        compressed(draw(64, 64), nnc.factorize(rank=2, most_error=0.1))


def test_signs_and_their_scale():
    kernel = draw(16, 24)
    weight = compressed(kernel, nnc.binarize())
    np.testing.assert_allclose(weight.materialise(), np.sign(kernel) * np.abs(kernel).mean(0), rtol=1e-6)
    assert weight.nbytes == 16 * 3 + 4 * 24
    unscaled = compressed(kernel, nnc.binarize(scaled=False))
    np.testing.assert_array_equal(unscaled.materialise(), np.sign(kernel))


def test_signs_of_inputs_are_weighed_by_their_magnitude():
    """XNOR-Net: sign(x) * sign(w), times the mean |x| under the kernel and the mean |w|; on integers."""
    kernel, x = draw(3, 3, 8, 16), draw(2, 6, 6, 8, seed=1)

    def apply(weights, x):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, weights["kernel"], (1, 1), "VALID", dimension_numbers=dimensions)

    small = nnc.compress({"kernel": kernel}, nnc.binarize(inputs="sign"))
    signs = apply({"kernel": jnp.sign(kernel)}, jnp.sign(x)) * jnp.abs(kernel).mean((0, 1, 2))
    expected = signs * apply({"kernel": jnp.full((3, 3, 8, 1), 1 / 72)}, jnp.abs(x))
    np.testing.assert_allclose(nnc.inject(apply)(small, x), expected, atol=1e-4)
    types = [row.types for row in nnc.int8_report(apply, small, x).rows]
    assert "int8 x int8 -> int32" in types
    dense_form = nnc.inject(lambda w, x: x @ w["kernel"])
    small = nnc.compress({"kernel": draw(8, 4)}, nnc.binarize(inputs="sign"))
    rows = draw(3, 8, seed=2)
    expected = (jnp.sign(rows) @ dense(small["kernel"])) * jnp.abs(rows).mean(1, keepdims=True)
    np.testing.assert_allclose(dense_form(small, rows), expected, atol=1e-5)


TRAINING = {
    "8 bits": nnc.fake_quantize(),
    "4 bits": nnc.fake_quantize(bits=4),
    "2 bits, learned steps": nnc.fake_quantize(bits=2, learned_steps=True),
    "signs": nnc.binarize(train=True),
    "signs, 8-bit inputs": nnc.binarize(train=True, scaled=False, inputs="int8"),
    "factors of 4 bits": nnc.chain(nnc.factorize(rank=4), nnc.fake_quantize(bits=4)),
}


@pytest.mark.parametrize("name", TRAINING)
def test_settled_weights_have_the_same_outputs(name):
    weights = nnc.compress({"kernel": draw(16, 24)}, TRAINING[name])
    apply, x = nnc.inject(lambda w, x: x @ w["kernel"]), draw(4, 16, seed=1)
    settled = nnc.settle(weights)
    assert settled["kernel"].nbytes < weights["kernel"].nbytes / 2
    np.testing.assert_array_equal(apply(settled, x), apply(weights, x))


@pytest.mark.parametrize("name", TRAINING)
def test_training_through_compression_learns(name):
    """A few steps of gradient descent on a regression bring the loss down, in the compressed form."""
    weights = nnc.compress({"kernel": 0.1 * draw(16, 24)}, TRAINING[name])
    x = draw(64, 16, seed=1)
    target = x @ draw(16, 24, seed=2)

    def loss(weights, x):
        return jnp.square(nnc.inject(lambda w, x: x @ w["kernel"])(weights, x) - target).mean()

    @jax.jit
    def step(weights):
        value, gradients = nnc.value_and_grad(loss)(weights, x)
        moved = jax.tree.map(
            lambda leaf, gradient: leaf if gradient is None else leaf - 0.5 * gradient,
            weights,
            gradients,
            is_leaf=lambda leaf: leaf is None,
        )
        return moved, value

    losses = []
    for _ in range(30):
        weights, value = step(weights)
        losses.append(float(value))
    assert losses[-1] < 0.8 * losses[0]


def test_learned_steps_have_the_papers_gradient():
    """Esser et al. 2020, equation 3, times 1 / sqrt(N Q), by hand for one step."""
    weight = jnp.array([[0.1], [0.4], [-1.4], [9.0]])
    fake = nnc.compress({"kernel": weight}, nnc.fake_quantize(bits=4, learned_steps=True))["kernel"]
    fake = type(fake)(weight, jnp.full((1, 1), 0.5), bits=4)
    gradients = jax.grad(lambda fake: fake.materialise().sum())(fake)
    ratio = np.array([0.2, 0.8, -2.8, 18.0])
    by_weight = np.where(np.abs(ratio) <= 7.5, np.round(ratio) - ratio, 7 * np.sign(ratio))
    np.testing.assert_allclose(gradients.step.item(), by_weight.sum() / np.sqrt(4 * 7), rtol=1e-5)
    np.testing.assert_array_equal(gradients.weight.ravel(), [1, 1, 1, 0])


REFUSED = {
    "a sparsity of one": (lambda: nnc.prune(sparsity=1.0), "sparsity=1.0: expected from 0 to less than 1"),
    "nothing left": (lambda: compressed(draw(4, 4), nnc.prune(sparsity=0.99)), "kernel: none of its 16 weights"),
    "a rank above full": (
        lambda: compressed(draw(4, 8), nnc.factorize(rank=5)),
        "rank=5 is above the full rank, 4",
    ),
    "no rank": (lambda: nnc.factorize(), "one of rank=, energy= and macs="),
    "two": (lambda: nnc.prune(sparsity=0.5, pattern=(2, 4)), "one of sparsity= and pattern="),
    "bits of a codebook": (lambda: nnc.cluster(bits=9), "bits=9: expected from 1 to 8"),
    "cluster quantized": (lambda: compressed(draw(4, 4), nnc.quantize(), nnc.cluster()), "kernel: compressed already"),
    "prune clustered": (lambda: compressed(draw(4, 4), nnc.cluster(), nnc.prune(sparsity=0.5)), "compressed already"),
    "factorize sparse": (
        lambda: compressed(draw(4, 4), nnc.prune(sparsity=0.5), nnc.factorize(rank=1)),
        "kernel: compressed already",
    ),
    "train sparse values through 4 bits": (
        lambda: compressed(draw(4, 4), nnc.prune(sparsity=0.5), nnc.fake_quantize(bits=4)),
        "kernel: compressed already other than LowRank of floats",
    ),
    "gradients of integers": (
        lambda: nnc.value_and_grad(lambda w: 0.0)({"kernel": compressed(draw(4, 4), nnc.quantize())}),
        "nothing here trains",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    run, words = REFUSED[case]
    with pytest.raises(nnc.InputError) as error:
        run()
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("recipe", ["quantize:4", "cluster:4", "prune:0.5", "prune:0.5+cluster:2"])
def test_one_layer_at_a_time_is_dense(recipe, monkeypatch):
    """A program that holds its layers compressed does not hold them all dense at once."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    layers, size = 6, 256
    kernels = {f"layer_{i}": {"kernel": draw(size, size, seed=i)} for i in range(layers)}
    small, x = nnc.compress(kernels, nnc.recipe(recipe)), jnp.ones((1, size))

    def apply(weights, x):
        for i in range(layers):
            x = jax.nn.relu(x @ weights[f"layer_{i}"]["kernel"])
        return x

    compiled = jax.jit(nnc.inject(apply)).lower(small, x).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 3 * 4 * size**2
    expected = apply(nnc.decompress(small), x)
    np.testing.assert_allclose(compiled(small, x), expected, atol=0.05 * jnp.abs(expected).max())
