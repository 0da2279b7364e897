"""Derivatives with respect to what trains, in trees whose nodes look at what they are made of."""

from typing import Any

import equinox as eqx
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.weights.base import CompressedWeight, dense
from nncompress_jax.weights.parts import combine, partition
from nncompress_jax.weights.sparse import Sparse


@flax.struct.dataclass
class Checked:
    """Of fixed types: no None, no flags, no numbers of Python."""

    x: Any
    steps: Any

    def __post_init__(self):
        if not (jnp.issubdtype(self.x.dtype, jnp.floating) and jnp.issubdtype(self.steps.dtype, jnp.integer)):
            raise TypeError("expected floats and integers")


@flax.struct.dataclass
class Cast:
    """Takes anything for a number, None included."""

    count: Any

    def __post_init__(self):
        if not isinstance(self.count, jax.Array):
            object.__setattr__(self, "count", np.asarray(self.count).astype(np.float32))


def network(tree, x):
    scaled = (x @ tree["kernel"]) * tree["node"].x * tree["node"].steps
    return tree["rate"] * tree["activation"](scaled).sum()


def variables(**more):
    node = Checked(jnp.array([1.0, 2.0]), jnp.array([3, 4]))
    kernel = jnp.arange(1.0, 5.0).reshape(2, 2)
    return {"kernel": kernel, "node": node, "rate": 0.5, "activation": jnp.abs, **more}


@pytest.mark.parametrize("has_aux", [False, True])
def test_gradients_of_nodes_that_check_their_fields(has_aux):
    """By hand: 3 and 4 stay, and a half of (3, 4) (1, 2) (3, 4) is summed."""
    small = nnc.compress(variables(), nnc.prune(sparsity=0.5, where="kernel"))

    def loss(tree, x):
        return (network(tree, x), {"seen": x}) if has_aux else network(tree, x)

    x = jnp.array([[1.0, 1.0]])
    value, gradients = nnc.value_and_grad(nnc.inject(loss), has_aux=has_aux)(small, x)
    if has_aux:
        value, aux = value
        assert (aux["seen"] == x).all()
    assert value == (3 * 1 * 3 + 4 * 2 * 4) / 2
    assert gradients["kernel"].values.tolist() == [1 * 3 / 2, 2 * 4 / 2]
    assert gradients["kernel"].positions is None
    assert gradients["node"].x.tolist() == [3 * 3 / 2, 4 * 4 / 2]
    assert gradients["node"].steps.tolist() == [0, 0]  # it takes no None
    assert (gradients["activation"], gradients["rate"]) == (None, None)


def test_gradients_under_jit():
    tree = variables()
    others = {name: tree.pop(name) for name in ("rate", "activation")}
    function = jax.jit(nnc.value_and_grad(lambda tree, x: network({**tree, **others}, x)))
    value, gradients = function(tree, jnp.array([[1.0, 1.0]]))
    assert value == (4 * 1 * 3 + 6 * 2 * 4) / 2
    assert gradients["kernel"].tolist() == [[1.5, 4], [1.5, 4]]
    assert gradients["node"].x.tolist() == [6, 12]


def test_none_where_nodes_take_it():
    tree = {"kernel": jnp.ones(2), "steps": jnp.array([1, 2]), "n": 2.5, "nodes": [np.float32(1), jax.random.key(0)]}
    _, gradients = nnc.value_and_grad(lambda tree: (tree["kernel"] * tree["n"]).sum())(tree)
    assert gradients["kernel"].tolist() == [2.5, 2.5]
    assert (gradients["steps"], gradients["n"], gradients["nodes"]) == (None, None, [None, None])


def test_none_is_not_taken_for_a_number():
    """np.asarray(None) is NaN as a float."""
    tree = {"kernel": jnp.ones(2), "node": Cast(jnp.array([1, 2]))}
    _, gradients = nnc.value_and_grad(lambda tree: (tree["kernel"] * tree["node"].count).sum())(tree)
    assert gradients["kernel"].tolist() == [1, 2]
    assert gradients["node"].count.tolist() == [0, 0]


def test_outputs_in_nodes_that_check_their_fields():
    """Of inject, observe, cost and coupling: what a network returns is made of arrays alone."""
    weights = {"kernel": jnp.ones((32, 32))}

    def apply(tree, x):
        return Checked(x @ tree["kernel"], jnp.arange(3))

    small, x = nnc.compress(weights, nnc.quantize(inputs=False)), jnp.ones((2, 32))
    outputs = nnc.inject(apply)(small, x)
    np.testing.assert_allclose(outputs.x, 32 * 127 / 127.5, rtol=1e-6)
    assert outputs.steps.tolist() == [0, 1, 2]
    assert nnc.observe(apply)(weights, x)[0].steps.tolist() == [0, 1, 2]
    assert nnc.cost(apply, weights, x).macs == 32 * 32
    assert "an output of the network, x" in {group.frozen for group in nnc.coupling(apply, weights, x).frozen}
    ranged = nnc.compress(weights, nnc.quantize(ranges=nnc.calibration.abs_max), apply=apply, batches=[x])
    np.testing.assert_allclose(ranged["kernel"].input_scale, 1 / 127.5, rtol=1e-6)


def test_arguments_in_nodes_that_check_their_fields():
    """Where tracing fails, too, the message is one line."""
    node = Checked(jnp.ones((2, 32)), jnp.arange(2))
    weights = {"kernel": jnp.ones((32, 32))}
    assert nnc.cost(lambda tree, node: node.x @ tree["kernel"], weights, node).macs == 32 * 32
    with pytest.raises(nnc.InputError, match="apply cannot be traced with inputs of shape .'Checked',.: TypeError"):
        nnc.cost(lambda tree, node: node.x @ tree["kernel"] @ node.steps, weights, node)


def test_both_halves_are_the_whole():
    tree = {"kernel": jnp.ones(2), "steps": jnp.array([1, 2]), "f": jnp.abs}
    trained, fixed = partition(tree)
    assert (trained["steps"], trained["f"], fixed["kernel"]) == (None, None, None)
    again = combine(trained, fixed)
    assert all(again[name] is leaf for name, leaf in tree.items())


class _Gated(CompressedWeight):
    """A weight that trains, times one that does not."""

    TRAINS = DECAYS = HELD = ("values",)

    values: Any
    gate: Any
    dtype_name: str = eqx.field(static=True, default="float32")

    def aval(self):
        return jax.core.ShapedArray(self.values.shape, jnp.dtype(self.dtype_name))

    def materialise(self):
        return dense(self.values) * dense(self.gate)


def test_what_stands_in_a_field_that_does_not_train_does_not():
    """Whatever it would do by itself."""
    sparse = Sparse(jnp.ones(2), jnp.arange(2), (2, 2))
    weight = {"w": _Gated(sparse, sparse)}
    trained, fixed = partition(weight)
    assert [len(jax.tree.leaves(tree["w"].gate)) for tree in (trained, fixed)] == [0, 2]
    assert trained["w"].values.values is not None
    mask = nnc.decays(weight)["w"]
    assert (mask.values.values, mask.gate.values) == (True, False)
