"""Which channels of which weights have to be cut together."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from nncompress_jax.axes.places import axes_of
from nncompress_jax.coupling.flow import Flow
from nncompress_jax.coupling.labelled import Labelled
from nncompress_jax.errors import InputError
from nncompress_jax.table import Table
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Apply
from nncompress_jax.weights.base import is_compressed
from nncompress_jax.weights.channel_pruned import at, channel_pruned, cuts_of, is_plain
from nncompress_jax.weights.channels import Channels, intersection

Role = Literal["output", "input", "vector"]
"""Of an axis: its channels are computed there, summed over there, or only scaled, shifted and the like."""


@dataclasses.dataclass(frozen=True)
class Member:
    """An axis of a weight.

    Attributes:
      path: of the weight.
      axis: from the front.
      role: in the product that the weight is in.
      channels: [size of the axis] int: to which channel of the group each place belongs.
    """

    path: str
    axis: int
    role: Role
    channels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Group:
    """Axes whose channels are cut together.

    Attributes:
      name: path of the first weight that computes the channels as the program runs, or of one that has them; with the
        axis, if it is not the last.
      size: channels; each may stand at several places of an axis, and at none of another.
      members: the axes.
      frozen: why nothing of it can be cut, as "sort in Net/Layer_0: what it does to channels is not known"; empty: it
        can.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    frozen: str = ""


@dataclasses.dataclass(frozen=True, repr=False)
class Coupling:
    """All groups of a network, and what its multiply-accumulates are when channels of them stay; shown as a table.

    Attributes:
      groups: those that can be cut.
      frozen: those that cannot, each with the reason.
    """

    groups: tuple[Group, ...]
    frozen: tuple[Group, ...]
    _products: tuple[tuple[int, tuple[np.ndarray, ...]], ...] = ()
    _places: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    _shapes: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    def table(self) -> Table:
        """A row for each group: how many channels, of which axes, and what freezes it."""
        rows = [
            {
                "group": group.name,
                "channels": group.size,
                "axes": len(group.members),
                "computed by": sum(member.role == "output" for member in group.members),
                "summed in": sum(member.role == "input" for member in group.members),
                "frozen": group.frozen,
            }
            for group in (*self.groups, *self.frozen)
        ]
        title = f"{len(self.groups)} groups of channels can be cut, {len(self.frozen)} cannot"
        formats = {"group": "", "channels": ",", "axes": ",", "computed by": ",", "summed in": ",", "frozen": ""}
        return Table(title, formats, rows)

    def print(self) -> None:
        """The table, on the terminal."""
        self.table().print()

    def __repr__(self) -> str:
        return str(self.table())

    def macs(self, keep: Mapping[str, np.ndarray]) -> int:
        """Multiply-accumulates for one example.

        Args:
          keep: by group, [size] bool: which channels stay; all of a group that is not there.
        """
        there = np.ones(max([first + size for first, size in self._places.values()], default=0) + 1, bool)
        for name, mask in keep.items():
            first, size = self._places[name]
            there[first : first + size] = mask
        return round(
            sum(macs * float(np.prod([there[channels].mean() for channels in each])) for macs, each in self._products)
        )

    def parameters(self, keep: Mapping[str, np.ndarray]) -> int:
        """Entries of all leaves but batch statistics; `keep` as in `macs`."""
        sizes = {path: list(shape) for path, shape in self._shapes.items()}
        for group in self.groups:
            for member in group.members if group.name in keep else ():
                gone = ~np.append(keep[group.name], True)[member.channels]
                sizes[member.path][member.axis] -= int(gone.sum())
        return sum(math.prod(size) for path, size in sizes.items() if "batch_stats" not in path.split("/"))

    def cut(self, variables: Any, keep: Mapping[str, np.ndarray]) -> Any:
        """Variables without the other channels.

        Args:
          variables: dense, or cut before: what is gone stays so.
          keep: as in `macs`.

        Returns:
          The same tree with `ChannelPruned` weights where anything is cut.

        Raises:
          InputError: for groups that are not there, masks of another size, and groups of which nothing would stay.
        """
        groups = {group.name: group for group in self.groups}
        masks: dict[tuple[str, int], np.ndarray] = {}
        for name, mask in keep.items():
            if name not in groups:
                raise InputError(f"{name}: no group that can be cut; there are {', '.join(groups)}")
            if np.shape(mask) != (groups[name].size,):
                raise InputError(f"{name}: keep has shape {np.shape(mask)}, expected ({groups[name].size},)")
            if not np.any(mask):
                raise InputError(f"{name}: none of its {groups[name].size} channels would stay; keep one at least")
            for member in groups[name].members:
                here = (member.channels < 0) | np.asarray(mask, bool)[member.channels]
                masks[member.path, member.axis] = masks.get((member.path, member.axis), True) & here

        def new(path: str, leaf: Any) -> Any:
            asked = [masks.get((path, axis)) for axis in range(np.ndim(leaf))]
            wanted = [None if mask is None or mask.all() else Channels.at(mask) for mask in asked]
            cuts = tuple(map(intersection, zip(cuts_of(leaf), wanted, strict=True)))
            return channel_pruned(at(leaf, cuts), None, cuts)

        leaves = named_leaves(variables, is_compressed)
        structure = jax.tree.structure(variables, is_leaf=is_compressed)
        return jax.tree.unflatten(structure, [new(path, leaf) for path, leaf in leaves])

    def there(self, variables: Any) -> dict[str, np.ndarray]:
        """By group, [size] bool: which channels variables have, of which others may have been cut before."""
        leaves = dict(named_leaves(variables, is_compressed))
        masks = {group.name: np.ones(group.size, bool) for group in self.groups}
        for group in self.groups:
            for member in group.members:
                cut = cuts_of(leaves[member.path])[member.axis]
                if cut is not None:
                    gone = member.channels[~cut.mask]
                    masks[group.name][gone[gone >= 0]] = False
        return masks


