"""The network in every container: modules, dicts, lists, dataclasses."""

import collections
import dataclasses
from typing import Any

import equinox as eqx
import flax
import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tests.every_tree.network import WIDTH, Kind, arrays, of


class Linen(nn.Module):
    kernel: Any = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(WIDTH, kernel_init=self.kernel)(x))
        return nn.Dense(WIDTH, kernel_init=self.kernel)(x)


def of_linen(tree: Any) -> tuple[Any, ...]:
    layers = tree["params"]
    return tuple(layers[f"Dense_{n}"][name] for n in (0, 1) for name in ("kernel", "bias"))


LINEN = ("params/Dense_0/kernel", "params/Dense_1/kernel")


def drawn_linen() -> dict[str, Any]:
    w, b, v, c = arrays()
    return {"params": {"Dense_0": {"kernel": w, "bias": b}, "Dense_1": {"kernel": v, "bias": c}}}


def linen() -> Kind:
    kind = of(drawn_linen(), of_linen, *LINEN)
    return dataclasses.replace(kind, apply=Linen().apply)


def frozen() -> Kind:
    kind = linen()
    return dataclasses.replace(kind, variables=flax.core.freeze(kind.variables))


def partitioned() -> Kind:
    """In the boxes that say how arrays lie on devices."""
    module = Linen(nn.with_partitioning(nn.initializers.lecun_normal(), (None, "model")))
    variables = module.init(jax.random.key(0), jnp.ones((1, WIDTH)))
    kind = of(variables, lambda tree: of_linen(nn.meta.unbox(tree)), *LINEN)
    return dataclasses.replace(kind, apply=module.apply)


class InNNX(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs, deterministic=True)
        self.second = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x):
        return self.second(self.dropout(nnx.relu(self.first(x))))


def of_nnx(model: Any) -> tuple[Any, ...]:
    return tuple(
        getattr(getattr(model, layer), name)[...] for layer in ("first", "second") for name in ("kernel", "bias")
    )


def nnx_state() -> Kind:
    """With the keys of its dropout."""
    graph, state = nnx.split(InNNX(nnx.Rngs(0)))
    kind = of(state, lambda tree: of_nnx(nnx.merge(graph, tree)), "first/kernel", "second/kernel")
    return dataclasses.replace(kind, apply=lambda state, x: nnx.merge(graph, state)(x))


def nnx_module() -> Kind:
    """The module itself."""
    kind = of(InNNX(nnx.Rngs(0)), of_nnx, "first/kernel", "second/kernel")
    return dataclasses.replace(kind, apply=lambda model, x: model(x))


def whole_numbers() -> Kind:
    """As `to_pure_dict` of an NNX list gives it."""
    w, b, v, c = arrays()
    layers = {0: {"kernel": w, "bias": b}, 1: {"kernel": v, "bias": c}}
    return of(
        {"layers": layers},
        lambda tree: [tree["layers"][n][name] for n in (0, 1) for name in ("kernel", "bias")],
        "layers/0/kernel",
        "layers/1/kernel",
    )


def haiku() -> Kind:
    w, b, v, c = arrays()
    tree = {"mlp/~/linear_0": {"w": w, "b": b}, "mlp/~/linear_1": {"w": v, "b": c}}
    return of(
        tree,
        lambda tree: [tree[f"mlp/~/linear_{n}"][name] for n in (0, 1) for name in ("w", "b")],
        "mlp/~/linear_0/w",
        "mlp/~/linear_1/w",
    )


def colliding() -> Kind:
    """Two leaves whose keys read the same, joined by slashes."""
    w, b, v, c = arrays()
    tree = {"a": {"b": {"w": w, "bias": b}}, "a/b": {"w": v, "bias": c}}
    return of(
        tree,
        lambda tree: [tree["a"]["b"]["w"], tree["a"]["b"]["bias"], tree["a/b"]["w"], tree["a/b"]["bias"]],
        "a/b/w",
        "a%2Fb/w",
    )


