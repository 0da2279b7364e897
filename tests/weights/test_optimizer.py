"""`nnc.optimizer`: what it does to each type of weights, and where its states can be kept."""

import pickle

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax.training.train_state import TrainState

import nncompress_jax as nnc
from nncompress_jax.weights.base import is_compressed
from nncompress_jax.weights.parts import trains
from tests.training.methods import METHODS


def mixed():
    """Weights of several types, a dense array and a table of integers."""
    draw = np.random.default_rng(0).standard_normal
    params = {name: jnp.asarray(draw((8, 8)), jnp.float32) for name in METHODS if name != "cut channels"}
    for name, method in METHODS.items():
        if name in params and "tracked" not in name:
            params[name] = nnc.compress({"kernel": params[name]}, method)["kernel"]
    return params | {"bias": jnp.ones(8)}


def total(params, x):
    x = jnp.asarray(x)
    for weight in params.values():
        x = jnp.tanh(x @ weight) if weight.ndim == 2 else x + weight
    return (x**2).sum()


TRANSFORMATIONS = {
    "sgd": optax.sgd(0.1, momentum=0.9),
    "adam": optax.adam(1e-2),
    "adamw": optax.adamw(1e-2, weight_decay=0.1, mask=nnc.decays),
    "lion": optax.lion(1e-3),
    "clipped": optax.chain(optax.clip_by_global_norm(0.5), optax.adam(optax.cosine_decay_schedule(0.1, 10))),
    "multi_transform": optax.multi_transform(
        {"fast": optax.sgd(0.1), "frozen": optax.set_to_zero()},
        lambda params: {name: "frozen" if name == "prune" else "fast" for name in params},
    ),
}


@pytest.mark.parametrize("gradients", ["nnc", "jax"])
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_is_the_transformation_on_what_trains(name, gradients):
    """Against optax on a flat list of the parts that train, their gradients divided, and clipped after it, by hand."""
    transformation, params, x = TRANSFORMATIONS[name], mixed(), np.ones((4, 8), np.float32)
    tx, loss = nnc.optimizer(transformation), nnc.inject(total)
    differentiate = nnc.grad(loss) if gradients == "nnc" else jax.grad(loss, allow_int=True)
    state, ours = tx.init(params), params
    trained, fixed = nnc.partition(params)
    theirs, their_state = trained, transformation.init(trained)
    for _ in range(3):
        updates, state = tx.update(differentiate(ours, x), state, ours)
        assert jax.tree.structure(updates) == jax.tree.structure(ours)
        ours = optax.apply_updates(ours, updates)
        whole = nnc.combine(theirs, fixed)
        taken = nnc.grad(loss)(whole, x)
        for path in ("cluster", "Deep Compression"):
            clusters = whole[path] if path == "cluster" else whole[path].values
            members = np.bincount(np.asarray(clusters.codes.materialise()).ravel(), minlength=len(clusters.codebook))
            slot = taken[path] if path == "cluster" else taken[path].values
            object.__setattr__(slot, "codebook", slot.codebook / np.maximum(members, 1))
        updates, their_state = transformation.update(taken, their_state, theirs)
        theirs = optax.apply_updates(theirs, updates)
        bounded = theirs["binary within bounds"]
        object.__setattr__(bounded, "weight", jnp.clip(bounded.weight, -1, 1))
    expected = nnc.combine(theirs, fixed)
    assert jax.tree.structure(ours) == jax.tree.structure(params) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("accumulated", [False, True])
def test_without_compressed_weights_it_is_the_optimizer(accumulated):
    inner = optax.MultiSteps(optax.adam(0.1), 2) if accumulated else optax.adam(0.1)
    plain = inner.gradient_transformation() if accumulated else inner
    params = {"w": jnp.arange(3.0)}
    one, other = params, params
    tx = nnc.optimizer(inner)
    states = tx.init(params), plain.init(params)
    for _ in range(4):
        updates, first = tx.update(jax.tree.map(jnp.cos, one), states[0], one)
        expected, second = plain.update(jax.tree.map(jnp.cos, other), states[1], other)
        states = first, second
        one, other = optax.apply_updates(one, updates), optax.apply_updates(other, expected)
    np.testing.assert_array_equal(one["w"], other["w"])


