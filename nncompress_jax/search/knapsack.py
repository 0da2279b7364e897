"""One choice for each of several items, at the least loss within a budget."""

import math
from collections.abc import Sequence

import numpy as np

UNITS = 2**16
"""Into which the budget is divided. Costs are rounded up to them, so that the budget is held."""


def knapsack(
    costs: Sequence[Sequence[float]], losses: Sequence[Sequence[float]], budget: float, *, units: int = UNITS
) -> list[int] | None:
    """The choices with the least sum of losses, by dynamic programming; of equal ones the cheapest.

    Args:
      costs: of the choices of each item, more than or equal to zero.
      losses: likewise.
      budget: that the sum of the costs may reach.
      units: of the budget; each item may leave one of them unused.

    Returns:
      The place of the choice of each item; None, where even the cheapest cost more.

    Example:
      >>> knapsack([[1, 4, 6], [1, 3]], [[9, 2, 0], [5, 1]], 5)
      [0, 1]

    Source: Sinha and Zoltners 1979, "The Multiple-Choice Knapsack Problem".
    """
    cheapest = [int(np.lexsort((loss, cost))[0]) for cost, loss in zip(costs, losses, strict=True)]
    if sum(cost[place] for cost, place in zip(costs, cheapest, strict=True)) > budget:
        return None
    unit = budget / units or 1.0
    best, taken = np.zeros(units + 1), []
    for cost, loss in zip(costs, losses, strict=True):
        least, choice = np.full(units + 1, np.inf), np.zeros(units + 1, np.int32)
        for place in np.lexsort((loss, cost)):
            width = math.ceil(cost[place] / unit - 1e-9)
            if width > units:
                break
            total = best[: units + 1 - width] + loss[place]
            better = total < least[width:]
            least[width:][better] = total[better]
            choice[width:][better] = place
        best = least
        taken.append(choice)
    if not np.isfinite(best[units]):  # the cheapest fit, and not with what rounding up takes
        return cheapest
    left, places = int(np.argmin(best)), []
    for cost, choice in zip(reversed(costs), reversed(taken), strict=True):
        places.append(int(choice[left]))
        left -= math.ceil(cost[places[-1]] / unit - 1e-9)
    return places[::-1]
