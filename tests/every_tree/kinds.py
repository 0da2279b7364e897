"""Trees of all kinds that hold one small network: relu(x W + b) V + c, matrices of 32 x 32.

Each is written as its users write it, and is asked for its arrays in its own way: nothing here is the package's.
"""

import collections
import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import flax
import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import nnx

WIDTH = 32
PLAIN = ("W", "b", "V", "c")


@dataclasses.dataclass
class Kind:
    """A tree and its network.

    Attributes:
      variables: the tree.
      apply: of (variables, x [4, 32]).
      parts: the arrays of a tree of this kind by name, W and V as [..., inputs, outputs].
      paths: of W and V.
      left: paths of what is named as weights are, and that no method can take.
      group: of channels that can be cut, between W and V.
    """

    variables: Any
    apply: Callable[..., Any]
    parts: Callable[[Any], dict[str, Any]]
    paths: tuple[str, ...]
    left: tuple[str, ...] = ()
    group: str = ""

    @property
    def x(self) -> Any:
        return jnp.asarray(np.random.default_rng(9).standard_normal((4, WIDTH)), jnp.float32)

    @property
    def weights(self) -> list[str]:
        return [name for name in ("W", "V") if name in self.parts(self.variables)]


def arrays(dtype=np.float32) -> tuple[Any, ...]:
    random = np.random.default_rng(0)
    shapes = [(WIDTH, WIDTH), WIDTH, (WIDTH, WIDTH), WIDTH]
    return tuple(jnp.asarray(random.standard_normal(shape), dtype) for shape in shapes)


def network(parts: dict[str, Any], x: Any) -> Any:
    """In the order and the types that all of these networks have."""
    w, b, v, c = (jnp.asarray(parts[name]) for name in PLAIN)
    return jax.nn.relu(x @ w + b) @ v + c


def of(variables: Any, parts: Callable[[Any], Any], *paths: str, **options: Any) -> Kind:
    """Of a tree whose network is written by hand."""

    def named(tree: Any) -> dict[str, Any]:
        return dict(zip(PLAIN, parts(tree), strict=True))

    return Kind(variables, lambda tree, x: network(named(tree), x), named, paths, **{"group": paths[0]} | options)


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


def converted(convert: Callable[[Any], Any]) -> Callable[[], Kind]:
    """The linen network with each leaf as this function makes it."""

    def kind() -> Kind:
        return of(jax.tree.map(convert, drawn_linen()), of_linen, *LINEN)

    return kind


def beside(*left: str, **extra: Callable[[], Any]) -> Callable[[], Kind]:
    """The linen network, with more leaves in its tree."""

    def kind() -> Kind:
        tree = drawn_linen()
        tree["params"] |= {name: make() for name, make in extra.items()}
        return of(tree, of_linen, *LINEN, left=left)

    return kind


def strided(leaf: Any) -> np.ndarray:
    return np.repeat(np.asarray(leaf), 2, axis=-1)[..., ::2]


def read_only(leaf: Any) -> np.ndarray:
    array = np.array(leaf)
    array.flags.writeable = False
    return array


def donated(leaf: Any) -> Any:
    copy = leaf + 0
    copy.delete()
    return copy


KINDS: dict[str, Callable[[], Kind]] = {
    "linen": linen,
    "FrozenDict": frozen,
    "linen, partitioned": partitioned,
    "NNX state": nnx_state,
    "NNX module": nnx_module,
    "whole numbers as keys": whole_numbers,
    "Haiku": haiku,
    "keys that read the same": colliding,
    "Equinox": equinox,
    "lists and tuples": lists,
    "named tuples": named_tuples,
    "ordered dict": ordered,
    "dataclasses": nodes,
    "dataclasses that cast": casting,
    "dataclasses that cast weights": casting_weights,
    "nodes without keys": without_keys,
    "one array": one_array,
    "stacked": stacked,
    "bfloat16": converted(lambda leaf: leaf.astype(jnp.bfloat16)),
    "float16": converted(lambda leaf: leaf.astype(jnp.float16)),
    "float64, enabled": converted(lambda leaf: np.asarray(leaf, np.float64)),
    "float64, not enabled": converted(lambda leaf: np.asarray(leaf, np.float64)),
    "numpy": converted(np.asarray),
    "numpy, bfloat16": converted(lambda leaf: np.asarray(leaf, ml_dtypes.bfloat16)),
    "big-endian": converted(lambda leaf: np.asarray(leaf, ">f4")),
    "column-major": converted(lambda leaf: np.asfortranarray(np.asarray(leaf))),
    "strided": converted(strided),
    "read-only": converted(read_only),
    "shapes alone": converted(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)),
    "NaN": converted(lambda leaf: leaf.at[..., 0].set(jnp.nan)),
    "donated": converted(donated),
    "float8": beside("params/small/kernel", small=lambda: {"kernel": jnp.ones((WIDTH, WIDTH), jnp.float8_e4m3fn)}),
    "an empty kernel": beside("params/empty/kernel", empty=lambda: {"kernel": jnp.zeros((0, WIDTH))}),
    "a scalar kernel": beside("params/scalar/kernel", scalar=lambda: {"kernel": jnp.float32(2)}),
    "a complex kernel": beside("params/wave/kernel", wave=lambda: {"kernel": jnp.ones((WIDTH, WIDTH), jnp.complex64)}),
    "whole numbers": beside(codes=lambda: {"kernel": jnp.ones((WIDTH, WIDTH), jnp.int32), "flags": np.ones(3, bool)}),
    "random keys": beside(key=lambda: jax.random.key(0), keys=lambda: jax.random.split(jax.random.PRNGKey(0), 2)),
    "numbers of Python": beside(factor=lambda: 2.5, count=lambda: 3, flag=lambda: True, one=lambda: np.float32(3)),
    "None": beside(nothing=lambda: None, empty=dict),
    "texts": beside(name=lambda: "same", names=lambda: ["a", "b"]),
    "functions": beside(activation=lambda: jax.nn.relu, module=lambda: Linen),
    "objects": beside(thing=object, words=lambda: np.array(["a"]), days=lambda: np.zeros(2, "M8[D]")),
}
