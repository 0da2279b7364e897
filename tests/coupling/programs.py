"""Functions between two layers of 8 channels, and what becomes of these channels."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name


def draw(*shape):
    return jnp.asarray(np.random.default_rng(sum(shape)).standard_normal(shape), jnp.float32)


def padded_and_joined(y, weights):
    y = jnp.concatenate([y[..., :4], jnp.pad(y[..., 4:], ((0, 0), (0, 4)))[..., :4]], -1)
    return jnp.split(y, [3], -1)[0] @ weights["c"][:3] + jnp.flip(y, 0) @ weights["d"]


def attention(y, weights, turn=lambda x: x, weigh=lambda shares: shares):
    """Two heads of four channels, whose queries, keys and values are one product."""
    queries, keys, values = (y @ weights["qkv"]).reshape(5, 3, 2, 4).transpose(1, 2, 0, 3)
    shares = weigh(jax.nn.softmax(jnp.einsum("hnd,hmd->hnm", turn(queries), turn(keys)), -1))
    return jnp.einsum("hnm,hmd->nhd", shares, values).reshape(5, 8)


def talking(y, weights):
    """Attention whose heads are mixed before and after the softmax, so that those of values are other ones."""
    qkv = (y @ weights["qkv"]).reshape(5, 3, 2, 4).transpose(1, 2, 0, 3)
    shares = jnp.einsum("hnm,hg->gnm", jnp.einsum("hnd,hmd->hnm", qkv[0], qkv[1]), weights["before"])
    shares = jnp.einsum("hnm,hg->gnm", jax.nn.softmax(shares, -1), weights["after"])
    return jnp.einsum("hnm,hmd->nhd", shares, qkv[2]).reshape(5, 8)


def decoded(y, weights):
    """Channels of a dense layer that becomes an image."""
    image = jax.nn.relu(y @ weights["c"]).reshape(5, 3, 3, 4)
    layout = ("NHWC", "HWIO", "NHWC")
    image = jax.lax.conv_general_dilated(image, weights["window"], (1, 1), "SAME", dimension_numbers=layout)
    return jax.nn.relu(image).mean((1, 2))


def turned(x):
    """Rotary position embedding."""
    angles = jnp.outer(jnp.arange(5.0), jnp.array([1.0, 0.1]))
    one, other = jnp.split(x, 2, -1)
    rotated = one * jnp.cos(angles) - other * jnp.sin(angles), one * jnp.sin(angles) + other * jnp.cos(angles)
    return jnp.concatenate(rotated, -1)


def recurrent(y, weights):
    """A gated unit that begins with zeros."""

    def turn(carry, x):
        cell, hidden = carry
        keep, add, show, value = jnp.split(x @ weights["in"] + hidden @ weights["on"], 4, -1)
        cell = jax.nn.sigmoid(keep) * cell + jax.nn.sigmoid(add) * jnp.tanh(value)
        return (cell, jax.nn.sigmoid(show) * jnp.tanh(cell)), cell

    return jax.lax.scan(turn, (jnp.zeros(6), jnp.zeros(6)), y)[1] @ weights["out"]


def blurred(y, _):
    numbers = ("NWC", "WIO", "NWC")
    return jax.lax.conv_general_dilated(
        y[None], jnp.ones((3, 1, 8)) / 3, (1,), "SAME", dimension_numbers=numbers, feature_group_count=8
    )[0]


def cached(y, weights):
    """Attention over keys and values that a loop writes, one after the other."""

    def turn(i, caches):
        row = y[i][None]
        new = row @ weights["keys"], row @ weights["values"]
        return tuple(jax.lax.dynamic_update_slice(cache, one, (i, 0)) for cache, one in zip(caches, new, strict=True))

    keys, values = jax.lax.fori_loop(0, 5, turn, (jnp.zeros((5, 6)), jnp.zeros((5, 8))))
    return jax.nn.softmax(y @ weights["queries"] @ keys.T) @ values


def constrained(y, _):
    mesh = jax.sharding.Mesh(jax.devices()[:1], "data")
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    return jax.lax.optimization_barrier(jax.lax.with_sharding_constraint(y, sharding))


# (function between two layers, further weights, channels of each group that can be cut, words of what freezes "a")
NODES = jnp.array([0, 1, 1, 2, 3])
BETWEEN = {
    "elementwise": (lambda y, _: jax.nn.gelu(y) * jax.nn.sigmoid(y) + 1, {}, [8], ""),
    "a constant of all channels": (lambda y, _: y * jnp.arange(8.0) + jnp.arange(8.0), {}, [8], ""),
    "masked by one of them": (lambda y, _: jnp.where(y[:, :1] > 0, jnp.clip(y, 0, 2), 0), {}, [7], ""),
    "a branch": (
        lambda y, w: jax.lax.cond(w["on"], jnp.sin, jnp.tanh, y) + w["shift"],
        {"on": jnp.array(True), "shift": draw(8)},
        [8],
        "",
    ),
    "branches of products": (
        lambda y, w: jax.lax.cond(w["on"], lambda y: y @ w["c"], lambda y: (y @ w["d"]) @ w["e"], y),
        {"on": jnp.array(True), "c": draw(8, 8), "d": draw(8, 6), "e": draw(6, 8)},
        [8, 8, 6],
        "",
    ),
    "a loop beside": (
        lambda y, w: (
            y * (1 + jax.lax.fori_loop(0, w["turns"], lambda _, z: jnp.tanh(z @ w["c"]), jnp.ones((5, 6))).sum())
        ),
        {"turns": jnp.array(2), "c": draw(6, 6)},
        [8],
        "",
    ),
    "rematerialised": (jax.checkpoint(lambda y, _: checkpoint_name(jnp.tanh(y), "y")), {}, [8], ""),
    "joined, padded, split, turned": (padded_and_joined, {"c": draw(8, 8), "d": draw(8, 8)}, [8, 5, 3], ""),
    "layers in a scan": (
        lambda y, w: jax.lax.scan(lambda y, w: (y + jnp.tanh(y @ w[0]) @ w[1], None), y, (w["in"], w["out"]))[0],
        {"in": draw(3, 8, 6), "out": draw(3, 6, 8)},
        [8, 6],
        "",
    ),
    "recurrent": (recurrent, {"in": draw(8, 24), "on": draw(6, 24), "out": draw(6, 8)}, [8, 8, 6], ""),
    "stacked": (lambda y, _: jnp.stack([y, jnp.tanh(y)]).mean(0) + jnp.stack([y, -y], -1).max(-1), {}, [8], ""),
    "unstacked": (
        lambda y, w: jnp.tanh(jnp.multiply(*jnp.unstack((y @ w["c"]).reshape(5, 2, 6), axis=1))) @ w["d"],
        {"c": draw(8, 12), "d": draw(6, 8)},
        [8, 8, 6],
        "",
    ),
    "heads of one product": (attention, {"qkv": draw(8, 24)}, [8, 2], ""),
    "heads that are turned": (lambda y, w: attention(y, w, turned), {"qkv": draw(8, 24)}, [8, 2], ""),
    "heads that are turned by products": (
        lambda y, w: attention(y, w, lambda x: jnp.einsum("hnd,nd->hnd", x, jnp.cos(jnp.arange(20.0)).reshape(5, 4))),
        {"qkv": draw(8, 24)},
        [8, 2],
        "",
    ),
    "heads that are weighed": (
        lambda y, w: attention(y, w, weigh=lambda shares: jnp.einsum("hnm,h->hnm", shares, jnp.array([0.5, 2]))),
        {"qkv": draw(8, 24)},
        [8, 2],
        "",
    ),
    "heads that are mixed": (talking, {"qkv": draw(8, 24), "before": draw(2, 3), "after": draw(3, 2)}, [8, 3, 2], ""),
    "a decoder": (decoded, {"c": draw(8, 36), "window": draw(3, 3, 4, 8)}, [8, 8, 4], ""),
    "rows of a table": (
        lambda y, w: y + w["rows"][w["which"]] + jax.lax.dynamic_slice_in_dim(y, w["which"][0], 1, 0),
        {"rows": draw(3, 8), "which": jnp.arange(5) % 3},
        [8],
        "",
    ),
    "added to nodes": (lambda y, w: jnp.zeros((5, 8)).at[NODES].add(y) @ w["c"] + y, {"c": draw(8, 8)}, [8], ""),
    "summed by segment": (lambda y, _: jax.ops.segment_sum(jnp.tanh(y), NODES, 4), {}, [8], ""),
    "written to rows": (lambda y, _: jnp.tanh(y).at[jnp.array([3, 1])].set(y[:2]), {}, [8], ""),
    "rows picked along": (
        lambda y, _: jnp.take_along_axis(y, jnp.argsort(jnp.arange(5) % 3)[:, None], axis=0),
        {},
        [8],
        "",
    ),
    "edges repeated": (lambda y, _: jnp.pad(y[None], ((0, 0), (2, 3), (0, 0)), mode="reflect")[0], {}, [8], ""),
    "resized": (lambda y, _: jax.image.resize(y, (10, 8), "nearest")[::2], {}, [8], ""),
    "blurred": (blurred, {}, [8], ""),
    "constrained": (constrained, {}, [8], ""),
    "divided by norms": (lambda y, w: y @ (w["c"] / jnp.linalg.norm(w["c"], axis=0)), {"c": draw(8, 8)}, [8], ""),
    "frequencies of rows": (
        lambda y, _: jnp.fft.fft(y * 1j, axis=0).imag + jnp.fft.rfft(y, axis=0).real[:1],
        {},
        [8],
        "",
    ),
    "frequencies of channels": (
        lambda y, _: jnp.fft.fft(y, axis=-1).real,
        {},
        [],
        "fft: it needs all channels, as normalization does",
    ),
    "rows in order": (
        lambda y, _: jnp.sort(y, 0) + jax.lax.top_k(y.T, 2)[0].T[:1] + jnp.cumsum(y, 0) + jax.lax.cummax(y, 0),
        {},
        [8],
        "",
    ),
    "rows in the order of a layer": (
        lambda y, w: jax.lax.sort((y, jnp.sin(y @ w["c"])), dimension=0, num_keys=1)[1],
        {"c": draw(8, 8)},
        [8],
        "",
    ),
    "sorted": (lambda y, _: jnp.sort(y, -1), {}, [], "sort: it needs all channels, as normalization does"),
    "inverted": (
        lambda y, _: jnp.linalg.qr(y)[0] @ jnp.ones((5, 8)),
        {},
        [],
        "qr: it needs all channels, as normalization does",
    ),
    "a cache of keys": (cached, {"keys": draw(8, 6), "queries": draw(8, 6), "values": draw(8, 8)}, [8, 8, 6], ""),
    "experts": (
        lambda y, w: jax.lax.ragged_dot(
            jax.nn.relu(jax.lax.ragged_dot(y, w["in"], w["counts"])), w["out"], w["counts"]
        ),
        {"in": draw(3, 8, 6), "out": draw(3, 6, 8), "counts": jnp.array([2, 0, 3])},
        [8, 8, 6],
        "",
    ),
    "experts that take as many rows as a layer says": (
        lambda y, w: jax.lax.ragged_dot(y, w["in"], (y @ w["router"] > 0).sum(0)),
        {"in": draw(3, 8, 8), "router": draw(8, 3)},
        [8, 8],
        "",
    ),
    "written over": (
        lambda y, w: jax.lax.dynamic_update_slice(y, y[:, :3] @ w["c"], (0, 2)),
        {"c": draw(3, 3)},
        [],
        "dynamic_update_slice: where it writes is not known",
    ),
    "looped with products": (
        lambda y, w: jax.lax.fori_loop(0, w["turns"], lambda _, y: jnp.tanh(y @ w["c"] @ w["d"]) + y, y),
        {"turns": jnp.array(3), "c": draw(8, 6), "d": draw(6, 8)},
        [8, 6],
        "",
    ),
    "normalized": (
        lambda y, _: jax.nn.softmax(y, -1),
        {},
        [],
        "reduce_max: it needs all channels, as normalization does",
    ),
    "cumulative": (lambda y, _: jnp.cumsum(y, -1), {}, [], "cumsum: it needs all channels, as normalization does"),
    "looped": (
        lambda y, _: jax.lax.while_loop(lambda y: y.sum() < 0, lambda y: y + 1, y),
        {},
        [],
        "reduce_sum: it needs all channels, as normalization does",
    ),
    "products with itself that are not zero": (
        lambda y, _: (jax.nn.elu(y) + 1) @ (jax.nn.elu(y) + 1).T @ jnp.ones((5, 8)),
        {},
        [],
        "dot_general: they are not zero where they are cut, and would still count",
    ),
    "products with itself of what a weight shifts": (
        lambda y, w: (y + w["shift"]) @ (y + w["shift"]).T @ jnp.ones((5, 8)),
        {"shift": jnp.array([0.5])},
        [],
        "dot_general: they are not zero where they are cut, and would still count",
    ),
    "products with itself of what products shift": (
        lambda y, _: (y + jnp.ones((5, 2)) @ jnp.ones((2, 8))) @ (y + jnp.ones((5, 2)) @ jnp.ones((2, 8))).T @ y,
        {},
        [],
        "dot_general: they are not zero where they are cut, and would still count",
    ),
    "products with itself of what a scan shifts": (
        lambda y, _: jax.lax.scan(lambda z, _: (z + 1 - z @ z.T @ z, None), y, None, 3)[0],
        {},
        [],
        "dot_general: they are not zero where they are cut, and would still count",
    ),
    "products with itself of rows and columns": (
        lambda y, w: (y + w["rows"] @ jnp.ones((2, 8))) @ (y + w["rows"] @ jnp.ones((2, 8))).T @ jnp.ones((5, 8)),
        {"rows": draw(5, 2)},
        [],
        "dot_general: they are not zero where they are cut, and would still count",
    ),
    "products with itself of what is sorted beside": (
        lambda y, w: (
            jnp.square(jnp.sin(y) + jnp.sort(w["c"])) @ jnp.square(jnp.sin(y) + jnp.sort(w["c"])).T @ jnp.ones((5, 8))
        ),
        {"c": draw(5, 8)},
        [],
        "dot_general: they are not zero where they are cut, and would still count",
    ),
    "by device": (
        lambda y, w: jax.shard_map(
            lambda y, w: y @ w,
            mesh=jax.sharding.Mesh(jax.devices()[:1], "data"),
            in_specs=(jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()),
            out_specs=jax.sharding.PartitionSpec("data"),
        )(y, w["c"]),
        {"c": draw(8, 8)},
        [],
        "shard_map: what it does to channels is not known",
    ),
    "a window over channels": (
        lambda y, w: jax.nn.sigmoid(jax.vmap(lambda row: jnp.convolve(row, w["taps"], mode="same"))(y)) * y,
        {"taps": draw(3)},
        [],
        "conv_general_dilated: a window slides along them, or data choose among them",
    ),
}
