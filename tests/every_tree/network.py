"""A small network, relu(x W + b) V + c of matrices of 32 x 32, and what a kind of tree says of it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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
