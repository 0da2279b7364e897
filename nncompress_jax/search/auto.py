"""One budget over everything: steps for every weight, chosen together, so that the file is as small as was asked."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nncompress_jax.errors import InputError
from nncompress_jax.measurements import Measurements
from nncompress_jax.methods.rounding import Rounding, check_rounding
from nncompress_jax.methods.selection import network
from nncompress_jax.search.candidates import tables
from nncompress_jax.search.cutting import Cutting, Small
from nncompress_jax.search.drop import Drop, Measure, measure_of, paired
from nncompress_jax.search.fitting import Fitting, whole_bytes
from nncompress_jax.search.reference import Reference
from nncompress_jax.search.stitching import Stitching, file_bytes
from nncompress_jax.table import Table
from nncompress_jax.tracing.fisher import Likelihood
from nncompress_jax.tree import Where
from nncompress_jax.types import Context, Method

FINENESS = 1.06
"""The ratio of two file sizes between which `max_drop` looks no further."""


@dataclasses.dataclass(frozen=True)
class Found:
    """What `auto` chose.

    Attributes:
      table: a row for each weight that got a step.
      candidates: a row for each step that a weight could have got; `report.plots.steps(candidates.rows, title, path)`
        draws it.
      size_bytes: of the file.
      share: of the bytes of all arrays, uncompressed.
      macs: the share of the multiply-accumulates that channels were cut to; 1 where all stayed.
      drop: of accuracy, where it was measured.
    """

    table: Table
    candidates: Table
    size_bytes: int
    share: float
    macs: float = 1.0
    drop: Drop | None = None


def auto(
    *,
    bytes: float | None = None,
    macs: float | None = None,
    max_drop: float | None = None,
    measure: Measure | None = None,
    examples: tuple[Any, Any] | None = None,
    where: Where = None,
    rounding: Rounding = "second_order",
    inputs: bool = True,
    short: bool = True,
    likelihood: Likelihood = "gaussian",
    file: str | Path | None = None,
    report: Callable[[Found], Any] | None = None,
) -> Method:
    """The best compression within a budget, without training.

    Channels go first, as many as leave the outputs nearest to what they were. Then each weight gets a step between
    values: those steps are chosen together, by the bytes that the coder makes of them and by squared errors times
    Fisher information. The weights are rounded with them, channels that only zeros multiply are made zero where they
    are computed, batch normalization is re-estimated and folded into two vectors, the file is measured, and the choice
    made again until it holds the budget.

    Args:
      bytes: of the file of `nnc.save`; up to 1 the share of the bytes of all arrays, uncompressed. For what a file says
        of its network 512 bytes are left.
      macs: share of the multiply-accumulates that stays, 1 for all of them; `prune_channels` cuts the channels that
        matter least by `criteria.obd`. By default several shares are tried, where less than a bit is left for each
        entry; with `where` all channels stay.
      max_drop: the share of examples, from 0 to 1, by which accuracy may fall: the smallest file is looked for of
        which a paired test says, with a confidence of 95 %, that it loses no more. Several files are tested.
      measure: for max_drop, a function of variables: for each of N examples whether the network is right. The examples
        should be none of the batches.
      examples: instead, (inputs, labels): the right class of each.
      where: which weights get steps, as in `quantize`.
      rounding: as of `quantize`; "nearest" takes seconds where "second_order" takes minutes.
      inputs: as of `quantize`.
      short: store other floats, as biases, with the precision of bfloat16.
      likelihood: "gaussian": outputs are to stay what they are; "categorical": the classes that they stand for. Where
        a network is sure of its classes, as on images that it was trained on, these let too much go.
      file: keeps what was measured, a line each; after an interruption the search goes on from there.
      report: is given what was found, a `Found`.

    Returns:
      A method for `compress(variables, method, apply=, batches=)`. A thousand examples or so will do.

    Raises:
      InputError: for budgets that cannot be; (when applied) without apply and batches, for a budget below the smallest
        file that is possible, which is named, and for a drop that even the finest steps exceed.

    Example:
      >>> import jax, nncompress_jax as nnc
      >>> keys = jax.random.split(jax.random.key(0))
      >>> weights, x = {"w": jax.random.normal(keys[0], (64, 64))}, jax.random.normal(keys[1], (128, 64))
      >>> method = auto(bytes=2_500, rounding="nearest", report=lambda found: print(0.11 < found.share < 0.13))
      >>> small = nnc.compress(weights, method, apply=lambda v, x: x @ v["w"], batches=[x])
      True

    Source: Choi et al. 2017, "Towards the Limit of Network Quantization"; Frantar et al. 2022, "Optimal Brain
    Compression", section 6, for the search over a database of choices.
    """
    _check(bytes, macs, max_drop, measure, examples)
    check_rounding(rounding)
    stitching = Stitching(rounding, inputs, short)

    def method(variables: Any, context: Context) -> Any:
        apply, _ = network(context, "auto")
        whole, reference = whole_bytes(variables), Reference(variables, context)
        cutting = Cutting(reference, stitching, Measurements(file), where, macs, likelihood)
        if bytes is None and max_drop is None:
            made = stitching.folded(cutting.cut(macs or 1.0).variables, context)
            size = file_bytes(made)
            return _told(report, made, Found(*tables((), (), ""), size, size / whole, macs or 1.0))
        if max_drop is None:
            assert bytes is not None
            small, drop = cutting.within(bytes * whole if bytes <= 1 else bytes, f"bytes={bytes}"), None
        else:
            small, drop = _least(cutting, measure or measure_of(apply, *(examples or ())), max_drop)
        title = f"{small.size:,} bytes, {small.size / whole:.4f} of the uncompressed arrays"
        title += f", {small.macs:g} of the multiply-accumulates" if small.macs < 1 else ""
        chosen = tables(small.fitting.ladders, small.choice, title)
        return _told(report, small.made, Found(*chosen, small.size, small.size / whole, small.macs, drop))

    return method


def _told(report: Callable[[Found], Any] | None, made: Any, found: Found) -> Any:
    if report is not None:
        report(found)
    return made


def _least(cutting: Cutting, measure: Measure, most: float) -> tuple[Small, Drop]:
    """The smallest file whose drop is surely small enough, by bisection."""
    whole = cutting.fitting(cutting.shares[0])
    before = whole.fingerprint | {"right": "before", "macs": cutting.shares[0]}
    right = whole.measurements.of(before, lambda: _flags(measure, cutting.reference.variables))

    def drop(small: Small) -> Drop:
        flags = small.fitting.figures(small.choice, "right", lambda made: _flags(measure, made))
        return paired(right["flags"], flags["flags"])

    held = Small(cutting.shares[0], whole, tuple(0 for _ in whole.ladders))
    found = drop(held)
    if found.most > most:
        raise InputError(
            f"max_drop={most}: with the finest steps {found.mean:.4f} of {found.examples} examples are lost, and no "
            f"more than {found.most:.4f} are sure; allow more, or give more examples"
        )
    low, high, fewest = float(cutting.smallest.size), float(held.size), 0.0  # smaller files have fewer channels
    while high > FINENESS * low:
        middle = math.sqrt(low * high)
        small = cutting.best(middle, Fitting.aimed, lambda small: drop(small).mean, least=fewest, most=held.macs)
        if small is None:
            low = middle
        elif (of_choice := drop(small)).most <= most:
            held, found, high = small, of_choice, middle
        else:
            fewest, low = small.macs, middle
    return held, found


def _flags(measure: Measure, variables: Any) -> dict[str, Any]:
    flags = np.asarray(measure(variables))
    if flags.ndim != 1:
        found = f"[{', '.join(map(str, flags.shape))}]" if flags.ndim else "a number"
        raise InputError(f"measure gave {found}: expected an entry for each example, whether the network is right")
    return {"flags": flags.astype(int).tolist()}


def _check(
    bytes: float | None,
    macs: float | None,
    max_drop: float | None,
    measure: Measure | None,
    examples: tuple[Any, Any] | None,
) -> None:
    if bytes is None and macs is None and max_drop is None:
        raise InputError("auto takes a budget: bytes=, macs= or max_drop=")
    if bytes is not None and max_drop is not None:
        raise InputError("bytes= and max_drop= both say how small the file is; expected one of them")
    for name, value in {"bytes": bytes, "macs": macs}.items():
        if value is not None and not (value > 0 and (name == "bytes" or value <= 1) and math.isfinite(value)):
            wanted = "a share up to 1, or a number of bytes" if name == "bytes" else "a share, more than 0 and up to 1"
            raise InputError(f"{name}={value}: expected {wanted}")
    if max_drop is not None and not 0 < max_drop < 1:
        raise InputError(f"max_drop={max_drop}: expected a share of the examples, more than 0 and less than 1")
    if (max_drop is not None) != (measure is not None or examples is not None):
        raise InputError("max_drop= needs examples=(inputs, labels), or measure=: variables -> whether each is right")
    if measure is not None and examples is not None:
        raise InputError("measure= and examples= both say what is measured; expected one of them")
