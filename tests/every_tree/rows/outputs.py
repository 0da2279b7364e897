"""Methods that change floats such that outputs stay what they are, or become so again."""

from typing import Any

import numpy as np

import nncompress_jax as nnc
from tests.every_tree.network import WIDTH
from tests.every_tree.rows.checks import cut, eps, near, plainly, row, wide


@row
def equalize(kind, folder):
    """Columns of W and rows of V have one range, the root of the product of what they had."""
    small = cut(kind, nnc.equalize(), left=())
    before, after = (
        {name: wide(array) for name, array in kind.parts(tree).items()} for tree in (kind.variables, small)
    )
    expected = np.sqrt(abs(before["W"]).max(0) * abs(before["V"]).max(1))
    for ranges in (abs(after["W"]).max(0), abs(after["V"]).max(1)):
        np.testing.assert_allclose(ranges, expected, rtol=max(8 * eps(kind), 1e-5))
    assert (after["c"] == before["c"]).all()
    near(kind, nnc.inject(kind.apply)(small, kind.x), plainly(kind))


def layers(parts: dict[str, Any], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What both layers of the network give, in float64."""
    hidden = x @ wide(parts["W"]) + wide(parts["b"])
    return hidden, np.maximum(hidden, 0) @ wide(parts["V"]) + wide(parts["c"])


@row
def correct_biases(kind, folder):
    """Both layers of the network on 2 bits have outputs of the mean that they had."""
    coarse = nnc.quantize(bits=2, inputs=False)
    small = cut(kind, coarse, nnc.correct_biases(kind.variables))
    plain = cut(kind, coarse)
    x = wide(kind.x)
    truth, now, without = (layers(kind.parts(nnc.decompress(tree)), x) for tree in (kind.variables, small, plain))
    for one, other, worse in zip(truth, now, without, strict=True):
        size = abs(one).max()
        assert abs(one.mean(0) - other.mean(0)).max() <= size * max(16 * eps(kind), 1e-5)
        assert abs(one.mean(0) - worse.mean(0)).max() > size * max(16 * eps(kind), 1e-5)


@row
def batch_norm__fold(kind, folder):
    """No normalization is here."""
    cut(kind, nnc.batch_norm.fold())


@row
def batch_norm__reestimate(kind, folder):
    nnc.batch_norm.reestimate(kind.variables, kind.apply, [kind.x])


@row
def reestimate(kind, folder):
    cut(kind, nnc.reestimate)


@row
def synthetic_images(kind, folder):
    nnc.synthetic_images(lambda tree, x: kind.apply(tree, x[:, 0, 0]), kind.variables, 4, shape=(1, 1, WIDTH), steps=1)
