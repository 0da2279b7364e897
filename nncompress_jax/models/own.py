"""Networks of other people, linen's and NNX's, as the commands use networks."""

import dataclasses
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nncompress_jax.errors import InputError
from nncompress_jax.leaves import imported_nnx, is_key
from nncompress_jax.types import Array, Variables

TRAINING = {"train": True, "training": True, "is_training": True, "deterministic": False, "use_running_average": False}
"""Arguments by which networks are told that they train, and what they are then."""


@dataclasses.dataclass(frozen=True)
class OwnNetwork:
    """A network as the commands use it: a function of (variables, images [B, H, W, I]) -> logits [B, C].

    Attributes:
      name: package.module:function.
      make: the function: of `num_classes`, of `dtype` and, for NNX, of `rngs`, as far as it takes them.
      num_classes: C; None: what the function makes of itself.
      dtype: of the computation.
    """

    name: str
    make: Callable[..., Any]
    num_classes: int | None = None
    dtype: Any = None

    def copy(self, **options: Any) -> "OwnNetwork":
        """With other fields; those that it does not have do not matter to it."""
        known = {field.name for field in dataclasses.fields(self)}
        return dataclasses.replace(self, **{name: value for name, value in options.items() if name in known})

    def image_size(self, variables: Any) -> int | None:
        """Not known: the images decide."""
        return None

    def init(self, key: Array, images: Array) -> Variables:
        """Variables at random: "params", and what else the network holds."""
        return self._kind().init(key, images)

    def apply(self, variables: Variables, images: Array, train: bool = False, **options: Any) -> Any:
        """As linen's: logits, and with `mutable=` the collections that the call changed; `rngs=` for dropout."""
        return self._kind().apply(variables, images, train, **options)

    def _kind(self) -> "_Linen | _Nnx":
        module = self._made(jax.random.key(0))
        if isinstance(module, nn.Module):
            return _Linen(module)
        nnx = imported_nnx()
        if nnx is not None and isinstance(module, nnx.Module):
            return _Nnx(self._made)
        raise InputError(f"{self.name} gives a {type(module).__name__}: expected a module of linen or NNX")

    def _made(self, key: Array) -> Any:
        offered: dict[str, Any] = {"num_classes": self.num_classes, "dtype": self.dtype}
        if nnx := imported_nnx():
            offered["rngs"] = nnx.Rngs(key)
        taken = _parameters(self.make)
        return self.make(**{name: value for name, value in offered.items() if name in taken and value is not None})


def imported(name: str) -> OwnNetwork:
    """A network by the name of a function.

    Args:
      name: package.module:function, or package.module:Class; from the folder that Python runs in, too.

    Raises:
      InputError: where there is none.
    """
    module_name, _, attribute = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        made = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"
        raise InputError(f"--model={name} cannot be imported ({reason}); expected package.module:function") from error
    if not callable(made):
        raise InputError(f"--model={name} is a {type(made).__name__}; expected a function that returns a network")
    return OwnNetwork(name, made)


def _parameters(function: Callable[..., Any]) -> Mapping[str, Any]:
    return inspect.signature(function).parameters


class _Linen:
    def __init__(self, module: nn.Module):
        self._module = module
        self._flags = [name for name in _parameters(type(module).__call__) if name in TRAINING]

    def init(self, key: Array, images: Array) -> Variables:
        keys = dict(zip(("params", "dropout"), jax.random.split(key), strict=True))
        return {"params": {}, **self._module.init(keys, images, **self._told(False))}

    def apply(self, variables: Variables, images: Array, train: bool, **options: Any) -> Any:
        return self._module.apply(variables, images, **self._told(train), **options)

    def _told(self, train: bool) -> dict[str, Any]:
        return {name: TRAINING[name] is train for name in self._flags}


class _Nnx:
    """Its variables are dicts: {"params": of nnx.Param, "state": of all else but random keys, if there is anything}."""

    def __init__(self, make: Callable[[Array], Any]):
        self._make = make

    def init(self, key: Array, images: Array) -> Variables:
        _, params, _, state = _split(self._make(key))
        return {"params": _as_dict(params)} | ({"state": rest} if (rest := _as_dict(state)) else {})

    def apply(self, variables: Variables, images: Array, train: bool, *, mutable: Any = False, rngs: Any = None) -> Any:
        from flax import nnx

        key = next(iter(rngs.values())) if rngs else jax.random.key(0)
        module = nnx.eval_shape(lambda: self._make(jax.random.key(0)))
        (module.train if train else module.eval)()
        graph, params, keys, state = _split(module)
        keys = jax.tree.map(lambda leaf: key if is_key(leaf) else jnp.zeros(leaf.shape, leaf.dtype), keys)
        params, state = _filled(params, variables["params"]), _filled(state, variables.get("state", {}))
        module = nnx.merge(graph, params, keys, state)
        logits = module(images)
        if mutable is False:
            return logits
        return logits, ({"state": rest} if (rest := _as_dict(_split(module)[3])) else {})


def _split(module: Any) -> Any:
    """Its graph, and the states of parameters, of random keys, and of all else."""
    from flax import nnx

    return nnx.split(module, nnx.Param, nnx.RngState, ...)


def _as_dict(state: Any) -> dict[str, Any]:
    """A state of NNX as dicts with texts for keys, whatever its arrays are."""
    from flax import nnx

    result: dict[str, Any] = {}
    for path, variable in nnx.to_flat_state(state):
        *around, last = map(str, path)
        inner = result
        for key in around:
            inner = inner.setdefault(key, {})
        inner[last] = variable.get_value()
    return result


def _filled(state: Any, values: Mapping[str, Any]) -> Any:
    """A state of the same variables with other values."""
    from flax import nnx

    def value(path: Any) -> Any:
        found: Any = values
        for key in map(str, path):
            found = found[key]
        return found

    return nnx.from_flat_state([(path, variable.replace(value(path))) for path, variable in nnx.to_flat_state(state)])
