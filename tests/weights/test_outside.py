"""Compressed weights and the tools of others: each works, or one line says how it would."""

import copy
import operator
import pickle

import flax.core
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import export
from jax.export import symbolic_shape

import nncompress_jax as nnc
from nncompress_jax.weights import parts, serialization
from nncompress_jax.weights.base import is_compressed
from nncompress_jax.weights.clustered import Clustered
from nncompress_jax.weights.sparse import Sparse
from tests.weights.cases import WEIGHTS, draw

X = draw((3, 8), 1)
apply = nnc.inject(lambda weights, x: x @ weights["kernel"])


def made(name, shape=(8, 6)):
    return {"kernel": WEIGHTS[name].make(draw(shape, 0))}


OPERATIONS = {
    "np.asarray": np.asarray,
    "np.mean": np.mean,
    "jnp.sum": jnp.sum,
    "jnp.asarray": jnp.asarray,
    "jnp.dot": lambda w: jnp.dot(X, w),
    "product": lambda w: X @ w,
    "of numpy": lambda w: np.asarray(X) @ w,
    "numpy's number": lambda w: np.float32(2) * w,
    "row": lambda w: w[0],
    "T": lambda w: w.T,
    "mean": lambda w: w.mean(),
    "astype": lambda w: w.astype(jnp.bfloat16),
    "at": lambda w: w.at[0].set(1),
    "item": lambda w: w.item(),
    "length": len,
    "rows": list,
    "contains": lambda w: 2 in w,
    "set": lambda w: operator.setitem(w, 0, 1),
    "truth": bool,
    "number": float,
    "negative": operator.neg,
    "magnitude": abs,
    "square": lambda w: w**2,
    "power": lambda w: 2**w,
    "halves": lambda w: w // 2,
    "rest": lambda w: w % 2,
    "less": lambda w: w < 2,
    "a model of NNX": lambda w: merged(w)(X),
}


def merged(weight):
    graph, state = nnx.split(nnx.Linear(8, 6, rngs=nnx.Rngs(0)))
    state["kernel"].set_value(weight)
    return nnx.merge(graph, state)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations_of_arrays_are_refused(operation):
    for name in ("Quantized", "Sparse", "LowRank of Quantized", "ChannelPruned"):
        with pytest.raises(nnc.InputError, match=r"nnc\.inject.*nnc\.decompress") as error:
            OPERATIONS[operation](made(name)["kernel"])
        assert "\n" not in str(error.value)


def test_what_is_no_operation_of_arrays_is_missing_as_ever():
    weight = made("Quantized")["kernel"]
    assert not hasattr(weight, "T")
    assert getattr(weight, "mean", None) is None
    with pytest.raises(AttributeError, match="no attribute 'kernel'"):
        weight.kernel  # noqa: B018


