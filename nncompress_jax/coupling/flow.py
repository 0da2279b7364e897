"""Following the channels of weights through a program: which of them meet, and which have to stay.

Operations carry labels along, and couple those that meet: channels that have to be cut together. Labels of channels
that an operation needs, or of which nothing is known, are frozen.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nncompress_jax.axes.contraction import PRODUCTS
from nncompress_jax.axes.places import Places, along, axes_of, move, reshaped, simplest
from nncompress_jax.axes.rule import AxisRule, Fill
from nncompress_jax.axes.rules import RULES, axis_rule
from nncompress_jax.coupling.labelled import Labelled, filled, is_undefined, read, shared
from nncompress_jax.coupling.labels import Found
from nncompress_jax.coupling.products import Products
from nncompress_jax.tracing.primitives import (
    PER_DEVICE,
    Loop,
    branches_of,
    called_program,
    scan_operands,
    while_operands,
)
from nncompress_jax.tracing.program import Source, holds, meet
from nncompress_jax.weights.channel_pruned_elementwise import ELEMENTWISE

UNKNOWN = "what it does to channels is not known"


Split = tuple[int, str]
"""A reshape that splits an axis of channels, as that of all heads of attention; and where it stands."""


class Flow(Products):
    """What was found on the way through a program: labels that are coupled, and frozen, and products.

    Attributes:
      narrowed: by split, the one of the axes (0: the first, -1: the last) along which alone channels can be cut.
      splits: all splits, each with the labels.
    """

    def __init__(self, narrowed: Mapping[Split, int] | None = None) -> None:
        super().__init__()
        self.narrowed = narrowed or {}
        self.splits: dict[Split, np.ndarray] = {}

    def run(self, jaxpr: Any, values: Sequence[Labelled], repeats: int = 1, scope: str = "") -> list[Labelled]:
        """Through a program, which stands in a scope."""
        known: dict[Any, Labelled] = dict(zip(jaxpr.invars, values, strict=True))
        around = self.here
        for equation in _needed(jaxpr):
            within = f"{scope}/{equation.source_info.name_stack}"
            names = [name for name in within.split("/") if name and "(" not in name]  # not those of transformations
            self.here = " in ".join(filter(None, (equation.primitive.name, "/".join(names))))
            results = self.step(equation, [read(known, atom) for atom in equation.invars], repeats, within)
            known.update(zip(equation.outvars, results, strict=True))
        self.here = around
        return [read(known, atom) for atom in jaxpr.outvars]

    def step(self, equation: Any, values: list[Labelled], repeats: int, scope: str) -> list[Labelled]:
        """Through one equation."""
        if equation.primitive in PRODUCTS:
            return [self.product(equation, values, repeats)]
        if follow := _WITH_PROGRAMS.get(equation.primitive.name):
            return follow(self, equation, values, repeats, scope)
        inside = called_program(equation)
        if inside and equation.primitive.name in PER_DEVICE:
            self.run(inside.jaxpr, [Labelled(source=value.source) for value in values], repeats, scope)
        elif inside:
            return self.run(inside.jaxpr, values, repeats, scope)
        source = meet(value.source for value in values)
        if equation.primitive in ELEMENTWISE:
            return [self.joined(values, source, functools.partial(self.filled, equation))]
        return self.moved(equation, values, source)

    def filled(self, equation: Any, fills: Sequence[Fill]) -> Fill:
        """What an elementwise operation makes of these operands: cut channels stay zero, whatever divides them."""
        if is_undefined(equation, fills):
            self.found.undefined.append(self.here)
        return filled(equation, fills)

    def moved(self, equation: Any, values: list[Labelled], source: Source) -> list[Labelled]:
        """Moved, combined along axes that are not cut; other operations freeze what they take."""
        name, shapes = equation.primitive.name, [atom.aval.shape for atom in equation.invars]
        labelled = any(value.labels for value in values)
        nothing = [Labelled(source=source)] * len(equation.outvars)
        if not labelled and (not values or values[0].number is None):
            return nothing
        if name == "reshape":
            result = self.reshaped(values[0], shapes[0], equation.params["new_sizes"], source)
            return [self.split((id(equation), self.here), result)]
        if name not in RULES:
            for labels in (labels for value in values for labels in value.labels):
                self.freeze(labels, UNKNOWN)
            return nothing
        rule = axis_rule(name, equation.params, shapes)
        if not labelled:
            number = None if rule.needed else shared(value.number for value in values)
            return [Labelled(source=source, number=number)] * len(equation.outvars)
        values = [self.free(i, value, shapes[i], rule) for i, value in enumerate(values)]
        return [self.placed(rule, result, values, source) for result in range(len(rule.results))]

    def free(self, operand: int, value: Labelled, shape: Sequence[int], rule: AxisRule) -> Labelled:
        """An operand without the labels that a rule freezes."""
        places = [result[operand] for result in rule.results if result[operand] is not None]
        lost = set().union(*(each.lost(shape) for each in places if each))
        pairs: list[tuple[np.ndarray, Fill]] = []
        for labels, fill in value.pairs:
            labels = self.divided(labels, lost | rule.needs(operand))
            if not places:
                self.freeze(labels, "it reads where they say")
            elif rule.needs(operand) & set(axes_of(labels)):
                self.freeze(labels, rule.reason)
            else:
                pairs.append((labels, fill))
        return Labelled.of(pairs, value.source) if value.labels else value

    def placed(self, rule: AxisRule, result: int, values: Sequence[Labelled], source: Source) -> Labelled:
        """A result: what it shows of each operand, joined; along an axis that operands share, one behind the other."""
        padding = [] if rule.padding is None else [values[rule.padding]]
        shown: list[tuple[Places, list[tuple[np.ndarray, Fill]]]] = []
        whole, tells = [*padding], [True] * len(padding)
        for i, (value, places) in enumerate(zip(values, rule.results[result], strict=True)):
            if places is None:
                continue
            pairs = [(move(labels, places, -1), fill) for labels, fill in value.pairs]
            for labels in (labels for labels, _ in pairs if labels.size == 1):
                self.freeze(labels, "it takes one channel on its own")
            shown.append((places, [pair for pair in pairs if (pair[0] < 0).any()]))
            rest = [(labels, fill) for labels, fill in pairs if labels.size > 1 and not (labels < 0).any()]
            whole.append(Labelled.of(rest, source) if value.labels else value)
            tells.append(i not in rule.addresses)
        made = rule.fill(result)
        together = self.joined(whole, source, lambda fills: made(shared(itertools.compress(fills, tells))))
        taken: set[int] = set()
        for axis in sorted(axis for _, pairs in shown for labels, _ in pairs for axis in axes_of(labels)):
            here = [(places, own) for places, pairs in shown for own in pairs if axis in axes_of(own[0])]
            if axis in taken or all(places.picked[axis] is None for places, _ in here):
                continue
            taken.update(*(axes_of(labels) for _, (labels, _) in here))
            fill = shared([*(fill for _, (_, fill) in here), *(value.number for value in padding)])
            together = self.beside(together, self.behind(axis, shown), fill, source)
        return together

    def behind(self, axis: int, shown: Any) -> np.ndarray:
        """Labels along an axis that operands share; none can be cut of an operand without any, padding has its own."""
        pieces = [next((own[0] for own in pairs if axis in axes_of(own[0])), None) for _, pairs in shown]
        rank = len(shown[0][0].axes)
        joined = np.full((1,) * rank, -1)
        for (places, _), piece in zip(shown, pieces, strict=True):
            there = along(axis, rank, places.picked[axis] >= 0)
            joined = np.where(there & (True if piece is None else piece >= 0), 0 if piece is None else piece, joined)
        joined[joined < 0] = self.new(int((joined < 0).sum()))
        return simplest(joined)

    def beside(self, value: Labelled, labels: np.ndarray, fill: Fill, source: Source) -> Labelled:
        """A value that has further labels along one axis; those that stand along other axes, too, are coupled."""
        if not labels.any():
            return value
        fills = dict(zip(map(id, (*value.labels, labels)), (*value.fills, fill if fill == 0 else None), strict=True))
        together = self.joined([value, Labelled((labels,), source, (fill,))], source)
        return Labelled.of([(each, fills[id(each)]) for each in together.labels], source)

    def reshaped(self, value: Labelled, old: Sequence[int], new: Sequence[int], source: Source) -> Labelled:
        """Along merged or split axes, where no other channels are merged in."""
        result: list[tuple[np.ndarray, Fill]] = []
        for labels, fill in value.pairs:
            moved = simplest(reshaped(labels, old, new))
            if any(set(axes_of(other)) & set(axes_of(moved)) for other, _ in result):
                self.freeze(labels, "it merges them with other channels")
            else:
                result.append((moved, fill))
        return dataclasses.replace(Labelled.of(result, source), number=None if value.labels else value.number)

    def split(self, place: Split, value: Labelled) -> Labelled:
        """Channels along several axes, of which one may have been chosen."""
        pairs = []
        for labels, fill in value.pairs:
            own = axes_of(labels)
            if len(own) > 1:
                self.splits[place] = np.union1d(self.splits.get(place, []), labels).astype(int)
                if place in self.narrowed:
                    labels = self.whole(labels, {*own} - {own[self.narrowed[place]]})
            pairs.append((labels, fill))
        return Labelled.of(pairs, value.source) if pairs else value

    @contextlib.contextmanager
    def apart(self) -> Iterator[Found]:
        """What is found inside is not added to what was found before."""
        before, self.found = self.found, Found()
        try:
            yield self.found
        finally:
            self.found = before

    def cond(self, equation: Any, values: list[Labelled], repeats: int, scope: str) -> list[Labelled]:
        """All branches, of which the dearest counts."""
        results, found = [], []
        for branch in equation.params["branches"]:
            with self.apart() as each:
                results.append(self.run(branch.jaxpr, values[1:], repeats, scope))
            found.append(each)
        run = [found[equation.params["branches"].index(branch)] for branch in branches_of(equation)]
        dearest = max(run, key=lambda each: sum(product.macs for product in each.products))
        for each in found:
            if each is not dearest:
                each.products = [dataclasses.replace(product, macs=0) for product in each.products]
            self.found.add(each)
        return [self.joined(pair, meet(value.source for value in pair)) for pair in zip(*results, strict=True)]

    def scan(self, equation: Any, values: list[Labelled], repeats: int, scope: str) -> list[Labelled]:
        """Nothing is cut of the axes that it walks along."""
        loop = scan_operands(equation.params)
        last, rows = sum(loop), []
        for value in values[last:]:
            for labels in (labels for labels in value.labels if 0 in axes_of(labels)):
                self.freeze(labels, "it walks along them")
            inner = [(labels[0], fill) for labels, fill in value.pairs if 0 not in axes_of(labels)]
            rows.append(Labelled.of(inner, value.source) if value.labels else value)
        program, turns = equation.params["jaxpr"].jaxpr, repeats * equation.params["length"]
        results = self.loop(program, loop, [*values[:last], *rows], turns, scope)
        columns = [
            dataclasses.replace(value, labels=tuple(labels[None] for labels in value.labels))
            for value in results[loop.carried :]
        ]
        return [*results[: loop.carried], *columns]

    def while_loop(self, equation: Any, values: list[Labelled], repeats: int, scope: str) -> list[Labelled]:
        """The body counts once; how often it runs is not known."""
        params, loop = equation.params, while_operands(equation.params)
        first = params["cond_nconsts"]
        results = self.loop(params["body_jaxpr"].jaxpr, loop, values[first:], repeats, scope)
        with self.apart() as found:
            self.run(params["cond_jaxpr"].jaxpr, [*values[:first], *results], 0, scope)
        self.found.add(dataclasses.replace(found, products=[]))
        return results

    def loop(self, program: Any, loop: Loop, values: Sequence[Labelled], repeats: int, scope: str) -> list[Labelled]:
        """The body, until what it hands on has the labels that it takes."""
        last = sum(loop)
        carry = list(values[loop.constants : last])
        while True:
            with self.apart() as found:
                results = self.run(program, [*values[: loop.constants], *carry, *values[last:]], repeats, scope)
                after = [self.joined(pair, meet(v.source for v in pair)) for pair in zip(carry, results, strict=False)]
            if [(v.fills, v.number, v.source) for v in after] == [(v.fills, v.number, v.source) for v in carry]:
                self.found.add(found)
                return [*after, *results[loop.carried :]]
            carry = after


def _needed(jaxpr: Any) -> list[Any]:
    """Equations that multiply, or of whose results an entry is used in the end."""
    needed, equations = set(map(id, jaxpr.outvars)), []
    for equation in reversed(jaxpr.eqns):
        used = any(id(result) in needed and 0 not in getattr(result.aval, "shape", ()) for result in equation.outvars)
        if used or equation.primitive in PRODUCTS or holds(equation, PRODUCTS):
            needed.update(map(id, equation.invars))
            equations.append(equation)
    return equations[::-1]


_WITH_PROGRAMS: Mapping[str, Callable[..., list[Labelled]]] = {
    "scan": Flow.scan,
    "while": Flow.while_loop,
    "cond": Flow.cond,
}
"""By the primitive's name: jax exports few of these primitives."""
