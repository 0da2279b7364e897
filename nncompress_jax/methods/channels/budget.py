"""How many channels stay of each group, so that a budget is met."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from nncompress_jax.coupling.groups import Coupling, Group
from nncompress_jax.errors import InputError
from nncompress_jax.methods.selection import LeftAlone

TOLERANCE = 0.02
"""How far from what was asked a result may be, relative to it, without a warning."""

Masks = dict[str, np.ndarray]
"""By group, [size] bool: which channels stay."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """A share of what the uncut network has.

    Attributes:
      of: what is counted: "macs", "parameters" or "keep", channels of the groups that are cut.
      share: that stays.
    """

    of: str
    share: float

    def spent(self, coupled: Coupling, groups: Sequence[Group], masks: Masks) -> float:
        """The share that these masks leave."""
        if self.of == "keep":
            return sum(int(masks[group.name].sum()) for group in groups) / sum(group.size for group in groups)
        count = coupled.macs if self.of == "macs" else coupled.parameters
        return count(masks) / count({})


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Channels in the order in which they go.

    Attributes:
      groups: to cut.
      scores: by group, [size], the least important lowest.
      there: by group, which channels there are.
      scope: "layer": the same share of each group; "global": all channels compete.
      round_to: what stays of a group is a multiple of this.
      at_least: channels that stay of each group.
    """

    groups: Sequence[Group]
    scores: Mapping[str, np.ndarray]
    there: Masks
    scope: Literal["layer", "global"]
    round_to: int
    at_least: int

    def without(self, rate: float) -> Masks:
        """With this share of the channels cut, before rounding."""
        everything = np.sort(np.concatenate([*self.scores.values()]))
        least = everything[min(int(rate * len(everything)), len(everything) - 1)]
        masks = dict(self.there)
        for group in self.groups:
            own, there = self.scores[group.name], self.there[group.name]
            count = int((own >= least).sum()) if self.scope == "global" else round((1 - rate) * group.size)
            count = min(max(-(-count // self.round_to) * self.round_to, self.at_least), group.size)
            first = np.argsort(np.where(there, -own, np.inf), kind="stable")[:count]
            masks[group.name] = there & np.isin(np.arange(group.size), first)
        return masks


def within(coupled: Coupling, ranking: Ranking, budget: Budget) -> Masks:
    """The masks that come nearest to a budget, with a warning where that is not near.

    Raises:
      InputError: for a budget below what the ranking leaves at least.
    """

    def spent(masks: Masks) -> float:
        return budget.spent(coupled, ranking.groups, masks)

    least = spent(ranking.without(1.0))
    if budget.share < least * (1 - TOLERANCE):
        raise InputError(
            f"{budget.of}={budget.share}: {least:.4f} is the least that can be reached with "
            f"at_least={ranking.at_least}, round_to={ranking.round_to} and the groups that can be cut"
        )
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(ranking.without(middle)) > budget.share else (low, middle)
    # Between the two, group by group: those of one size would all lose a channel at once.
    more, less = ranking.without(low), ranking.without(high)
    names = [group.name for group in ranking.groups]
    between = [more | {name: less[name] for name in names[:count]} for count in range(len(names) + 1)]
    nearest = min(between, key=lambda masks: abs(spent(masks) - budget.share))
    if abs(spent(nearest) - budget.share) > TOLERANCE * budget.share:
        message = f"{budget.of}={budget.share}: the nearest that can be reached is {spent(nearest):.4f}"
        warnings.warn(message, LeftAlone, stacklevel=5)
    return nearest