@pytest.mark.parametrize(
    "search", [optax.lbfgs(), optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(15))]
)
def test_line_searches(search):
    """Against optax on the arrays that train: entries of a pruned weight and a dense array, beside integers."""
    draw = np.random.default_rng(0).standard_normal
    params = nnc.compress({"w": jnp.asarray(draw((6, 4)), jnp.float32)}, nnc.prune(sparsity=0.5)) | {"b": jnp.ones(4)}
    params |= {"table": jnp.arange(4)}
    x, y = (jnp.asarray(draw((16, width)), jnp.float32) for width in (6, 4))
    loss = nnc.inject(lambda params: jnp.square(x @ params["w"] + params["b"][params["table"]] - y).mean())
    trained, fixed = nnc.partition(params)
    leaves, structure = jax.tree.flatten(trained)

    def loss_of(leaves):
        return loss(nnc.combine(jax.tree.unflatten(structure, leaves), fixed))

    tx = nnc.optimizer(search)
    state, theirs = tx.init(params), search.init(leaves)
    values = []
    for _ in range(8):
        value, gradient = nnc.value_and_grad(loss)(params)
        updates, state = tx.update(gradient, state, params, value=value, grad=gradient, value_fn=loss)
        params = optax.apply_updates(params, updates)
        value, gradient = jax.value_and_grad(loss_of)(leaves)
        updates, theirs = search.update(gradient, theirs, leaves, value=value, grad=gradient, value_fn=loss_of)
        leaves = optax.apply_updates(leaves, updates)
        values.append(value)
    for one, other in zip(jax.tree.leaves(nnc.partition(params)[0]), leaves, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    assert values[-1] < values[0] / 2
    assert params["table"].tolist() == [0, 1, 2, 3]


def test_holds_no_state_for_what_does_not_train():
    params = nnc.compress({"kernel": jnp.ones((64, 64)) + jnp.eye(64)}, nnc.cluster(bits=4))
    sizes = [leaf.size for leaf in jax.tree.leaves(nnc.optimizer(optax.adam(0.1)).init(params))]
    assert sizes == [1, 16, 16]


def test_a_range_follows_the_largest_input_of_all_places():
    """0.99 of the old scale and 0.01 of what the batch's largest magnitude, 6 at the second place, would give."""
    params = {"kernel": jnp.eye(4)}
    method = nnc.fake_quantize(ranges=nnc.calibration.abs_max, tracked=True)
    apply = lambda params, x: (x @ params["kernel"]).sum() + (2 * x @ params["kernel"]).sum()  # noqa: E731
    small = nnc.compress(params, method, apply=apply, batches=[jnp.ones((1, 4))])
    before = float(small["kernel"].input_scale)
    tx = nnc.optimizer(optax.adam(0.1))
    x = jnp.array([[1.0, -3.0, 2.0, 0.0]])
    for gradients in (nnc.grad(nnc.inject(apply))(small, x), jax.grad(nnc.inject(apply))(small, x)):
        updates, _ = tx.update(gradients, tx.init(small), small)
        after = float(optax.apply_updates(small, updates)["kernel"].input_scale)
        assert before == pytest.approx(2 / 127.5, rel=1e-6)
        assert after == pytest.approx(0.99 * before + 0.01 * 6 / 127.5, rel=1e-6)


ADAMW = nnc.optimizer(optax.adamw(1e-2, mask=nnc.decays))


def begun():
    return TrainState.create(apply_fn=total, params=mixed(), tx=ADAMW)


def stepped(state):
    gradients = nnc.grad(nnc.inject(total))(state.params, jnp.ones((4, 8)))
    return state.apply_gradients(grads=gradients)


def check_equal(one, other):
    assert jax.tree.structure((one.params, one.opt_state)) == jax.tree.structure((other.params, other.opt_state))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_states_are_donated():
    plain, donating = jax.jit(stepped), jax.jit(stepped, donate_argnums=0)
    state = begun()
    check_equal(donating(donating(state)), plain(plain(begun())))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params) if isinstance(leaf, jax.Array) and leaf.size)


