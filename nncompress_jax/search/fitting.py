"""Networks whose files have at most so many bytes."""

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from nncompress_jax.artifact.size import stored_size
from nncompress_jax.measurements import Measurements
from nncompress_jax.methods.selection import replaced
from nncompress_jax.methods.steps import base_path
from nncompress_jax.search.candidates import Ladder, fingerprint, nearest
from nncompress_jax.search.knapsack import knapsack
from nncompress_jax.search.reference import Reference
from nncompress_jax.search.stitching import Stitching, file_bytes
from nncompress_jax.tree import stored_bytes
from nncompress_jax.types import Array
from nncompress_jax.weights.base import dense, is_compressed
from nncompress_jax.weights.quantized import Quantized

RESERVED = 512
"""Bytes of a budget that are left for what a file says of its network."""

NEAR = 0.985
"""The share of a budget with which a network is taken; what is aimed at is the middle between it and the whole."""

ROUNDS, MOST_ROUNDS = 6, 18
"""Networks that are tried for a budget; while none of them holds it, up to the second number."""

LEAST_SLOPE = 0.25
"""With which sizes are taken to follow what is aimed at."""

POWERS = (1.0, 0.5, 0.25, 0.0)
"""With which the mean information of weights may count: between weights it says too much where steps are large, and
with 0 all have nearly the same step. In rounding to nearest the one is taken whose network has the nearest outputs."""

POWER = 0.25
"""In second-order rounding, where each try takes long. Of VGG16-DS at 5, 3 and 2 % outputs came nearest with it, or as
near as with any other of `POWERS`.
"""

Choice = tuple[int, ...]
"""The rung of each ladder."""


