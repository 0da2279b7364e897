"""Gram matrices of what enters weights: all that second-order methods need to know of the data."""

import dataclasses
import zlib
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax.bars import tracked
from nncompress_jax.inputs import arguments, compiled
from nncompress_jax.tracing.injection import observe_products
from nncompress_jax.tracing.numbered import numbered, places_of
from nncompress_jax.tracing.observations import Meeting
from nncompress_jax.tracing.rows import entries, is_known, rows
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Apply, Array
from nncompress_jax.weights.base import is_compressed

LEAST_ROWS, ROWS_A_COLUMN = 32_768, 16
"""Of all batches together: no more rows are taken than the larger of the first and so many for each column."""


@dataclasses.dataclass(frozen=True)
class Gram:
    """A weight as the matrices in which it multiplies, and sums over what it multiplies there.

    Attributes:
      places: [G, R, n] int32: entry number of the weight's flat array; R outputs, n columns that are summed over.
      squares: [G, n, n] float64: X^T X, X the rows that meet the weight.
      cross: [G, n, n] float64: X^T Y, Y the rows that meet it in the reference network; None: X is Y.
      rows: how many rows were summed up.
    """

    places: np.ndarray
    squares: np.ndarray
    cross: np.ndarray | None
    rows: int

    def __add__(self, other: "Gram") -> "Gram":
        cross = None if self.cross is None or other.cross is None else self.cross + other.cross
        return Gram(self.places, self.squares + other.squares, cross, self.rows + other.rows)


class Sums(NamedTuple):
    """As in `Gram`, of one batch at one place of the program, in float32."""

    places: Array
    squares: Array
    cross: Array | None
    rows: Array


def sums(met: Meeting, inputs: Array, reference: Array | None, batches: int, seed: int) -> Sums | None:
    """Of one batch; None where the product or what was done to the weight before has no such form.

    Args:
      met: the place, and the weight with numbered entries.
      inputs: what it multiplies.
      reference: what it multiplies in the reference network.
      batches: how many there are of this size.
      seed: of the choice of rows.
    """
    places = places_of(met.weight)
    if places is None or not is_known(met):
        return None
    matrices = entries(met, places)
    wanted = -(-max(LEAST_ROWS, ROWS_A_COLUMN * matrices.shape[-1]) // batches)
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(met.path.encode()))
    x, weight = rows(met, inputs, wanted, key)
    y = None if reference is None else rows(met, reference, wanted, key)[0]
    squares = weight * _product(x, x)
    return Sums(matrices, squares, None if y is None else weight * _product(x, y), jnp.int32(x.shape[1]))


def _product(x: Array, y: Array) -> Array:
    return jnp.einsum("gri,grj->gij", x, y, precision="highest")


def collected(parts: Iterable[Sums]) -> Gram | None:
    """Sums of all batches at one place, in float64."""
    total: Gram | None = None
    for part in parts:
        if total is None:
            cross = None if part.cross is None else np.array(part.cross, np.float64)
            total = Gram(np.asarray(part.places), np.array(part.squares, np.float64), cross, int(part.rows))
            continue
        np.add(total.squares, part.squares, out=total.squares)
        if total.cross is not None and part.cross is not None:
            np.add(total.cross, part.cross, out=total.cross)
        total = dataclasses.replace(total, rows=total.rows + int(part.rows))
    return total


def grams(apply: Apply, variables: Any, batches: Sequence[Any], paths: Collection[str]) -> dict[str, Gram]:
    """Gram matrices of the inputs of weights, over all batches.

    Of places with more rows than 32,768, or 16 for each column, in all batches together, a random choice of so many is
    taken. In memory is one batch, and for each weight 8 n^2 bytes.

    Args:
      apply: of (variables, *inputs).
      variables: any tree; weights may be compressed.
      batches: inputs; each a tuple of apply's further arguments, or the only one.
      paths: of the weights.

    Returns:
      By path; without the weights that no batch reached, and those that the program computes with before it multiplies.
      Of a weight at several places, the sum of all that multiply it in the same way.
    """
    leaves = named_leaves(variables, is_compressed)
    structure = jax.tree.structure(variables, is_leaf=is_compressed)
    known = [numbered(path, leaf) if path in paths else leaf for path, leaf in leaves]
    count = len(batches)

    def statistic(met: Meeting) -> Sums | None:
        return sums(met, met.inputs, None, count, 0) if met.path in paths else None

    run, tree = observe_products(apply, statistic), jax.tree.unflatten(structure, known)
    program = compiled(lambda tree, *batch: run(tree, *batch)[1], tree)
    found: dict[str, dict[int, Gram]] = {}
    for batch in tracked(batches, "what enters the weights"):
        for path, observations in program(*arguments(batch)).items():
            for place, (value, reached) in enumerate(observations):
                if value is not None and (gram := _at_place(value, np.asarray(reached))):
                    there = found.setdefault(path, {})
                    there[place] = there[place] + gram if place in there else gram
    return {path: _merged(list(places.values())) for path, places in found.items()}


def _at_place(value: Sums, reached: np.ndarray) -> Gram | None:
    """Of turns of loops, which stand along first axes, those that were reached, as further groups."""
    turns = reached.ravel()
    if not turns.any():
        return None
    lead = reached.ndim
    places, squares = (np.asarray(x).reshape(-1, *x.shape[lead:])[turns] for x in (value.places, value.squares))
    squares = squares.astype(np.float64)
    count = int(np.asarray(value.rows).reshape(-1)[turns][0])
    if len(places) > 1 and (places == places[0]).all():  # the same weight in all turns
        return Gram(places[0], squares.sum(0), None, count * len(places))
    merged = [x.reshape(-1, *x.shape[2:]) for x in (places, squares)]
    return Gram(merged[0], merged[1], None, count)


def _merged(grams: list[Gram]) -> Gram:
    """Of a weight at several places: those at which it stands as it does where it has most outputs."""
    grams = [_ordered(gram) for gram in grams]
    first = max(grams, key=lambda gram: gram.places.shape[1])
    alike = [gram for gram in grams if np.array_equal(gram.places, first.places)]
    total = alike[0]
    for gram in alike[1:]:
        total = total + gram
    return total


def _ordered(gram: Gram) -> Gram:
    """Groups, outputs and columns in the order of the weight's entries."""
    columns = np.argsort(gram.places[:, 0], axis=-1)
    places = np.take_along_axis(gram.places, columns[:, None], -1)
    outputs = np.argsort(places[:, :, 0], axis=-1)
    places = np.take_along_axis(places, outputs[:, :, None], 1)
    squares = permuted(gram.squares, columns)
    groups = np.argsort(places[:, 0, 0], kind="stable")
    return dataclasses.replace(gram, places=places[groups], squares=squares[groups])


def permuted(squares: np.ndarray, order: np.ndarray) -> np.ndarray:
    """[G, n, n] with rows and columns in another order, [G, n]."""
    return np.stack([square[np.ix_(own, own)] for square, own in zip(squares, order, strict=True)])
