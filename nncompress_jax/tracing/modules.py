"""Functions of NNX modules as functions of their states."""

from collections.abc import Callable
from typing import Any

import jax

from nncompress_jax.leaves import imported_nnx
from nncompress_jax.types import Apply


def is_module(x: Any) -> bool:
    """Whether it is a module of NNX; where NNX was not imported, none is."""
    nnx = imported_nnx()
    return nnx is not None and isinstance(x, nnx.Module)


def of_state(apply: Apply, args: Any, kwargs: Any) -> tuple[Callable[..., Any], tuple[Any, Any], Callable[[Any], Any]]:
    """A call with modules among its arguments, as one with their state.

    Args:
      apply: any function.
      args: of the call.
      kwargs: likewise.

    Returns:
      A function, its arguments, the state of the modules first, and a function of what it returns: it sets batch
      statistics and what else the call changed, parameters aside, in the modules that came in, and gives the outputs.
    """
    from flax import nnx

    leaves, structure = jax.tree.flatten((args, kwargs), is_leaf=is_module)
    modules = {place: leaf for place, leaf in enumerate(leaves) if is_module(leaf)}
    graph, state = nnx.split(modules)

    def pure(state: Any, others: Any) -> Any:
        merged = nnx.merge(graph, state)
        args, kwargs = jax.tree.unflatten(structure, [merged.get(place, leaf) for place, leaf in enumerate(others)])
        outputs = apply(*args, **kwargs)
        return outputs, nnx.state(merged, nnx.Not(nnx.Param))

    def put_back(returned: Any) -> Any:
        outputs, changed = returned
        nnx.update(modules, changed)
        return outputs

    return pure, (state, [None if place in modules else leaf for place, leaf in enumerate(leaves)]), put_back
