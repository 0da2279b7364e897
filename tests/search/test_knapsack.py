"""The knapsack beside all choices, tried one by one."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from nncompress_jax.search.knapsack import knapsack

ITEM = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 9)), min_size=1, max_size=4)


def of(items, places):
    """(loss, cost) of a choice."""
    chosen = [item[place] for item, place in zip(items, places, strict=True)]
    return sum(loss for _, loss in chosen), sum(cost for cost, _ in chosen)


def solved(items, budget, **options):
    costs, losses = ([[pair[i] for pair in item] for item in items] for i in (0, 1))
    return knapsack(costs, losses, budget, **options)


@settings(max_examples=200, deadline=None)
@given(st.lists(ITEM, min_size=1, max_size=5), st.integers(1, 60))
def test_it_is_the_best_and_of_equals_the_cheapest(items, budget):
    every = itertools.product(*(range(len(item)) for item in items))
    held = [of(items, places) for places in every if of(items, places)[1] <= budget]
    found = solved(items, budget, units=budget)
    assert (None if found is None else of(items, found)) == min(held, default=None)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1)), min_size=1, max_size=4), min_size=1, max_size=4),
    st.floats(1, 2e6),
)
def test_costs_between_units(items, budget):
    """The budget is held; nothing is better that leaves a unit for each item unused."""
    every = [*itertools.product(*(range(len(item)) for item in items))]
    found = solved(items, budget, units=512)
    assert (found is None) == (min(of(items, places)[1] for places in every) > budget)
    if found is None:
        return
    loss, cost = of(items, found)
    assert cost <= budget * (1 + 1e-9)
    room = budget * (1 - (len(items) + 1) / 512)
    assert all(other >= loss * (1 - 1e-9) - 1e-12 for other, taken in (of(items, p) for p in every) if taken <= room)
