"""Networks without the channels that were cut."""

from typing import Any

import jax

from nncompress_jax.errors import InputError
from nncompress_jax.tree import named_leaves
from nncompress_jax.weights.base import is_compressed
from nncompress_jax.weights.channel_pruned import ChannelPruned


def shrink(variables: Any) -> Any:
    """What is there of `ChannelPruned` weights, as arrays of that shape: the variables of a narrower network.

    It runs on a network of these widths: of `nnc.models`, `models.fitting(network, shrunk)`. Where the widths of a
    network are no option, `inject(apply)` on the `ChannelPruned` weights is the narrower network.

    Args:
      variables: of `prune_channels`; what stays may be compressed further.

    Raises:
      InputError: for missing channels that are not zero.

    Example:
      >>> import jax.numpy as jnp
      >>> from nncompress_jax.weights.channels import Channels
      >>> shrink({"kernel": ChannelPruned(jnp.ones((3, 2)), None, (None, Channels.of(4, [0, 3])))})["kernel"].shape
      (3, 2)
    """
    leaves = named_leaves(variables, is_compressed)
    if filled := [path for path, leaf in leaves if isinstance(leaf, ChannelPruned) and leaf.fill is not None]:
        raise InputError(f"{', '.join(filled)}: missing channels are not zero, a narrower array cannot stand for it")
    small = [leaf.values if isinstance(leaf, ChannelPruned) else leaf for _, leaf in leaves]
    return jax.tree.unflatten(jax.tree.structure(variables, is_leaf=is_compressed), small)
