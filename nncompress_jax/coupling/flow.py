"""Following the channels of weights through a program: which of them meet, and which have to stay.

Operations carry labels along, and tie those that meet: channels that have to be cut together. Labels of channels that
an operation needs, or of which nothing is known, are held.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax import lax

from nncompress_jax.axes.labels import MIXED_AXES, Mark, axes_of, followed, gathered, simplest, taken_apart
from nncompress_jax.coupling.labelled import Fill, Marked, filled, read, shared
from nncompress_jax.coupling.products import Products
from nncompress_jax.tracing.primitives import PER_DEVICE, branches_of, called_program, scan_operands
from nncompress_jax.tracing.program import PRODUCTS, Source, meet
from nncompress_jax.weights.channel_pruned_elementwise import ELEMENTWISE


class Flow(Products):
    """What was found on the way through a program: labels that are tied, and held, and products."""

    def run(self, jaxpr: Any, values: Sequence[Marked], repeats: int = 1, scope: str = "") -> list[Marked]:
        """Through a program, which stands in a scope."""
        known: dict[Any, Marked] = dict(zip(jaxpr.invars, values, strict=True))
        around = self.here
        for equation in jaxpr.eqns:
            within = f"{scope}/{equation.source_info.name_stack}"
            names = [name for name in within.split("/") if name and "(" not in name]  # not those of transformations
            self.here = " in ".join(filter(None, (equation.primitive.name, "/".join(names))))
            results = self.step(equation, [read(known, atom) for atom in equation.invars], repeats, within)
            known.update(zip(equation.outvars, results, strict=True))
        self.here = around
        return [read(known, atom) for atom in jaxpr.outvars]

    def step(self, equation: Any, values: list[Marked], repeats: int, scope: str) -> list[Marked]:
        """Through one equation."""
        name, marked = equation.primitive.name, any(value.marks for value in values)
        source = meet(value.source for value in values)
        inside = called_program(equation)
        if equation.primitive in PRODUCTS:
            return [self.product(equation, values, repeats)]
        if name == "scan":
            return self.scan(equation, values, repeats, scope)
        if name == "cond":
            return self.branched(equation, values[1:], repeats, scope)
        if name == "while":
            first = equation.params["cond_nconsts"]
            self.uncut(equation.params["body_jaxpr"].jaxpr, values[first:], repeats, scope)
        if name in PER_DEVICE:
            self.uncut(inside.jaxpr, values, repeats, scope)
        elif inside:
            return self.run(inside.jaxpr, values, repeats, scope)
        if equation.primitive in ELEMENTWISE:
            return [self.joined(values, source, functools.partial(filled, equation))]
        if not marked:
            number = values[0].number if name == "broadcast_in_dim" else None
            return [Marked(source=source, number=number)] * len(equation.outvars)
        if name == "concatenate":
            return [self.concatenated(equation, values, source)]
        if name == "stack":
            axis = equation.params["axis"]
            marks = [tuple(np.expand_dims(mark, axis) for mark in value.marks) for value in values]
            values = [dataclasses.replace(value, marks=own) for value, own in zip(values, marks, strict=True)]
            return [self.joined(values, source)]
        if name == "optimization_barrier":
            return values
        if name in ("gather", "dynamic_slice"):
            return [self.gathered(equation, values, source)]
        if name == "pad":
            return [self.padded(equation, values, source)]
        return self.moved(equation, values, source)

    def moved(self, equation: Any, values: Sequence[Marked], source: Source) -> list[Marked]:
        """Transposed, reshaped, sliced, reduced over axes that are not cut; other operations hold what they take."""
        name, count = equation.primitive.name, len(equation.outvars)
        if len(values) != 1:
            for mark in (mark for value in values for mark in value.marks):
                self.hold(mark, "what it does to channels is not known")
            return [Marked(source=source)] * count
        (value,), shape = values, equation.invars[0].aval.shape
        results: list[list[tuple[Mark, Fill]]] = [[] for _ in range(count)]
        for mark, fill in value.pairs:
            fill = fill if fill == 0 or name not in MIXED_AXES else None
            mixed = set(MIXED_AXES[name](equation.params)) & set(axes_of(mark)) if name in MIXED_AXES else set()
            mark = self.divided(mark, mixed | set(taken_apart(name, equation.params, shape)))
            found = followed(name, equation.params, mark, shape)
            if found is None:
                needed = "it needs all channels, as normalization does"
                self.hold(mark, needed if mixed else "what it does to channels is not known")
            for result, each in zip(results, found or (), strict=False):
                if any(set(axes_of(other)) & set(axes_of(each)) for other, _ in result):
                    self.hold(mark, "it merges them with other channels")
                elif each.size > 1:
                    result.append((each, fill))
                else:
                    self.hold(each, "it takes one channel on its own")
        return [Marked.of(result, source) for result in results]

    def gathered(self, equation: Any, values: Sequence[Marked], source: Source) -> Marked:
        """Reading at places that are not known: channels of axes that are read whole are still there."""
        (value, *_), name = values, equation.primitive.name
        shape, rank = equation.invars[0].aval.shape, equation.outvars[0].aval.ndim
        results = []
        for mark, fill in value.pairs:
            result = gathered(name, equation.params, mark, shape, rank)
            if result is None:
                self.hold(mark, "which of them it reads is not known")
            else:
                results.append((result, fill))
        for mark in (mark for place in values[1:] for mark in place.marks):
            self.hold(mark, "it reads where they say")
        return Marked.of(results, source)

    def concatenated(self, equation: Any, values: Sequence[Marked], source: Source) -> Marked:
        """Along one axis, labels one after the other; operands without any there cannot be cut."""
        axis = equation.params["dimension"]
        here = [[mark for mark in value.marks if axis in axes_of(mark)] for value in values]
        over = {axis}.union(*(axes_of(mark) for marks in here for mark in marks))
        pieces, others = [], []
        for atom, value, marks in zip(equation.invars, values, here, strict=True):
            shape = [size if place in over else 1 for place, size in enumerate(atom.aval.shape)]
            pieces.append(np.broadcast_to(marks[0] if marks else 0, shape))
            across = [(mark, fill) for mark, fill in value.pairs if axis not in axes_of(mark)]
            others.append(Marked.of(across, source) if value.marks else value)
        rest, own = self.joined(others, source), simplest(np.concatenate(pieces, axis))
        if not own.any():
            return rest
        fill = shared(value.at([axis]) for value, marks in zip(values, here, strict=True) if marks)
        together = self.joined([rest, Marked((own,), source, (fill,))], source)
        fills = dict(zip(map(id, (*rest.marks, own)), (*rest.fills, fill if fill == 0 else None), strict=True))
        return Marked.of([(mark, fills[id(mark)]) for mark in together.marks], source)

    def padded(self, equation: Any, values: Sequence[Marked], source: Source) -> Marked:
        """What is padded along marked axes has new labels."""
        marks = []
        for mark, fill in values[0].pairs:
            config = [
                each if size > 1 else (0, 0, 0)
                for size, each in zip(mark.shape, equation.params["padding_config"], strict=True)
            ]
            spread = np.asarray(lax.pad(mark.astype(np.int32), np.int32(-1), config)).astype(int)
            spread[spread < 0] = self.new(int((spread < 0).sum()))  # nothing depends on what is padded
            marks.append((spread, shared([fill, values[1].number])))
        return Marked.of(marks, source)

    def uncut(self, jaxpr: Any, values: Sequence[Marked], repeats: int, scope: str) -> None:
        """Products of a program through which no channels are followed."""
        self.run(jaxpr, [Marked(source=value.source) for value in values], repeats, scope)

    def branched(self, equation: Any, values: list[Marked], repeats: int, scope: str) -> list[Marked]:
        """All branches, of which the dearest counts."""
        results, products = [], []
        for branch in equation.params["branches"]:
            counted = len(self.products)
            results.append(self.run(branch.jaxpr, values, repeats, scope))
            products.append(self.products[counted:])
            del self.products[counted:]
        run = [products[equation.params["branches"].index(branch)] for branch in branches_of(equation)]
        dearest = max(run, key=lambda each: sum(product.macs for product in each))
        for each in products:
            self.products += each if each is dearest else [dataclasses.replace(product, macs=0) for product in each]
        return [self.joined(pair, meet(value.source for value in pair)) for pair in zip(*results, strict=True)]

    def scan(self, equation: Any, values: list[Marked], repeats: int, scope: str) -> list[Marked]:
        """The body, until what it hands on has the marks that it takes."""
        params = equation.params
        first, carried = scan_operands(params)
        last = first + carried
        rows = []
        for value in values[last:]:
            for mark in value.marks:
                if 0 in axes_of(mark):
                    self.hold(mark, "it walks along them")
            inner = [(mark[0], fill) for mark, fill in value.pairs if 0 not in axes_of(mark)]
            rows.append(Marked.of(inner, value.source) if value.marks else value)
        carry, turns = values[first:last], repeats * params["length"]
        found: tuple[list[Any], ...] = (self.ties, self.like, self.held, self.inner, self.products)
        while True:
            before = [len(each) for each in found]
            results = self.run(params["jaxpr"].jaxpr, [*values[:first], *carry, *rows], turns, scope)
            after = [self.joined(pair, meet(v.source for v in pair)) for pair in zip(carry, results, strict=False)]
            if [(v.fills, v.number, v.source) for v in after] == [(v.fills, v.number, v.source) for v in carry]:
                break
            carry = after
            for each, length in zip(found, before, strict=True):
                del each[length:]
        columns = [
            dataclasses.replace(value, marks=tuple(mark[None] for mark in value.marks))
            for value in results[len(carry) :]
        ]
        return [*after, *columns]
