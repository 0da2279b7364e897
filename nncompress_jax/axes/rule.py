"""What a rule says of one operation: where the entries of its operands come to stand."""

import dataclasses
from collections.abc import Callable, Sequence

from nncompress_jax.axes.places import Places

Shapes = Sequence[Sequence[int]]

Fill = float | None
"""The one value that entries have; None: not one known number."""

Fills = Callable[[Fill], Fill]
"""What a result is where all its operands are one value."""


def same(fill: Fill) -> Fill:
    """Entries are moved alone."""
    return fill


def zero_alone(fill: Fill) -> Fill:
    """Of zeros zero; of others another number."""
    return fill if fill == 0 else None


def unknown(fill: Fill) -> Fill:
    """Not zero, even where all operands are."""
    return None


@dataclasses.dataclass(frozen=True)
class AxisRule:
    """Of one equation.

    Attributes:
      results: for each result, of each operand, where its entries stand; None: none of them does.
      needed: of each operand, axes along which nothing can be left out.
      reason: why not, in words.
      padding: the operand that stands where none of the others does; None: there is none.
      addresses: operands that say where to read or write, and whose values the result does not show.
      fills: for each result, what it is where all operands are one value; by default that value.
    """

    results: Sequence[Sequence[Places | None]]
    needed: Sequence[frozenset[int]] = ()
    reason: str = ""
    padding: int | None = None
    addresses: frozenset[int] = frozenset()
    fills: Sequence[Fills] = ()

    def needs(self, operand: int) -> frozenset[int]:
        """Axes of an operand along which nothing can be left out."""
        return self.needed[operand] if operand < len(self.needed) else frozenset()

    def places(self, operand: int = 0, result: int = 0) -> Places:
        """Of an operand whose entries stand in a result."""
        found = self.results[result][operand]
        assert found is not None
        return found

    def fill(self, result: int) -> Fills:
        """What a result is where all operands are one value."""
        return self.fills[result] if result < len(self.fills) else same