def equinox() -> Kind:
    """With functions among its leaves, and weights [outputs, inputs]."""
    model = eqx.nn.MLP(WIDTH, WIDTH, WIDTH, 1, key=jax.random.key(0))

    def parts(tree: Any) -> list[Any]:
        first, second = tree.layers
        return [first.weight.T, first.bias, second.weight.T, second.bias]

    kind = of(model, parts, "layers/0/weight", "layers/1/weight", group="layers/0/weight[0]")
    return dataclasses.replace(kind, apply=lambda tree, x: jax.vmap(tree)(x))


def lists() -> Kind:
    w, b, v, c = arrays()
    return of([(w, b), [v, c]], lambda tree: [*tree[0], *tree[1]], "0/0", "1/0")


Layer = collections.namedtuple("Layer", "w b")


def named_tuples() -> Kind:
    w, b, v, c = arrays()
    return of((Layer(w, b), Layer(v, c)), lambda tree: [*tree[0], *tree[1]], "0/w", "1/w")


def ordered() -> Kind:
    """In an order of its own."""
    w, b, v, c = arrays()
    tree = collections.OrderedDict(second=Layer(v, c), first=Layer(w, b))
    return of(tree, lambda tree: [*tree["first"], *tree["second"]], "first/w", "second/w")


@flax.struct.dataclass
class Node:
    w: Any
    b: Any
    name: str = flax.struct.field(pytree_node=False, default="node")


def nodes() -> Kind:
    w, b, v, c = arrays()
    return of([Node(w, b), Node(v, c)], lambda tree: [tree[0].w, tree[0].b, tree[1].w, tree[1].b], "0/w", "1/w")


@flax.struct.dataclass
class Casting:
    """As those of physics engines: each time that one is made, its fields are looked at."""

    b: Any
    steps: Any

    def __post_init__(self):
        if self.b.ndim != 1 or self.steps.dtype.kind not in "iu":
            raise TypeError("expected a vector and whole numbers")
        object.__setattr__(self, "b", self.b.astype(jnp.float32))


def casting() -> Kind:
    w, b, v, c = arrays()
    tree = {"first": {"w": w, "rest": Casting(b, jnp.arange(3))}, "second": {"w": v, "rest": Casting(c, jnp.arange(3))}}
    return of(
        tree,
        lambda tree: [part for layer in tree.values() for part in (layer["w"], layer["rest"].b)],
        "first/w",
        "second/w",
    )


@jax.tree_util.register_pytree_node_class
class WithoutKeys:
    """A node that gives its leaves no names."""

    def __init__(self, w, b):
        self.w, self.b = w, b

    def tree_flatten(self):
        return (self.w, self.b), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


@flax.struct.dataclass
class CastingWeights:
    w: Any
    b: Any

    def __post_init__(self):
        object.__setattr__(self, "w", jnp.asarray(self.w, jnp.float32))


def casting_weights() -> Kind:
    w, b, v, c = arrays()
    tree = [CastingWeights(w, b), CastingWeights(v, c)]
    return of(tree, lambda tree: [tree[0].w, tree[0].b, tree[1].w, tree[1].b], "0/w", "1/w")


def without_keys() -> Kind:
    w, b, v, c = arrays()
    tree = [WithoutKeys(w, b), WithoutKeys(v, c)]
    return of(tree, lambda tree: [tree[0].w, tree[0].b, tree[1].w, tree[1].b], "0/0", "1/0")


def one_array() -> Kind:
    """The tree is its only leaf."""
    return Kind(arrays()[0], lambda tree, x: x @ tree, lambda tree: {"W": tree}, ("array",))


def stacked() -> Kind:
    """Layers of `scan`, the second a hundred times the first."""
    layers = {
        "kernel": np.stack([arrays()[0] * scale for scale in (0.1, 10.0)]),
        "bias": np.zeros((2, WIDTH), np.float32),
    }

    def apply(tree: Any, x: Any) -> Any:
        return jax.lax.scan(lambda x, layer: (jnp.tanh(x @ layer["kernel"] + layer["bias"]), None), x, tree["layers"])[
            0
        ]

    return Kind({"layers": layers}, apply, lambda tree: {"W": tree["layers"]["kernel"]}, ("layers/kernel",))
