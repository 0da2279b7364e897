"""Networks with batch normalization, as people write them, with statistics and weights at random."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax


def drawn(tree: Any, seed: int = 0) -> Any:
    """The tree with other numbers; all positive where variances may be, of one axis."""
    random = np.random.default_rng(seed)

    def new(leaf: Any) -> Any:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        numbers = random.uniform(0.5, 2, leaf.shape) if leaf.ndim < 2 else random.standard_normal(leaf.shape) / 2
        return jnp.asarray(numbers, leaf.dtype)

    return jax.tree.map(new, tree)


def draw(*shape: int, seed: int = 1) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


class Convolutional(nn.Module):
    """Whole, depthwise and grouped kernels, and dense layers."""

    @nn.compact
    def __call__(self, x):
        norm = functools.partial(nn.BatchNorm, use_running_average=True)
        x = nn.relu(norm()(nn.Conv(8, (3, 3))(x)))
        x = nn.relu(norm(use_bias=False)(nn.Conv(16, (3, 3), feature_group_count=8, use_bias=False)(x)))
        x = nn.relu(norm(use_scale=False, epsilon=1e-2)(nn.Conv(6, (1, 1), feature_group_count=2)(x)))
        x = nn.max_pool(x, (2, 2), (2, 2)).mean((1, 2))
        return norm(use_bias=False, use_scale=False)(nn.Dense(5)(x))


class Heads(nn.Module):
    """Kernels of several output axes, normalized along all of them together, and along the last alone."""

    @nn.compact
    def __call__(self, x):
        norm = functools.partial(nn.BatchNorm, use_running_average=True)
        y = nn.DenseGeneral((2, 3))(x)
        z = norm()(y.reshape(*x.shape[:-1], 6))
        return z + norm()(nn.DenseGeneral((2, 3), use_bias=False)(x)).reshape(z.shape)


class InNNX(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.leaky_relu(self.norm(self.conv(x))).mean((1, 2)))


def linen(module: nn.Module, x: Any) -> tuple[Any, Any, Any]:
    return module.apply, drawn(jax.eval_shape(module.init, jax.random.key(0), x)), x


def nnx_network() -> tuple[Any, Any, Any]:
    graph, state = nnx.split(InNNX(nnx.Rngs(0)))
    return lambda state, x: nnx.merge(graph, state)(x), drawn(state), draw(2, 6, 6, 3)


def haiku() -> tuple[Any, Any, Any]:
    """Parameters and statistics as Haiku's `transform_with_state` has them, with its names and its formula."""
    shape = (1, 1, 1, 4)
    params = {
        "net/~/conv": {"w": draw(3, 3, 2, 4), "b": draw(4)},
        "net/~/batch_norm": {"scale": draw(*shape), "offset": draw(*shape)},
    }
    state = {
        "net/~/batch_norm/~/mean_ema": {"average": draw(*shape)},
        "net/~/batch_norm/~/var_ema": {"average": draw(*shape) ** 2, "counter": jnp.int32(7)},
    }

    @jax.jit
    def apply(variables, x):
        params, state = variables
        conv, norm = params["net/~/conv"], params["net/~/batch_norm"]
        x = lax.conv_general_dilated(x, conv["w"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = x + jnp.broadcast_to(conv["b"], x.shape)
        mean, variance = (state[f"net/~/batch_norm/~/{name}_ema"]["average"] for name in ("mean", "var"))
        inverse = norm["scale"] * lax.rsqrt(variance + lax.convert_element_type(1e-4, variance.dtype))
        return jax.nn.relu((x - mean) * inverse + norm["offset"])

    return apply, (params, state), draw(2, 5, 5, 2)


def torch_like() -> tuple[Any, Any, Any]:
    """Kernels in torch's order, scale and shift computed from weights alone, a cast, and a checkpoint."""
    leaves = {"conv.weight": draw(4, 2, 3, 3), "bn.weight": draw(4), "bn.bias": draw(4, seed=2)}
    leaves |= {"bn.running_mean": draw(4, seed=3), "bn.running_var": draw(4, seed=4) ** 2}

    @jax.checkpoint
    def norm(leaves, x):
        gain = leaves["bn.weight"] / jnp.sqrt(leaves["bn.running_var"] + 1e-3)
        shift = leaves["bn.bias"] - leaves["bn.running_mean"] * gain
        return x * gain[:, None, None] + shift[:, None, None]

    def apply(leaves, x):
        kernel = jnp.transpose(leaves["conv.weight"], (2, 3, 1, 0)).astype(jnp.float32)
        x = lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NCHW", "HWIO", "NCHW"))
        return jax.nn.relu(norm(leaves, x))

    return apply, leaves, draw(2, 2, 5, 5)


NETWORKS = {
    "convolutional": lambda: linen(Convolutional(), draw(2, 8, 8, 3)),
    "heads": lambda: linen(Heads(), draw(2, 5, 4)),
    "NNX": nnx_network,
    "Haiku": haiku,
    "torch's order": torch_like,
}
"""Each gives (apply, variables, inputs)."""
