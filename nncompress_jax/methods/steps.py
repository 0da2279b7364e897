"""The steps between the values of quantized weights: given, or found for a number of bits after entropy coding."""

import dataclasses
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax.errors import InputError
from nncompress_jax.methods.rate import rounded, step_of_rate
from nncompress_jax.tree import Where, named_leaves
from nncompress_jax.types import Array
from nncompress_jax.weights.base import is_compressed

Steps = float | Mapping[str, Any] | Callable[[str, Array], Any]
"""One step for all weights, by path, or a function of (path, array). A step is a number above zero, or an array of
them that broadcasts to the weight and has its rank."""


class Clipped(UserWarning):
    """Weights that steps of the given size do not reach, and how many."""


@dataclasses.dataclass
class GivenSteps:
    """Weights -> codes, by steps that are given or found; what is wrong with any is said once, at the end.

    Attributes:
      step: as `quantize` has it; None where there is a rate.
      rate: bits of entropy for each weight; None where there is a step.
      bits: of the codes.
      wrong: what is wrong with the steps, by path.
      clipped: codes that were clipped, by path.
    """

    step: Steps | None
    rate: float | None
    bits: int
    wrong: dict[str, str] = dataclasses.field(default_factory=dict)
    clipped: dict[str, int] = dataclasses.field(default_factory=dict)

    def codes(self, path: str, leaf: Array) -> tuple[Array, Array, None]:
        """Codes of the leaf's shape, int8, and the scale, float32 of its rank; there are no zero points."""
        scale = self._given(path, leaf) if self.rate is None else step_of_rate(leaf, self.rate, self.bits)
        if scale is None:
            scale = np.ones((1,) * leaf.ndim, np.float32)
        scale = jnp.asarray(scale, jnp.float32).reshape(jnp.shape(scale) or (1,) * leaf.ndim)
        codes, beyond = rounded(leaf, scale, self.bits)
        if not isinstance(beyond, jax.core.Tracer) and beyond:
            self.clipped[path] = int(beyond)
        return codes, scale, None

    def finish(self) -> None:
        """Raises InputError for steps that are none, all named; warns of what was clipped, in one line."""
        if self.wrong:
            raise InputError(", ".join(f"{path}: {wrong}" for path, wrong in self.wrong.items()))
        if self.clipped:
            most = 2 ** (self.bits - 1) - 1
            paths = ", ".join(f"{path} ({count:,})" for path, count in self.clipped.items())
            total = sum(self.clipped.values())
            message = f"{total:,} weights clipped to {most} steps: {paths}; larger steps would reach them"
            warnings.warn(message, Clipped, stacklevel=3)

    def _given(self, path: str, leaf: Array) -> Any:
        step = self.step
        if isinstance(step, Mapping):
            step = step.get(path, step.get(base_path(path)))
        elif callable(step):
            step = step(path, leaf)
        shape = np.shape(step) if step is not None else ()
        if step is None:
            self.wrong[path] = "no step for it; expected a number by this path"
        elif shape and (
            len(shape) != leaf.ndim or any(n not in (1, m) for n, m in zip(shape, leaf.shape, strict=True))
        ):
            self.wrong[path] = (
                f"steps {list(shape)} for {list(leaf.shape)}; expected a number, or 1 or all along each axis"
            )
        elif not isinstance(step, jax.core.Tracer) and not _are_steps(step):
            self.wrong[path] = f"step {str(step)[:20]}; expected more than zero"
        else:
            return step
        return None


def check_given(step: Steps | None, rate: float | None, others: Mapping[str, Any]) -> None:
    """Raises InputError for what does not go together.

    Args:
      step: as `quantize` has it.
      rate: likewise.
      others: arguments that say otherwise which weights share a scale; None or False where they say nothing.
    """
    if step is None and rate is None:
        return
    if step is not None and rate is not None:
        raise InputError("step= and rate= both say how large a step is; expected one of them")
    if given := [name for name, value in others.items() if value]:
        raise InputError(f"{', '.join(given)} with {'step' if rate is None else 'rate'}=; leave one of them out")
    if rate is not None and not 0 < rate <= 8:
        raise InputError(f"rate={rate}: expected bits for each weight, more than 0 and at most 8")
    if step is not None and not isinstance(step, Mapping) and not callable(step) and not _are_steps(step):
        raise InputError(
            f"step={str(step)[:20]}: expected a number above zero, {{path: step}}, or (path, array) -> step"
        )


def chosen(step: Steps | None, where: Where, variables: Any) -> Where:
    """Which leaves are quantized: of steps by path, without `where`, those that have one.

    Raises:
      InputError: for steps of leaves that are not there, all named.
    """
    if not isinstance(step, Mapping):
        return where
    named = {base_path(path) for path in step}
    paths = [path for path, _ in named_leaves(variables, is_compressed)]
    if strange := sorted(named.difference(paths)):
        some = ", ".join(paths[:4])
        raise InputError(f"step= for {', '.join(strange)}, which are not there; expected paths of leaves, as {some}")
    return where or (lambda path: path in named)


def base_path(path: str) -> str:
    """The leaf in which this part stands, of sparse values and factors."""
    return re.sub(r"(/values|/factors/\d+)+$", "", path)


def _are_steps(step: Any) -> bool:
    try:
        values = np.asarray(step, np.float32)
    except (TypeError, ValueError):
        return False
    return bool(np.isfinite(values).all() and (values > 0).all())
