"""What each step of a weight takes, and costs."""

import numpy as np

import nncompress_jax as nnc
from nncompress_jax.methods.layout import context_of
from nncompress_jax.search.candidates import ladders
from nncompress_jax.search.reference import Reference
from nncompress_jax.search.stitching import PRICE
from tests.methods.drawn import draw


def test_after_second_order_rounding_what_outputs_lose():
    """Of one layer, half of the mean squared error of its outputs: no more than is left of errors that were spread."""
    x = np.maximum(draw(512, 40) @ draw(40, 40, seed=1), 0)
    variables, options = {"w": draw(40, 24, seed=2)}, {"apply": lambda tree, x: x @ tree["w"], "batches": [x]}
    reference = Reference(variables, context_of(variables, **options))
    (nearest,), (second,) = (ladders(reference, "w", rounding=rounding) for rounding in ("nearest", "second_order"))
    assert nearest.steps == second.steps[: len(nearest.steps)]
    rungs, ratios = range(4, 24, 5), []
    for rung in rungs:
        step = second.steps[rung]
        small = nnc.compress(
            variables, nnc.quantize(where="w", step=step, rounding="second_order", price=PRICE), **options
        )["w"]
        assert second.sizes[rung] == nnc.stored_size(small)
        lost = np.square(x @ (small.materialise() - variables["w"])).sum(-1).mean() / 2
        ratios.append(second.losses[rung] / lost)
        assert second.losses[rung] < nearest.losses[rung]
    assert np.all(np.abs(np.array(ratios) - 1) < 0.25)  # information is measured with signs by chance
    assert np.all(np.diff(second.losses) >= 0)