TOOLS = {
    "FrozenDict": flax.core.freeze,
    "pickle": lambda tree: pickle.loads(pickle.dumps(tree)),
    "deepcopy": copy.deepcopy,
    "device_put": jax.device_put,
    "flax's bytes": lambda tree: flax.serialization.from_bytes(tree, flax.serialization.to_bytes(tree)),
    "flax's state": lambda tree: flax.serialization.from_state_dict(tree, flax.serialization.to_state_dict(tree)),
    "into another": lambda tree: flax.serialization.from_bytes(
        jax.tree.map(jnp.zeros_like, tree), flax.serialization.to_bytes(tree)
    ),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_trees_come_back(name):
    tree = made(name)
    for tool, run in TOOLS.items():
        again = run(tree)
        assert jax.tree.structure(again["kernel"]) == jax.tree.structure(tree["kernel"]), tool
        for new, old in zip(jax.tree.leaves(again), jax.tree.leaves(tree), strict=True):
            assert new.dtype == old.dtype
            np.testing.assert_array_equal(new, old, err_msg=tool)


@pytest.mark.parametrize("name", WEIGHTS)
def test_what_is_static_is_told_to_export(name):
    """`from_children` of what `serialize_auxdata` wrote is the same node of a tree."""
    weight = made(name)["kernel"]
    kind, static = jax.tree.structure(weight).node_data()
    held = serialization._holding(kind, static)
    again = kind.static_from_dict(held.static_to_dict())
    fields = {field: getattr(weight, field) for field in serialization._parts(kind)}
    assert jax.tree.structure(kind(**fields, **again)) == jax.tree.structure(weight)


@pytest.mark.parametrize("name", ["Quantized, 4 bits", "Sparse of Quantized", "LowRank of Quantized", "ChannelPruned"])
def test_exported_programs(name):
    tree, rows = made(name), jax.ShapeDtypeStruct(symbolic_shape("b, 8"), jnp.float32)
    program = export.export(jax.jit(lambda weights, x: nnc.decompress(apply(weights, x))))(tree, rows)
    expected = nnc.decompress(apply(tree, X))
    np.testing.assert_allclose(export.deserialize(program.serialize()).call(tree, X), expected, atol=1e-5)


REFUSED_STATES = {
    "dense": (made("Quantized"), {"kernel": draw((8, 6), 0)}, "the state holds no compressed weight"),
    "another shape": (
        made("Quantized"),
        made("Quantized", (4, 6)),
        r"Quantized float32 \[8, 6\]: the state holds .*4, 6",
    ),
    "damaged": (
        made("Quantized"),
        jax.tree.map(lambda part: part.astype(jnp.float32), made("Quantized")),
        "the state is damaged: codes float32",
    ),
}


@pytest.mark.parametrize("case", REFUSED_STATES)
def test_states_of_other_variables(case):
    target, other, words = REFUSED_STATES[case]
    with pytest.raises(nnc.InputError, match=words):
        flax.serialization.from_bytes(target, flax.serialization.to_bytes(other))


CHANGES = {
    "moving average": lambda tree: optax.incremental_update(tree, jax.tree.map(jnp.zeros_like, tree), 0.5),
    "optax.ema": lambda tree: optax.ema(0.9).update(tree, optax.ema(0.9).init(tree))[0],
    "cast": lambda tree: jax.tree.map(lambda part: part.astype(jnp.bfloat16), tree),
    "mean of two": lambda tree: jax.tree.map(lambda a, b: (a + b) / 2, tree, tree),
}
HAVE_INTEGERS = [
    name
    for name in WEIGHTS
    if any(jnp.issubdtype(part.dtype, jnp.integer) for part in jax.tree.leaves(made(name)["kernel"]))
]


@pytest.mark.parametrize("name", HAVE_INTEGERS)
def test_codes_that_became_floats_are_found_at_use(name):
    for change in ("moving average", "optax.ema", "cast", "mean of two"):
        for run in (apply, jax.jit(apply), lambda tree, x: nnc.cost(apply, tree, x)):
            with pytest.raises(nnc.InputError, match=r"kernel: .*(codes|positions|seed).*nnc\.decompress first"):
                run(CHANGES[change](made(name)), X)


@pytest.mark.parametrize("name", WEIGHTS)
def test_floats_alone_may_be_averaged(name):
    tree = made(name)
    trained, fixed = parts.partition(tree)
    average = parts.combine(optax.incremental_update(trained, jax.tree.map(jnp.zeros_like, trained), 1.0), fixed)
    np.testing.assert_allclose(*(nnc.decompress(apply(each, X)) for each in (average, tree)), atol=1e-6)


def test_weights_of_a_stack_that_was_mapped_apart():
    """Two members share a codebook of two values: vmap would give each one of them."""
    stack = {"kernel": Clustered(jnp.ones(2), jnp.zeros((2, 8, 6), jnp.uint8))}
    with pytest.raises(nnc.InputError, match=r"kernel: codebook float32 \[\], expected .* vmap"):
        jax.vmap(apply, (0, None))(stack, X)
    inside = nnc.inject(jax.vmap(lambda weights, x: x @ weights["kernel"], (0, None)))
    np.testing.assert_allclose(inside(stack, X)[1], X @ jnp.ones((8, 6)), atol=1e-5)


def test_weight_decay_by_number_of_axes():
    """Values of a sparse weight are a vector; `decays` knows of which it is."""
    trained, fixed = parts.partition({"kernel": Sparse(jnp.ones(3), jnp.arange(3), (8, 6)), "bias": jnp.ones(6)})
    decay = optax.add_decayed_weights(0.1, mask=lambda tree: parts.decays(tree, lambda leaf: leaf.ndim > 1))
    updates, _ = decay.update(jax.tree.map(jnp.zeros_like, trained), decay.init(trained), trained)
    updated = parts.combine(updates, fixed)
    np.testing.assert_allclose(updated["kernel"].values, 0.1, rtol=1e-6)
    np.testing.assert_array_equal(updated["bias"], 0)
    assert is_compressed(updated["kernel"])
