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


class Uneven(Fitting):
    """Ten weights whose coarsest steps save far more than was predicted, and others less."""

    def __init__(self):
        self.around, self.tried = 0, []
        self.ladders = [
            Ladder(f"w{i}", 1000, (1.0, 2.0, 4.0), (1000, 900, 950), (0, 0.5, (7 * i) % 10 + 1), 1.0) for i in range(10)
        ]

    def power(self, room):
        return 1.0

    def size(self, choice):
        self.tried.append(choice)
        return sum((1100, 1000, 100)[rung] for rung in choice)


@pytest.mark.parametrize("most", [10_000, 9999, 9100, 8950, 5600, 4700, 1900, 1000])
def test_below_what_can_be_predicted_as_few_weights_as_can_be_are_coarsest(most):
    """By hand: each weight saves 900 bytes, and those of the least loss go first."""
    fitting = Uneven()
    needed = -(-(10_000 - most) // 900)
    cheapest = sorted(range(10), key=lambda i: (7 * i) % 10 + 1)[:needed]
    assert fitting.held(most + RESERVED) == tuple(1 + (i in cheapest) for i in range(10))
    assert fitting.held(999 + RESERVED) is None
