import jax
import numpy as np
import pytest

import nncompress_jax as nnc


def apply(weights, x):
    return jax.nn.relu(x @ weights["first"]) @ weights["second"]


@pytest.fixture
def network():
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=(64, 64)).astype(np.float32) for name in ("first", "second")}
    return weights, rng.normal(size=(256, 64)).astype(np.float32) * np.linspace(0.1, 3, 64, dtype=np.float32)


def test_what_each_weight_costs_at_each_step(network):
    weights, x = network
    rows = nnc.sensitivity(apply, weights, batches=[x]).rows
    hidden = np.maximum(x.astype(np.float64) @ weights["first"], 0)
    behind = (hidden > 0).astype(float)  # whether an entry of the first layer reaches the outputs
    squares = {
        "first": np.einsum("ni,nj->ij", np.square(x, dtype=np.float64), behind) / len(x),
        "second": np.square(hidden).mean(0)[:, None],
    }
    squares["first"] *= np.square(weights["second"], dtype=np.float64).sum(1)
    assert [row["weight"] for row in rows] == ["first"] * (len(rows) // 2) + ["second"] * (len(rows) // 2)
    deviation = (2 / (256 * 64)) ** 0.5  # of a mean of squared normal numbers, one for each example and output
    for row in rows[:: len(rows) // 7]:
        weight, step = weights[row["weight"]].astype(np.float64), row["step"]
        error = weight - np.clip(np.rint(weight / step), -127, 127) * step
        assert row["loss"] == pytest.approx(0.5 * (squares[row["weight"]] * error**2).sum(), rel=4 * deviation)
        alone = nnc.compress({"w": weights[row["weight"]]}, nnc.quantize(step=step, where="w"))
        assert row["bytes"] == nnc.stored_size(alone["w"])


def test_only_some(network):
    weights, x = network
    whole = nnc.sensitivity(apply, weights, batches=[x]).rows
    assert nnc.sensitivity(apply, weights, batches=[x], where="second").rows == whole[len(whole) // 2 :]
