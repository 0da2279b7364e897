"""One budget over everything: steps for every weight, chosen together, so that the file is as small as was asked."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nncompress_jax.errors import InputError
from nncompress_jax.measurements import Measurements
from nncompress_jax.methods.channels import criteria
from nncompress_jax.methods.channels.pruning import prune_channels
from nncompress_jax.methods.rounding import Rounding, check_rounding
from nncompress_jax.methods.selection import network
from nncompress_jax.search.candidates import ladders, tables
from nncompress_jax.search.drop import Drop, Measure, measure_of, paired
from nncompress_jax.search.fitting import Choice, Fitting, whole_bytes
from nncompress_jax.search.reference import Reference
from nncompress_jax.search.stitching import Stitching, estimated, file_bytes
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
      drop: of accuracy, where it was measured.
    """

    table: Table
    candidates: Table
    size_bytes: int
    share: float
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

    Channels go first, if there is a budget of multiply-accumulates. Then each weight gets a step between values: those
    steps are chosen together, by the bytes that the coder makes of them and by squared errors times Fisher
    information. The weights are rounded with them, channels that only zeros multiply are made zero where they are
    computed, batch normalization is re-estimated and folded into two vectors, the file is measured, and the choice made
    again until it holds the budget.

    Args:
      bytes: of the file of `nnc.save`; up to 1 the share of the bytes of all arrays, uncompressed. For what a file says
        of its network 512 bytes are left.
      macs: share of the multiply-accumulates that stays; `prune_channels` cuts the channels that matter least by
        `criteria.obd`.
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
        before, whole = variables, whole_bytes(variables)
        if macs is not None:
            variables = without_channels(Reference(variables, context), macs, likelihood)
        if bytes is None and max_drop is None:
            made = stitching.folded(variables, context)
            return _told(report, made, Found(*tables((), (), ""), size := file_bytes(made), size / whole))
        measurements = Measurements(file)
        reference = Reference(variables, context)
        found = ladders(reference, where, rounding=rounding, likelihood=likelihood, measurements=measurements)
        fitting = Fitting(reference, found, stitching, measurements)
        if max_drop is None:
            assert bytes is not None
            choice, drop = fitting.within(bytes * whole if bytes <= 1 else bytes, f"bytes={bytes}"), None
        else:
            right = measure or measure_of(apply, *(examples or ()))
            choice, drop = _least(fitting, right, before, max_drop)
        size = fitting.size(choice)
        title = f"{size:,} bytes, {size / whole:.4f} of the uncompressed arrays"
        return _told(report, fitting.made(choice), Found(*tables(found, choice, title), size, size / whole, drop))

    return method


def _told(report: Callable[[Found], Any] | None, made: Any, found: Found) -> Any:
    if report is not None:
        report(found)
    return made


def _least(fitting: Fitting, measure: Measure, before: Any, most: float) -> tuple[Choice, Drop]:
    """The smallest file whose drop is surely small enough, by bisection."""
    right = fitting.measurements.of(fitting.fingerprint | {"right": "before"}, lambda: _flags(measure, before))

    def drop(choice: Choice) -> Drop:
        flags = fitting.figures(choice, "right", lambda made: _flags(measure, made))
        return paired(right["flags"], flags["flags"])

    held = tuple(0 for _ in fitting.ladders)
    found = drop(held)
    if found.most > most:
        raise InputError(
            f"max_drop={most}: with the finest steps {found.mean:.4f} of {found.examples} examples are lost, and no "
            f"more than {found.most:.4f} are sure; allow more, or give more examples"
        )
    low, high = float(fitting.size(fitting.coarsest)), float(fitting.size(held))
    power = fitting.power(math.sqrt(low * high) - fitting.around)
    while high > FINENESS * low:
        middle = math.sqrt(low * high)
        choice = fitting.predicted(middle - fitting.around, power)
        if choice is None:
            low = middle
            continue
        if (of_choice := drop(choice)).most <= most:
            held, found, high = choice, of_choice, middle
        else:
            low = middle
    return held, found


def _flags(measure: Measure, variables: Any) -> dict[str, Any]:
    flags = np.asarray(measure(variables))
    if flags.ndim != 1:
        found = f"[{', '.join(map(str, flags.shape))}]" if flags.ndim else "a number"
        raise InputError(f"measure gave {found}: expected an entry for each example, whether the network is right")
    return {"flags": flags.astype(int).tolist()}


def without_channels(reference: Reference, macs: float, likelihood: Likelihood = "gaussian") -> Any:
    """Without the channels that matter least, and with the statistics of batch normalization as they are then.

    Args:
      reference: the network as it was.
      macs: share of the multiply-accumulates that stays.
      likelihood: as of `auto`.
    """
    variables, context = reference.variables, reference.context
    apply, _ = network(context, "auto")
    matter = criteria.summed(criteria.obd(apply, variables, context.batches, likelihood=likelihood))
    cut = prune_channels(macs=macs, criterion=matter, reconstruct=True)(variables, context)
    return estimated(cut, reference)


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