def test_checkpoints_by_pickle_flax_and_orbax(tmp_path):
    state = jax.jit(stepped)(begun())
    params, opt_state = pickle.loads(pickle.dumps((state.params, state.opt_state)))
    check_equal(begun().replace(step=state.step, params=params, opt_state=opt_state), state)
    target = begun()
    check_equal(flax.serialization.from_bytes(target, flax.serialization.to_bytes(state)), state)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        check_equal(
            checkpointer.restore(tmp_path / "state", jax.tree.map(ocp.utils.to_shape_dtype_struct, state)), state
        )


def test_state_of_another_optimizer_is_refused():
    one = {"kernel": jnp.arange(16.0).reshape(4, 4)}
    half, whole = (nnc.partition(nnc.compress(one, nnc.prune(sparsity=share)))[0] for share in (0.5, 0.25))
    state = flax.serialization.to_state_dict(half)
    with pytest.raises(nnc.InputError, match=r"Sparse: the state holds parts \[\[8\]\].* expected \[\[12\]\]"):
        flax.serialization.from_state_dict(whole, state)


@pytest.mark.parametrize("transformation", [optax.sgd(0.1), optax.adamw(1e-3), optax.lion(1e-3)])
def test_an_optimizer_alone_is_refused_by_name(transformation):
    state = TrainState.create(apply_fn=total, params=mixed(), tx=transformation)
    with pytest.raises(ValueError, match=r"wrap the whole optimizer, nnc.optimizer\("):
        stepped(state)


def test_gradients_and_weights_have_different_structures():
    """Which is no error where programs are looked up by structure: of two weights of one type, one trains whole."""
    params = {"kernel": jnp.eye(8)}
    whole = nnc.compress(params, nnc.fake_quantize(learned_scales=True))
    small = nnc.compress(params, nnc.fake_quantize(rate=1.0, price=1e-7))
    gradients = nnc.grad(nnc.inject(lambda params: params["kernel"].sum()))(small)
    assert jax.tree.structure(gradients) != jax.tree.structure(small)
    tx = nnc.optimizer(optax.adam(0.1))
    programs = jax.jit(lambda tree: jax.tree.leaves(tree)[0].sum())
    for tree in (whole, small):
        programs(tree)
        programs(nnc.partition(tree)[0])
        tx.update(nnc.grad(nnc.inject(lambda params: params["kernel"].sum()))(tree), tx.init(tree), tree)


def test_accumulation_around_it_is_refused():
    params = mixed()
    outside = optax.MultiSteps(nnc.optimizer(optax.adam(0.1)), 2)
    with pytest.raises(ValueError, match=r"wrap the whole optimizer, nnc.optimizer\("):
        outside.update(nnc.grad(nnc.inject(total))(params, jnp.ones((4, 8))), outside.init(params), params)


def test_refusals():
    params = mixed()
    tx = nnc.optimizer(optax.sgd(0.1))
    gradients = nnc.grad(nnc.inject(total))(params, jnp.ones((4, 8)))
    with pytest.raises(nnc.InputError, match="needs the parameters"):
        tx.update(gradients, tx.init(params))
    del gradients["bias"]
    with pytest.raises(nnc.InputError, match="gradients have another structure than the parameters: .*bias"):
        tx.update(gradients, tx.init(params), params)


def test_average():
    params = mixed()
    moved = jax.tree.map(lambda leaf: leaf + 1 if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf, params)
    average = jax.jit(nnc.ema)(params, moved, 0.75)
    assert jax.tree.structure(average) == jax.tree.structure(params)
    for old, new, mark in zip(jax.tree.leaves(params), jax.tree.leaves(average), trains(params), strict=True):
        np.testing.assert_allclose(new, old + 0.25 if mark else old, rtol=1e-6, atol=1e-7)
    with pytest.raises(nnc.InputError, match="the average have another structure"):
        nnc.ema({"bias": params["bias"]}, params)
    outputs = nnc.inject(total)(average, jnp.ones((4, 8)))
    assert np.isfinite(outputs)
    assert any(map(is_compressed, jax.tree.leaves(average, is_leaf=is_compressed)))