def coupling(apply: Apply, variables: Any, example: Any, *inputs: Any) -> Coupling:
    """Finds, by tracing, which axes of which weights have to be cut together.

    Channels that a convolution or dot product sums over are those that another computed; what adds or multiplies
    channels, entry by entry, joins theirs. A group is frozen where its channels are an input or output of the network,
    where an operation needs all of them (a mean over channels), and where an operation is not known.

    Args:
      apply: of (variables, example, ...), in the mode in which it is used, so without batch statistics as outputs.
      variables: dense arrays, `jax.ShapeDtypeStruct`, or what `prune_channels` made of them: the groups are those of
        the uncut network.
      example: [B, ...], or its `jax.ShapeDtypeStruct`.
      *inputs: apply's further arguments.

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
    shape = next((jnp.shape(leaf) for leaf in jax.tree.leaves(example)), ())
    if not shape:
        raise InputError(f"example of shape {jax.tree.map(jnp.shape, example)}: expected [B, ...], a batch of inputs")
    uncut = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if is_compressed(leaf) else leaf for _, leaf in leaves]
    try:
        structure = jax.tree.structure(variables, is_leaf=is_compressed)
        program = jax.make_jaxpr(apply)(jax.tree.unflatten(structure, uncut), example, *inputs).jaxpr
    except InputError:
        raise
    except Exception as error:
        shapes = jax.tree.map(jnp.shape, (example, *inputs))
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"apply cannot be traced with inputs of shape {shapes}: {type(error).__name__}: {reason}"
        ) from error
    flow = Flow()
    floats = [jnp.issubdtype(leaf.dtype, jnp.floating) for _, leaf in leaves]
    labelled = [flow.leaf(path, leaf.shape if cut else ()) for (path, leaf), cut in zip(leaves, floats, strict=True)]
    results = flow.run(program, [*labelled, *[Labelled()] * (len(program.invars) - len(leaves))])
    for labels in (labels for value in results for labels in value.labels):
        flow.freeze(labels, "an output of the network")
    found = _coupling(flow, [(path, value) for (path, _), value in zip(leaves, labelled, strict=True)], shape[0])
    return dataclasses.replace(found, _shapes={path: tuple(leaf.shape) for path, leaf in leaves})


def _coupling(flow: Flow, leaves: Sequence[tuple[str, Labelled]], batch: int) -> Coupling:
    classes, (roles, turn) = _components(flow.found.coupled, flow.count), _roles(flow)
    why: dict[int, str] = {}
    for labels, reason in flow.found.frozen:
        for channel in np.unique(classes[labels]).tolist():
            why.setdefault(channel, reason)
    inner = np.isin(np.arange(flow.count), np.concatenate([*flow.found.inner, []]))
    axes = [(path, axes_of(labels)[0], labels.ravel()) for path, value in leaves for labels in value.labels]
    axes = [(path, axis, labels) for path, axis, labels in axes if not inner[labels].all()]
    # Channels that stand at as many places of the same axes are one group.
    places: dict[int, list[tuple[int, int]]] = {}
    for number, (_, _, labels) in enumerate(axes):
        for channel, count in zip(*np.unique(classes[labels], return_counts=True), strict=True):
            places.setdefault(int(channel), []).append((number, int(count)))
    alike: dict[Any, list[int]] = {}
    for channel, where in places.items():
        alike.setdefault((tuple(where), why.get(channel, "")), []).append(channel)

    groups: list[Group] = []
    starts: dict[str, tuple[int, int]] = {}
    number_of, first = np.full(flow.count, -1), 0
    for (where, reason), channels in sorted(
        alike.items(), key=lambda item: min(turn[axes[n][2][0]] for n, _ in item[0][0])
    ):
        position = np.full(classes.max() + 1, -1)
        position[channels] = np.arange(len(channels))
        members = tuple(
            Member(axes[n][0], axes[n][1], roles[axes[n][2][0]], position[classes[axes[n][2]]]) for n, _ in where
        )
        computing = [(turn[axes[n][2][0]], i) for i, (n, _) in enumerate(where) if members[i].role == "output"]
        named = members[min(computing)[1]] if computing else None
        reason = reason or ("" if named else "no weight computes them") or ("a single channel" * (len(channels) == 1))
        name = _name(named or members[0], leaves, {group.name for group in groups})
        groups.append(Group(name, len(channels), members, reason))
        if not reason:
            number_of = np.where(position[classes] >= 0, first + position[classes], number_of)
            starts[name] = (first, len(channels))
            first += len(channels)
    products = tuple(
        (each.macs // batch, tuple(number_of[labels] for labels in each.labels)) for each in flow.found.products
    )
    free, frozen = (tuple(group for group in groups if bool(group.frozen) == held) for held in (False, True))
    return Coupling(free, frozen, products, starts)


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


def _name(member: Member, leaves: Sequence[tuple[str, Labelled]], taken: set[str]) -> str:
    """The weight's path; with the axis, or a number, where that is another group's."""
    rank = next(value.labels[0].ndim for path, value in leaves if path == member.path)
    name = member.path if member.axis == rank - 1 else f"{member.path}[{member.axis}]"
    names = itertools.chain((name,), (f"{name}#{n}" for n in itertools.count(2)))
    return next(each for each in names if each not in taken)
