"""Networks for sequences: states that a loop carries, shared heads, rotations, stacked layers, chunks."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from tests.coupling.programs import draw

BATCH, LENGTH, WIDTH = 2, 6, 12


def normalized(x, scale):
    return x * lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6) * scale


def convolved(x, kernel, bias):
    """Each channel on its own, over what came before."""
    numbers, front = ("NWC", "WIO", "NWC"), [(len(kernel) - 1, 0)]
    return bias + lax.conv_general_dilated(
        x, kernel, (1,), front, dimension_numbers=numbers, feature_group_count=x.shape[-1]
    )


def stacked(layer, count):
    return jax.tree.map(lambda *each: jnp.stack([(n + 1) * x for n, x in enumerate(each)]), *[layer] * count)


class Recurrent(nn.Module):
    """States of one cell meet themselves, those of others are handed on."""

    @nn.compact
    def __call__(self, x):
        states = nn.RNN(nn.LSTMCell(8))(nn.Dense(10)(x))
        states = jnp.einsum("btd,bsd->bts", states, states) @ states
        states = nn.RNN(nn.GRUCell(8))(nn.RNN(nn.OptimizedLSTMCell(6))(states))
        return nn.Dense(3)(states[:, -1])


def recurrent():
    x = draw(BATCH, LENGTH, 5)
    shapes = jax.eval_shape(Recurrent().init, jax.random.key(0), x)
    return Recurrent().apply, jax.tree.map(lambda leaf: draw(*leaf.shape) / 2, shapes), x


INNER, STATE = 16, 4


def mamba(weights, x):
    """Two layers, whose states [batch, INNER, STATE] a loop carries."""

    def layer(h, w):
        inner, gate = jnp.split(normalized(h, w["norm"]) @ w["in"], 2, -1)
        inner = jax.nn.silu(convolved(inner, w["kernel"], w["bias"]))
        step, write, read = jnp.split(inner @ w["x"], [3, 3 + STATE], -1)
        step, decay = jax.nn.softplus(step @ w["step"]), -jnp.exp(w["decay"])

        def turn(state, now):
            inner, step, write, read = now
            state = jnp.exp(step[..., None] * decay) * state + (step * inner)[..., None] * write[:, None]
            return state, jnp.einsum("bdn,bn->bd", state, read)

        first = jnp.zeros((BATCH, INNER, STATE))
        shown = lax.scan(turn, first, jax.tree.map(lambda x: x.swapaxes(0, 1), (inner, step, write, read)))[1]
        return h + (shown.swapaxes(0, 1) * jax.nn.silu(gate)) @ w["out"], None

    return lax.scan(layer, x @ weights["embedding"], weights["layers"])[0][:, -1] @ weights["head"]


def of_mamba():
    layer = {
        **{"norm": draw(WIDTH), "in": draw(WIDTH, 2 * INNER), "kernel": draw(3, 1, INNER), "bias": draw(INNER)},
        **{"x": draw(INNER, 3 + 2 * STATE) / 4, "step": draw(3, INNER), "decay": draw(INNER, STATE) / 4},
        "out": draw(INNER, WIDTH),
    }
    weights = {"embedding": draw(5, WIDTH), "layers": stacked(layer, 2), "head": draw(WIDTH, 7)}
    return mamba, weights, draw(BATCH, LENGTH, 5)


HEADS, SHARED, EACH = 4, 2, 6


def turned(x):
    angles = jnp.outer(jnp.arange(LENGTH), 0.1 ** jnp.arange(EACH // 2))[:, None]
    one, other = jnp.split(x, 2, -1)
    rotated = one * jnp.cos(angles) - other * jnp.sin(angles), other * jnp.cos(angles) + one * jnp.sin(angles)
    return jnp.concatenate(rotated, -1)


def qwen(weights, ids):
    """Heads that share keys and values, norms of queries and keys, rotations, a gated layer, a tied table."""

    def layer(h, w):
        x = normalized(h, w["norm"])
        queries, keys, values = ((x @ w[name]).reshape(BATCH, LENGTH, -1, EACH) for name in ("q", "k", "v"))
        queries, keys = turned(normalized(queries, w["q norm"])), turned(normalized(keys, w["k norm"]))
        queries = queries.reshape(BATCH, LENGTH, SHARED, -1, EACH)
        scores = jnp.einsum("btkgd,bskd->bkgts", queries, keys)
        shares = jax.nn.softmax(jnp.where(jnp.tril(jnp.ones((LENGTH, LENGTH), bool)), scores, -1e9), -1)
        h += jnp.einsum("bkgts,bskd->btkgd", shares, values).reshape(BATCH, LENGTH, -1) @ w["o"]
        x = normalized(h, w["second norm"])
        return h + (jax.nn.silu(x @ w["gate"]) * (x @ w["up"])) @ w["down"], None

    h = lax.scan(layer, weights["table"][ids], weights["layers"])[0]
    return normalized(h, weights["norm"]) @ weights["table"].T


def of_qwen():
    layer = {
        **{"norm": draw(WIDTH), "second norm": draw(WIDTH), "q norm": draw(EACH), "k norm": draw(EACH)},
        **{"q": draw(WIDTH, HEADS * EACH), "k": draw(WIDTH, SHARED * EACH), "v": draw(WIDTH, SHARED * EACH)},
        **{"o": draw(HEADS * EACH, WIDTH), "gate": draw(WIDTH, 20), "up": draw(WIDTH, 20), "down": draw(20, WIDTH)},
    }
    weights = {"table": draw(9, WIDTH), "norm": draw(WIDTH), "layers": stacked(layer, 3)}
    return qwen, weights, jnp.arange(BATCH * LENGTH).reshape(BATCH, LENGTH) % 9


GROUPS, CHUNK = 2, 3


def segment_sums(x):
    below = jnp.tril(jnp.ones((x.shape[-1],) * 2, bool), -1)
    sums = jnp.cumsum(jnp.where(below, x[..., None], 0), -2)
    return jnp.where(jnp.tril(jnp.ones_like(below)), sums, -jnp.inf)


def chunked(x, decay, write, read):
    """The recurrence, chunk by chunk: products within each, and states between them."""
    parts = (BATCH, LENGTH // CHUNK, CHUNK)
    x, write, read = (each.reshape(*parts, *each.shape[2:]) for each in (x, write, read))
    decay = decay.reshape(*parts, HEADS).transpose(0, 3, 1, 2)
    total = jnp.cumsum(decay, -1)
    within = jnp.einsum("bclhn,bcshn,bhcls,bcshp->bclhp", read, write, jnp.exp(segment_sums(decay)), x)
    states = jnp.einsum("bclhn,bhcl,bclhp->bchpn", write, jnp.exp(total[..., -1:] - total), x)
    states = jnp.concatenate([jnp.zeros_like(states[:, :1]), states], 1)
    between = jnp.exp(segment_sums(jnp.pad(total[..., -1], ((0, 0), (0, 0), (1, 0)))))
    states = jnp.einsum("bhzc,bchpn->bzhpn", between, states)[:, :-1]
    return (within + jnp.einsum("bclhn,bchpn,bhcl->bclhp", read, states, jnp.exp(total))).reshape(
        BATCH, LENGTH, HEADS, -1
    )


def mamba2(norm):
    """One product computes gates, inputs, what is written and read by groups of heads, and steps."""

    def apply(w, x):
        h = x @ w["embedding"]
        sizes = [INNER, INNER, GROUPS * STATE, GROUPS * STATE]
        gate, inner, step = jnp.split(h @ w["in"], [INNER, sum(sizes)], -1)
        inner = jax.nn.silu(convolved(inner, w["kernel"], w["bias"]))
        inner, write, read = jnp.split(inner, [INNER, INNER + GROUPS * STATE], -1)
        inner = inner.reshape(BATCH, LENGTH, HEADS, -1)
        write, read = (
            jnp.repeat(each.reshape(BATCH, LENGTH, GROUPS, STATE), HEADS // GROUPS, 2) for each in (write, read)
        )
        step = jax.nn.softplus(step + w["shift"])
        shown = chunked(inner * step[..., None], -jnp.exp(w["decay"]) * step, write, read)
        shown = (shown + w["skip"][:, None] * inner).reshape(BATCH, LENGTH, INNER) * jax.nn.silu(gate)
        return (h + (normalized(shown, w["norm"]) if norm else shown) @ w["out"])[:, -1] @ w["head"]

    inputs = INNER + 2 * GROUPS * STATE
    weights = {
        **{"embedding": draw(5, WIDTH), "in": draw(WIDTH, INNER + inputs + HEADS) / 4, "out": draw(INNER, WIDTH)},
        **{"kernel": draw(3, 1, inputs), "bias": draw(inputs), "head": draw(WIDTH, 7), "norm": draw(INNER)},
        **{"shift": draw(HEADS), "decay": draw(HEADS), "skip": draw(HEADS) + 1},
    }
    return apply, weights, draw(BATCH, LENGTH, 5)


# (what makes (apply, weights, inputs); channels of each group that can be cut, largest first)
SEQUENCES = {
    "recurrent cells": (recurrent, [10, 8, 8, 6]),
    "Mamba": (of_mamba, [INNER, STATE, 3]),
    "Qwen3": (of_qwen, [20, SHARED]),
    "Mamba-2": (lambda: mamba2(norm=False), [WIDTH, GROUPS]),
    "Mamba-2 with a norm over all heads": (lambda: mamba2(norm=True), [WIDTH, STATE]),
}
