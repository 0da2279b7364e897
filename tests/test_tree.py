"""Names of leaves."""

from urllib.parse import unquote

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from nncompress_jax import checksums
from nncompress_jax.tree import keyed_leaves, named_leaves, selected


def names(tree):
    return [name for name, _ in named_leaves(tree)]


def test_names_are_as_people_write_them():
    assert names({"linear/~/b": {"w": 1}, "a%2Fb": [2, (3,)]}) == ["a%2Fb/0", "a%2Fb/1/0", "linear/~/b/w"]


def test_no_two_leaves_have_the_same_name():
    tree = {"a": {"b": 1}, "a/b": 2, "a%2Fb": 3, "c": 4}
    assert names(tree) == ["a/b", "a%252Fb", "a%2Fb", "c"]
    assert selected(named_leaves(tree), "a/b") == ["a/b"]
    sums = checksums.of_leaves({"a": {"b": np.zeros(1)}, "a/b": np.ones(1)}, "params")
    assert sums.keys() == {"params/a/b", "params/a%2Fb"}
    assert len(set(sums.values())) == 2


KEYS = st.text("a/%2F", max_size=3)


INNER = st.recursive(st.just(0), lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=3), max_leaves=6)


@given(st.dictionaries(KEYS, INNER, min_size=1, max_size=3))
def test_names_of_any_dicts_differ(tree):
    keyed, named = keyed_leaves(tree), names(tree)
    assert len(set(named)) == len(named)
    if named != ["/".join(keys) for keys, _ in keyed]:
        assert [tuple(map(unquote, name.split("/"))) for name in named] == [keys for keys, _ in keyed]


def test_a_tree_of_one_array_has_a_name():
    """What is traced knows weights by their names: an empty one would be no weight."""
    assert named_leaves(1.0) == [("array", 1.0)]
    assert named_leaves([1.0]) == [("0", 1.0)]


def test_boxes_are_no_part_of_a_name():
    state = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    assert names(state) == ["bias", "kernel"]
    kernel = nn.with_partitioning(nn.initializers.ones, (None, "model"))
    variables = jax.eval_shape(nn.Dense(3, kernel_init=kernel).init, jax.random.key(0), jnp.ones((1, 2)))
    assert names(variables) == ["params/bias", "params/kernel"]
