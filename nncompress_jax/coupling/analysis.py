"""Which channels of which weights have to be cut together, found by following them through the program."""

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from nncompress_jax.axes.places import axes_of
from nncompress_jax.bars import bar
from nncompress_jax.coupling.flow import Flow, Split
from nncompress_jax.coupling.groups import Coupling, Group, Member, Product, Role
from nncompress_jax.coupling.labelled import Labelled
from nncompress_jax.errors import InputError
from nncompress_jax.inputs import examples_in, is_array
from nncompress_jax.tracing.costs import layer_of
from nncompress_jax.tracing.trace import traced
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Apply
from nncompress_jax.weights.base import is_compressed
from nncompress_jax.weights.channel_pruned import is_plain


def coupling(apply: Apply, variables: Any, *inputs: Any, batch_size: int | None = None, **keywords: Any) -> Coupling:
    """Finds, by tracing, which axes of which weights have to be cut together.

    Channels that a convolution or dot product sums over are those that another computed; what adds or multiplies
    channels, entry by entry, joins theirs. An output that bears the path of a variable outside of `params`, such as new
    batch statistics, is cut as the variable is. A group is frozen where its channels are an input or another output of
    the network, where an operation needs all of them (a mean over channels), and where an operation is not known. Of
    channels that a reshape splits, as into heads, whole heads go, or the same places in every head where those cannot.

    Args:
      apply: of (variables, *inputs), in the mode in which it is used.
      variables: dense arrays, `jax.ShapeDtypeStruct`, or what `prune_channels` made of them: the groups are those of
        the uncut network.
      *inputs: apply's further arguments: trees of arrays or of `jax.ShapeDtypeStruct`, random keys, numbers, None.
      batch_size: of the examples in them; by default the length of the first array that has a leading axis.
      **keywords: apply's keyword arguments.

    Raises:
      InputError: for weights that are compressed otherwise, and where apply cannot be traced with these arguments.

    Example:
      >>> weights = {"a": jnp.ones((4, 8)), "b": jnp.ones((8, 3))}
      >>> found = coupling(lambda w, x: jax.nn.relu(x @ w["a"]) @ w["b"], weights, jnp.ones((2, 4)))
      >>> [(group.name, group.size, [(m.path, m.axis) for m in group.members]) for group in found.groups]
      [('a', 8, [('a', 1), ('b', 0)])]
      >>> found.macs({"a": np.arange(8) < 4})
      28
    """
    leaves = named_leaves(variables, is_compressed)
    if taken := [path for path, leaf in leaves if is_compressed(leaf) and not is_plain(leaf)]:
        raise InputError(f"{', '.join(taken)}: compressed already; cut channels first, then compress what is left")
    examples = examples_in((inputs, keywords), batch_size)
    program, outputs = traced(apply, variables, *inputs, stand_in=_uncut, **keywords)
    leaves = [(path, leaf) for path, leaf in leaves if is_compressed(leaf) or is_array(leaf)]
    network = _Network(program, outputs, leaves, examples)
    with bar("channels that belong together"):
        found, stuck = network.coupled({})
        narrowed: dict[Split, int] = {}
        for place in (0, -1):  # where split channels have to stay, those of one of the axes may go
            chosen = narrowed | dict.fromkeys(stuck, place)
            other, others_stuck = network.coupled(chosen) if stuck else (found, stuck)
            if _channels(other) > _channels(found):
                found, stuck, narrowed = other, others_stuck, chosen
    return dataclasses.replace(found, _shapes={path: tuple(leaf.shape) for path, leaf in leaves})


def _channels(found: Coupling) -> int:
    return sum(group.size for group in found.groups)


@dataclasses.dataclass(frozen=True)
class _Network:
    """A traced network.

    Attributes:
      program: of its leaves and its inputs.
      outputs: its results, by path, as shapes.
      leaves: by path.
      examples: in the inputs.
    """

    program: Any
    outputs: Sequence[tuple[str, Any]]
    leaves: Sequence[tuple[str, Any]]
    examples: int

    def coupled(self, narrowed: Mapping[Split, int]) -> tuple[Coupling, list[Split]]:
        """The groups, where some splits are narrowed to one axis; and the splits of which nothing can be cut."""
        flow = Flow(narrowed)
        floats = [jnp.issubdtype(leaf.dtype, jnp.floating) for _, leaf in self.leaves]
        pairs = zip(self.leaves, floats, strict=True)
        labelled = [(path, flow.leaf(path, leaf.shape if cut else ())) for (path, leaf), cut in pairs]
        data = [Labelled()] * (len(self.program.invars) - len(labelled))
        results = flow.run(self.program, [*(value for _, value in labelled), *data])
        named = {path: (leaf.shape, value) for (_, leaf), (path, value) in zip(self.leaves, labelled, strict=True)}
        _returned(flow, named, zip(self.outputs, results, strict=True))
        found, free = _coupling(flow, labelled, self.examples)
        return found, [place for place, labels in flow.splits.items() if not free[labels].any()]


