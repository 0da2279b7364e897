"""How many channels stay, chosen together with the steps of the weights."""

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

from nncompress_jax.errors import InputError
from nncompress_jax.measurements import Measurements
from nncompress_jax.methods.channels import criteria
from nncompress_jax.methods.channels.pruning import chosen, prune_channels
from nncompress_jax.methods.selection import LeftAlone, network
from nncompress_jax.search.candidates import ladders
from nncompress_jax.search.fitting import RESERVED, Choice, Fitting, whole_bytes
from nncompress_jax.search.reference import Reference
from nncompress_jax.search.stitching import Stitching, estimated
from nncompress_jax.tracing.fisher import Likelihood
from nncompress_jax.tree import Where

SHARES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.17, 0.12, 0.08, 0.06, 0.04)
"""Of the multiply-accumulates that stay: what is tried."""

BITS = 0.75
"""A file's bits for each entry of the weights that stay, with which the search begins."""

PLENTY = 1.0
"""Bits for each entry of all weights, from which on all channels stay. Files with fewer channels have more accuracy at
0.18 bits of VGG16 and 0.64 of VGG16-DS with strides, and less at 0.64 and 1.6 bits.
"""


LOST = 0.5
"""An error from which on a network says little: with fewer channels it may still say more."""


@dataclasses.dataclass(frozen=True)
class Small:
    """A network that was chosen.

    Attributes:
      macs: share of the multiply-accumulates that was to stay.
      fitting: of the network without the channels that went.
      choice: of the steps.
    """

    macs: float
    fitting: Fitting
    choice: Choice

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.fitting.size(self.choice)

    @property
    def made(self) -> Any:
        """The variables."""
        return self.fitting.made(self.choice)


@dataclasses.dataclass(eq=False)
class Cutting:
    """A network without more and more of its channels, and with steps for its weights.

    Attributes:
      reference: the network as it was.
      stitching: how steps become a network.
      measurements: of networks that are known.
      where: as of `auto`; where it names weights, all channels stay by default.
      macs: the share of the multiply-accumulates that stays; by default some of `SHARES` are tried.
      likelihood: as of `auto`.
    """

    reference: Reference
    stitching: Stitching
    measurements: Measurements
    where: Where = None
    macs: float | None = None
    likelihood: Likelihood = "gaussian"

    def __post_init__(self) -> None:
        self._cut: dict[float, Reference] = {1.0: self.reference}
        self._fittings: dict[float, Fitting] = {}

    @functools.cached_property
    def shares(self) -> tuple[float, ...]:
        """Of the multiply-accumulates, from large to small: what may stay."""
        if self.macs is not None:
            return (self.macs,)
        return SHARES if self.where is None and can_be_cut(self.reference) else SHARES[:1]

    @functools.cached_property
    def _matter(self) -> criteria.Criterion:
        apply, _ = network(self.reference.context, "auto")
        variables, batches = self.reference.variables, self.reference.context.batches
        return criteria.summed(criteria.obd(apply, variables, batches, likelihood=self.likelihood))

    def cut(self, macs: float) -> Reference:
        """Without the channels that matter least, and with the statistics of batch normalization as they are then.

        Args:
          macs: share of the multiply-accumulates that stays.
        """
        if macs not in self._cut:
            variables, context = self.reference.variables, self.reference.context
            with warnings.catch_warnings():
                if self.macs is None:  # what is asked for is only near
                    warnings.simplefilter("ignore", LeftAlone)
                cut = prune_channels(macs=macs, criterion=self._matter, reconstruct=True)(variables, context)
            self._cut[macs] = Reference(estimated(cut, self.reference), context)
        return self._cut[macs]

    def fitting(self, macs: float) -> Fitting:
        """Of the network without channels."""
        if macs not in self._fittings:
            cut, rounding, measurements = self.cut(macs), self.stitching.rounding, self.measurements
            found = ladders(cut, self.where, rounding=rounding, likelihood=self.likelihood, measurements=measurements)
            self._fittings[macs] = Fitting(cut, found, self.stitching, measurements)
        return self._fittings[macs]

    @functools.cached_property
    def smallest(self) -> Small:
        """With as few channels as may be, and the coarsest steps."""
        every = (self._small(macs, 0, lambda fitting, _: fitting.coarsest) for macs in reversed(self.shares))
        return next(small for small in every if small)

    def within(self, budget: float, name: str) -> Small:
        """The best network whose file is no larger than so many bytes.

        Args:
          budget: bytes of the file.
          name: of the budget, for errors.

        Raises:
          InputError: for less than the coarsest steps take.
        """
        found = self.best(budget, Fitting.held)
        if found is None:
            least, size = self.smallest, self.smallest.size + RESERVED
            cut = f" and {least.macs:g} of the multiply-accumulates" if least.macs < 1 else ""
            raise InputError(
                f"{name}: with the coarsest steps{cut} a file has {size:,} bytes, {least.fitting.share(size):.4f} of "
                "the uncompressed arrays; allow as many, or cut more channels, with a smaller macs="
            )
        return found

    def best(
        self,
        budget: float,
        choose: Callable[[Fitting, float], Choice | None],
        error: Callable[[Small], float] | None = None,
        *,
        least: float = 0.0,
        most: float = 1.0,
    ) -> Small | None:
        """Of the networks that are tried, the one that errs least.

        Errors first become less as channels go, since more bits are left for the others, and then grow: from where the
        search begins, it goes in either direction while they become less.

        Args:
          budget: bytes of the file.
          choose: the steps for it: `Fitting.held`, or `Fitting.aimed`.
          error: by default the squared distance of the outputs for the batches from what they were, as a share of
            their variance.
          least: share of the multiply-accumulates that stays at least, where it is known; most likewise.
        """
        shares = [share for share in self.shares if least <= share <= most]
        if len(shares) == 1:
            return self._small(shares[0], budget, choose)
        tried: dict[int, tuple[float, Small | None]] = {}

        def of(place: int) -> float:
            if place not in tried:
                small = self._small(shares[place], budget, choose)
                tried[place] = (math.inf if small is None else (error or self._error)(small)), small
            return tried[place][0]

        bits, last = 32 * budget / whole_bytes(self.reference.variables), len(shares) - 1
        place = next((place for place, share in enumerate(shares) if bits >= BITS * share), last)
        while of(place) >= LOST and place < last:
            place += 1
        for further in (1, -1) if place or bits < PLENTY else ():
            while 0 <= place + further <= last and of(place + further) < of(place):
                place += further
        return tried[place][1]

    def _small(self, macs: float, budget: float, choose: Callable[[Fitting, float], Choice | None]) -> Small | None:
        try:
            fitting = self.fitting(macs)
        except InputError:
            if macs == self.shares[0]:
                raise
            return None  # groups of channels end before
        choice = choose(fitting, budget)
        return None if choice is None else Small(macs, fitting, choice)

    def _error(self, small: Small) -> float:
        found = small.fitting.figures(small.choice, "distance", lambda made: {"error": self.reference.error(made)})
        return float(found["error"]) / (self.reference.variance or 1.0)


def can_be_cut(reference: Reference) -> bool:
    """Whether there are channels that can go."""
    apply, batches = network(reference.context, "auto")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            chosen(apply, reference.variables, batches, None)
        except InputError:
            return False
    return True
