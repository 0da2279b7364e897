"""Functions between two layers of 8 channels that only carry the channels along, whatever they do to the rows."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.coupling.programs import NODES, draw

# (function between two layers, further weights, channels of each group that can be cut)
CARRIED = {
    "edges of no entries": (lambda y, _: jnp.pad(y, ((2, 3), (0, 0)), mode="edge"), {}, [8]),
    "ramps of no entries": (lambda y, _: jnp.pad(y, ((2, 3), (0, 0)), mode="linear_ramp"), {}, [8]),
    "means of no entries": (lambda y, _: jnp.pad(y, ((2, 3), (0, 0)), mode="mean"), {}, [8]),
    "rows of zeros in front": (lambda y, _: jnp.concatenate([y[:0], jnp.zeros((2, 8)), y, y[5:]]), {}, [8]),
    "pieces of no channels": (
        lambda y, _: jnp.concatenate([y[:, :0], *jnp.split(y, [0, 3, 3, 8], -1)[::-1], jnp.ones((5, 0))], -1),
        {},
        [8],
    ),
    "nobody uses it": (lambda y, _: (y, jax.nn.softmax(y, -1))[0], {}, [8]),
    "rolled by a number of the program": (lambda y, w: jnp.roll(y, w["by"], 0), {"by": jnp.array(2)}, [8]),
    "rolled": (lambda y, _: jnp.roll(y, (2, 3), (0, 1)), {}, [8]),
    "rows of zeros written": (
        lambda y, w: jax.lax.dynamic_update_slice(y, jnp.zeros((2, 8)), (w["at"], 0)),
        {"at": jnp.array(1)},
        [8],
    ),
    "a row of weights written": (lambda y, w: y.at[0].set(w["row"]), {"row": draw(8)}, [8]),
    "multiplied, bounded at rows": (
        lambda y, _: y.at[NODES[1:3]].multiply(2.0).at[NODES[:2]].max(y[:2]).at[NODES[3:]].min(jnp.sin(y[:2])),
        {},
        [8],
    ),
    "largest and products by segment": (
        lambda y, _: jax.ops.segment_max(y, NODES, 4) + jax.ops.segment_prod(y, NODES, 4),
        {},
        [8],
    ),
    "rows in the order of each channel": (lambda y, _: jnp.take_along_axis(y, jnp.argsort(y, 0), 0), {}, [8]),
    "the largest row of each channel": (
        lambda y, _: jnp.take_along_axis(y, jnp.argmax(y, 0)[None], 0) + jax.lax.approx_max_k(y, 1, 0)[0],
        {},
        [8],
    ),
    "rows of each channel, written": (
        lambda y, _: jax.vmap(lambda y, i: y.at[i].add(y[:2]), (1, 1), 1)(y, jnp.arange(16).reshape(2, 8) % 3),
        {},
        [8],
    ),
    "entries of a table that channels choose": (
        lambda y, w: y * w["entries"][jnp.clip(jnp.round(y), -2, 2).astype(int) + 2],
        {"entries": jnp.array([2.0, 1, 3, -1, 4])},
        [8],
    ),
    "reduced by a function": (
        lambda y, _: (
            jax.lax.reduce(y, np.float32(0), lambda a, b: a + b * b, (0,))
            + jax.lax.reduce_window(y, 1.0, jax.lax.mul, (2, 1), (1, 1), "VALID")
        ),
        {},
        [8],
    ),
    "chosen in windows": (
        lambda y, _: jax.vjp(lambda y: jax.lax.reduce_window(y, -jnp.inf, jax.lax.max, (2, 1), (1, 1), "VALID"), y)[1](
            jnp.tanh(y[1:])
        )[0],
        {},
        [8],
    ),
    "columns of a triangular system": (
        lambda y, _: jax.scipy.linalg.solve_triangular(jnp.tril(jnp.ones((5, 5))), y, lower=True),
        {},
        [8],
    ),
    "a matrix of each channel": (
        lambda y, _: jax.vmap(lambda row: jnp.linalg.cholesky(jnp.outer(row, row) + jnp.eye(5))[0], 1, 1)(y),
        {},
        [8],
    ),
    "each channel as an image": (
        lambda y, _: jax.vmap(lambda row: jnp.convolve(row, jnp.array([1.0, 2, 1]), mode="same"), 1, 1)(y),
        {},
        [8],
    ),
    "special functions": (
        lambda y, _: jax.scipy.special.i0e(y) + jax.scipy.special.gammainc(jnp.exp(y), jnp.exp(y)),
        {},
        [8],
    ),
    "a mean by name": (
        lambda y, _: jax.vmap(lambda row: row - jax.lax.pmean(row, "batch"), axis_name="batch")(y),
        {},
        [8],
    ),
    "features of a table": (
        lambda y, w: (jnp.tanh(y @ w["down"] + w["table"][NODES]) @ w["table"].T) @ w["up"],
        {"down": draw(8, 6), "table": draw(9, 6), "up": draw(9, 8)},
        [8, 8, 6],
    ),
}