@dataclasses.dataclass
class Fitting:
    """Chooses steps, makes the network, and measures its file.

    Attributes:
      reference: the network that steps are chosen for.
      ladders: of the weights.
      stitching: how steps become a network.
      measurements: of networks that are known.
    """

    reference: Reference
    ladders: Sequence[Ladder]
    stitching: Stitching
    measurements: Measurements

    def __post_init__(self) -> None:
        self.fingerprint = fingerprint(self.reference) | dataclasses.asdict(self.stitching)
        self._latest: tuple[Choice, Any, list[Any]] | None = None
        subject = self.fingerprint | {"around": [ladder.path for ladder in self.ladders]}
        self.around = int(self.measurements.of(subject, lambda: {"bytes": self._around()})["bytes"])

    def held(self, budget: float) -> Choice | None:
        """The best steps whose file is no larger than so many bytes; None for less than the coarsest steps take."""
        aim = room = budget - RESERVED - self.around
        power = self.power(room)
        held: list[Choice] = []
        larger: list[Choice] = []
        middle = (1 + NEAR) / 2 * budget - RESERVED - self.around
        before: tuple[float, float] | None = None
        for turn in range(MOST_ROUNDS):
            choice = self.predicted(aim, power)
            if choice is None or choice in held:
                break
            size = self.size(choice) + RESERVED
            (held if size <= budget else larger).append(choice)
            if NEAR * budget <= size <= budget or (held and turn + 1 >= ROUNDS):
                break
            weights = max(size - RESERVED - self.around, 1)
            slope = _slope(before, (aim, weights)) if before else 1.0
            before = aim, weights
            aim *= min(max((middle / weights) ** (1 / slope), 0.5), 1.5)
        if not held and self.size(self.coarsest) + RESERVED <= budget:
            smallest = tuple(min(range(len(ladder.sizes)), key=ladder.sizes.__getitem__) for ladder in self.ladders)
            held.append(self._coarsened(min([*larger, smallest], key=self.size), budget, power))
        return min(held, key=functools.partial(self.loss, power=power), default=None)

    def _coarsened(self, choice: Choice, budget: float, power: float) -> Choice:
        """Where no prediction is small enough: as few weights as can be take their coarsest steps, those that lose the
        least by it; found by halving."""
        losses = [ladder.weighed(power) for ladder in self.ladders]
        order = sorted(range(len(choice)), key=lambda place: losses[place][-1] - losses[place][choice[place]])

        def first(count: int) -> Choice:
            chosen = set(order[:count])
            return tuple(self.coarsest[at] if at in chosen else rung for at, rung in enumerate(choice))

        few, many = -1, len(order)
        while many - few > 1:
            middle = (few + many) // 2
            few, many = (few, middle) if self.size(first(middle)) + RESERVED <= budget else (middle, many)
        return first(many)

    @property
    def coarsest(self) -> Choice:
        """The last rung of each ladder."""
        return tuple(len(ladder.steps) - 1 for ladder in self.ladders)

    def predicted(self, room: float, power: float) -> Choice | None:
        """The steps of the least loss whose weights take no more than so many bytes."""
        losses = [ladder.weighed(power) for ladder in self.ladders]
        found = knapsack([ladder.sizes for ladder in self.ladders], losses, room) if room > 0 else None
        return None if found is None else tuple(found)

    def aimed(self, size: float) -> Choice | None:
        """The best steps that are predicted to take, with all else, so many bytes."""
        room = size - self.around
        return self.predicted(room, self.power(room))

    def power(self, room: float) -> float:
        """With which the information counts for weights of so many bytes."""
        if self.stitching.rounding == "second_order":
            return POWER
        quick = dataclasses.replace(self.stitching, short=False)
        errors = {}
        for power in POWERS:
            choice = self.predicted(room, power)
            if choice is None:
                return POWERS[0]
            subject = self.fingerprint | {"steps": self.steps(choice), "measured": "error"}
            make = functools.partial(quick, self.reference, self.steps(choice))
            errors[power] = self.measurements.of(subject, functools.partial(self._error, make))["error"]
        return min(errors, key=lambda power: errors[power])

    def _error(self, make: Callable[[], Any]) -> dict[str, float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {"error": self.reference.error(make())}

    def steps(self, choice: Choice) -> dict[str, float]:
        """By path."""
        return {ladder.path: ladder.steps[rung] for ladder, rung in zip(self.ladders, choice, strict=True)}

    def loss(self, choice: Choice, power: float = 1.0) -> float:
        """Of all weights."""
        return sum(ladder.weighed(power)[rung] for ladder, rung in zip(self.ladders, choice, strict=True))

    def share(self, size: float) -> float:
        """Of the bytes of all arrays, uncompressed."""
        return size / whole_bytes(self.reference.variables)

    def size(self, choice: Choice) -> int:
        """Bytes of the file."""
        return int(self.figures(choice, "bytes", lambda made: {"bytes": file_bytes(made)})["bytes"])

    def figures(self, choice: Choice, of: str, measure: Any) -> Mapping[str, Any]:
        """What a function of the network says, unless it is known."""
        subject = self.fingerprint | {"steps": self.steps(choice), "measured": of}
        return self.measurements.of(subject, lambda: measure(self.made(choice, speak=False)))

    def made(self, choice: Choice, *, speak: bool = True) -> Any:
        """The network with these steps; what warnings its making gave is said where it is kept."""
        if self._latest is None or self._latest[0] != choice:
            self._latest = None
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                made = self.stitching(self.reference, self.steps(choice))
            self._latest = choice, made, caught
        for warning in self._latest[2] if speak else ():
            warnings.warn(warning.message, stacklevel=4)
        return self._latest[1]

    def _around(self) -> int:
        """Bytes of everything but the weights."""
        steps, sizes = self.steps(self.coarsest), []

        def rounded(path: str, leaf: Array) -> Quantized:
            made = nearest(leaf, steps[path])
            sizes.append(stored_size(made))
            return made

        where = {base_path(path) for path in steps}.__contains__
        variables, context = self.reference.variables, self.reference.context
        made = replaced(variables, where, rounded, makes=Quantized, context=context)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return file_bytes(self.stitching.folded(made, context)) - sum(sizes)


def _slope(before: tuple[float, float], now: tuple[float, float]) -> float:
    """Of the logarithm of a size against that of what was aimed at; codes that make up for others have larger ones."""
    aims, sizes = (math.log(later / earlier) for earlier, later in zip(before, now, strict=True))
    return min(max(sizes / aims, LEAST_SLOPE), 1 / LEAST_SLOPE) if aims else 1.0


def whole_bytes(variables: Any) -> int:
    """Bytes of all arrays, uncompressed."""
    leaves = jax.tree.leaves(variables, is_leaf=is_compressed)
    return stored_bytes([jax.eval_shape(dense, leaf) if is_compressed(leaf) else leaf for leaf in leaves])
