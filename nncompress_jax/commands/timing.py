"""How long calls take, side by side."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax


def fastest(runs: Sequence[Callable[[], Any]], *, turns: int, seconds: float = 0.0) -> list[float]:
    """Seconds of a call of each, the least of all turns: what else the machine does only adds.

    Args:
      runs: what is timed; each is called once before, so that it is compiled.
      turns: of each, one after the other, so that a busy moment meets all of them.
      seconds: a turn takes at least so long, and one call.

    Example:
      >>> all(found > 0 for found in fastest([lambda: sum(range(100)), lambda: None], turns=2))
      True
    """
    for run in runs:
        jax.block_until_ready(run())
    best = [math.inf] * len(runs)
    for _ in range(turns):
        for place, run in enumerate(runs):
            begin, spent, calls = time.perf_counter(), 0.0, 0
            while not calls or spent < seconds:
                jax.block_until_ready(run())
                spent, calls = time.perf_counter() - begin, calls + 1
            best[place] = min(best[place], spent / calls)
    return best
