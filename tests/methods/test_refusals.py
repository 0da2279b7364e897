"""What the methods refuse, in one line that names the leaf."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from tests.methods.drawn import compressed, draw

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
        "kernel: compressed already other than ChannelPruned, LowRank of floats",
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


@pytest.mark.parametrize(
    "method",
    [nnc.quantize(), nnc.quantize(bits=4, group=2), nnc.fake_quantize(learned_scales=True), nnc.binarize()],
    ids=["8 bits", "groups", "learned", "signs"],
)
def test_variables_of_several_networks_at_once(method):
    """Under vmap and jit each becomes what it becomes alone."""
    kernels = {"kernel": jnp.asarray(np.random.default_rng(0).standard_normal((2, 8, 4)), jnp.float32)}
    several = jax.jit(jax.vmap(lambda kernel: nnc.compress(kernel, method)))(kernels)
    for number in range(2):
        alone = nnc.compress(jax.tree.map(lambda x, n=number: x[n], kernels), method)
        jax.tree.map(lambda x, y, n=number: np.testing.assert_allclose(x[n], y, rtol=1e-6), several, alone)


@pytest.mark.parametrize("transformation", [jax.jit, jax.vmap, lambda f: lambda w: jax.eval_shape(f, w)])
@pytest.mark.parametrize(
    "method",
    [
        nnc.prune(sparsity=0.5),
        nnc.prune(sparsity=0.5, scope="global"),
        nnc.prune(pattern=(2, 4)),
        nnc.cluster(bits=2),
        nnc.factorize(rank=2),
    ],
    ids=["sparsity", "global", "pattern", "cluster", "rank"],
)
def test_what_depends_on_values_is_refused_of_traced_ones(method, transformation):
    with pytest.raises(nnc.InputError, match="compress outside of jax.jit, vmap and eval_shape"):
        transformation(lambda kernel: nnc.compress({"kernel": kernel}, method))(jnp.ones((2, 8, 4)))
