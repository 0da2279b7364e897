"""Groups of channels that have to be cut together, and what a network costs without some of them."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np

from nncompress_jax.errors import InputError
from nncompress_jax.leaves import native
from nncompress_jax.table import Table
from nncompress_jax.tree import named_leaves, rebuilt
from nncompress_jax.weights.base import is_compressed
from nncompress_jax.weights.channel_pruned import at, channel_pruned, cuts_of
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


@dataclasses.dataclass(frozen=True)
class Product:
    """A convolution or dot product.

    Attributes:
      layer: whose weights it multiplies, as `nnc.cost` names it; empty: data by data.
      macs: multiply-accumulates over the whole batch, with all channels.
      channels: arrays of their numbers, -1 for one that stays; the shares that stay are multiplied.
    """

    layer: str
    macs: int
    channels: tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True, repr=False)
class Coupling:
    """All groups of a network, and what its multiply-accumulates are when channels of them stay; shown as a table.

    Attributes:
      groups: those that can be cut.
      frozen: those that cannot, each with the reason.
      undefined: operations that divide zero by zero in cut channels, as weight normalization does: the cut network
        takes that for zero, a dense one with zeros in their places for NaN.
    """

    groups: tuple[Group, ...]
    frozen: tuple[Group, ...]
    undefined: tuple[str, ...] = ()
    _examples: int = 1
    _products: tuple[Product, ...] = ()
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
        layers: dict[str, int] = {}
        for product in self._products:
            share = math.prod(there[channels].mean() for channels in product.channels)
            layers[product.layer] = layers.get(product.layer, 0) + round(product.macs * float(share))
        return sum(macs // self._examples for macs in layers.values())

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

        paths = {path for path, _ in masks}

        def new(path: str, leaf: Any) -> Any:
            if path not in paths:
                return leaf
            leaf = native(leaf)
            asked = [masks.get((path, axis)) for axis in range(np.ndim(leaf))]
            wanted = [None if mask is None or mask.all() else Channels.at(mask) for mask in asked]
            cuts = tuple(map(intersection, zip(cuts_of(leaf), wanted, strict=True)))
            return channel_pruned(at(leaf, cuts), None, cuts)

        leaves = named_leaves(variables, is_compressed)
        structure = jax.tree.structure(variables, is_leaf=is_compressed)
        return rebuilt(structure, [new(path, leaf) for path, leaf in leaves])

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