def _uncut(weight: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(weight.shape, weight.dtype)


def _returned(
    flow: Flow, variables: Mapping[str, tuple[Any, Labelled]], outputs: Iterable[tuple[tuple[str, Any], Labelled]]
) -> None:
    """New values of what stands beside `params`, as batch statistics do, are cut as that is; other outputs stay."""
    in_params = {path for path in variables if path.startswith("params/")}
    beside = {path: variables[path] for path in variables.keys() - in_params} if in_params else {}
    for (path, output), value in outputs:
        names = path.split("/")
        ends = ("/".join(names[n:]) for n in range(len(names)))
        shape, old = next((beside[end] for end in ends if end in beside), (None, value))
        if shape == output.shape:
            flow.joined([value, old], None)
            continue
        for labels in value.labels:
            flow.freeze(labels, f"an output of the network{f', {path}' if path else ''}")


class _Axis(NamedTuple):
    """An axis of a weight.

    Attributes:
      path: of the weight.
      place: from the front.
      name: of what it computes.
      channels: [size] int: which channel stands at each place.
      role: in the product that the weight is in.
      turn: of that product.
    """

    path: str
    place: int
    name: str
    channels: np.ndarray
    role: Role
    turn: int


def _coupling(flow: Flow, leaves: Sequence[tuple[str, Labelled]], batch: int) -> tuple[Coupling, np.ndarray]:
    """The groups; and of each label, whether it can be cut."""
    channels = _components(flow.found.coupled, flow.count)
    why: dict[int, str] = {}
    for labels, reason in flow.found.frozen:
        for channel in np.unique(channels[labels]).tolist():
            why.setdefault(channel, reason)
    axes = _axes(flow, leaves, channels)
    groups: list[Group] = []
    starts: dict[str, tuple[int, int]] = {}
    number = np.full(flow.count, -1)  # of each channel that can be cut; -1: it stays
    first = 0
    for where, alike, reason in _alike(axes, why):
        group = _group([axes[n] for n in where], alike, reason, {group.name for group in groups})
        groups.append(group)
        if not group.frozen:
            number[alike] = first + np.arange(group.size)
            starts[group.name] = (first, group.size)
            first += group.size
    found = flow.found.products
    collections = any(path.startswith("params/") for path, _ in leaves)
    products = tuple(
        Product(layer_of(each.source, collections), each.macs, tuple(number[channels[part]] for part in each.labels))
        for each in found
    )
    free, frozen = (tuple(group for group in groups if bool(group.frozen) == held) for held in (False, True))
    undefined = tuple(dict.fromkeys(flow.found.undefined))
    return Coupling(free, frozen, undefined, batch, products, starts), number[channels] >= 0


def _axes(flow: Flow, leaves: Sequence[tuple[str, Labelled]], channels: np.ndarray) -> list[_Axis]:
    """All that have channels; `channels`: of each label."""
    roles, turns = _roles(flow)
    inner = np.isin(np.arange(flow.count), np.concatenate([*flow.found.inner, []]))
    axes = []
    for path, labels in ((path, labels) for path, value in leaves for labels in value.labels):
        (place,), own = axes_of(labels), labels.ravel()
        if not inner[own].all():
            name = path if place == labels.ndim - 1 else f"{path}[{place}]"
            axes.append(_Axis(path, place, name, channels[own], roles[own[0]], int(turns[own[0]])))
    return axes


def _alike(axes: Sequence[_Axis], why: Mapping[int, str]) -> list[tuple[list[int], list[int], str]]:
    """Channels that stand at as many places of the same axes: these axes, the channels, and why they have to stay.

    They come in the order in which the program computes them.
    """
    places: dict[int, list[tuple[int, int]]] = {}
    for number, axis in enumerate(axes):
        for channel, count in zip(*np.unique(axis.channels, return_counts=True), strict=True):
            places.setdefault(int(channel), []).append((number, int(count)))
    alike: dict[Any, list[int]] = {}
    for channel, where in places.items():
        alike.setdefault((tuple(where), why.get(channel, "")), []).append(channel)
    found = [([number for number, _ in where], channels, reason) for (where, reason), channels in alike.items()]
    return sorted(found, key=lambda each: min(axes[number].turn for number in each[0]))


def _group(axes: Sequence[_Axis], channels: Sequence[int], reason: str, taken: Collection[str]) -> Group:
    """Of channels that stand along these axes, named after the first that computes them."""
    position = {channel: place for place, channel in enumerate(channels)}
    members = tuple(
        Member(axis.path, axis.place, axis.role, np.array([position.get(channel, -1) for channel in axis.channels]))
        for axis in axes
    )
    computing = min((axis for axis in axes if axis.role == "output"), key=lambda axis: axis.turn, default=None)
    unused = all(axis.role == "vector" for axis in axes)
    nothing = "no product uses them" if unused else "no weight computes them"
    reason = reason or ("" if computing else nothing) or ("a single channel" * (len(channels) == 1))
    name = (computing or axes[0]).name
    names = itertools.chain((name,), (f"{name}#{n}" for n in itertools.count(2)))
    return Group(next(each for each in names if each not in taken), len(channels), members, reason)


def _roles(flow: Flow) -> tuple[np.ndarray, np.ndarray]:
    """For each label, its role, and the turn of the product that computes its channel."""
    beside = _components(flow.found.same_role, flow.count)
    roles, turn = np.full(flow.count, "vector", object), np.full(flow.count, len(flow.found.products))
    for number, product in reversed([*enumerate(flow.found.products)]):
        turn[beside[product.outputs]] = number
        roles[beside[product.inputs]] = "input"
        roles[beside[product.outputs]] = "output"
    return roles[beside], turn[beside]


def _components(pairs: Sequence[np.ndarray], count: int) -> np.ndarray:
    """[count]: for each label, the number of those that pairs connect it with."""
    every = np.concatenate([*pairs, np.zeros((0, 2), int)])
    graph = coo_matrix((np.ones(len(every), bool), tuple(every.T)), (count, count))
    return connected_components(graph, directed=False)[1]
