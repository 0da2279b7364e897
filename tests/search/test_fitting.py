"""How a budget is met by files whose sizes are not those that were predicted."""

import pytest

from nncompress_jax.search.candidates import Ladder
from nncompress_jax.search.fitting import NEAR, RESERVED, Fitting

SIZES = tuple(range(100_000, 1_000, -100))
LADDER = Ladder("w", 100_000, (1.0,) * len(SIZES), SIZES, tuple(range(len(SIZES))), 1.0)


class Predicted(Fitting):
    """Files are larger than was predicted, and follow what is aimed at with a power of it."""

    def __init__(self, larger, power):
        self.ladders, self.around, self.tried = [LADDER], 0, []
        self.larger, self.follows = larger, power

    def power(self, room):
        return 1.0

    def size(self, choice):
        self.tried.append(choice)
        return round(20_000 * self.larger * (SIZES[choice[0]] / 20_000) ** self.follows)


@pytest.mark.parametrize("larger", [0.8, 1.0, 1.02, 1.3])
@pytest.mark.parametrize("follows", [0.3, 0.6, 1.0, 1.4])
def test_the_budget_is_met(larger, follows):
    fitting, budget = Predicted(larger, follows), 20_000 + RESERVED
    choice = fitting.held(budget)
    assert len(fitting.tried) <= (3 if follows == 1 else 5)
    assert NEAR * budget - 100 <= fitting.size(choice) + RESERVED <= budget  # steps are a hundred bytes apart


def test_the_coarsest_is_taken_where_no_other_is_small_enough():
    fitting = Predicted(1.0, 1.0)
    assert fitting.held(SIZES[-1] + RESERVED) == fitting.coarsest
    assert fitting.held(SIZES[-1] + RESERVED - 1) is None
