"""One mesh axis, `data`: every device of every process holds the whole state and a share of each batch."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nncompress_jax.errors import InputError


def data_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """The mesh over the given devices, by default over all: those of one process stand side by side.

    Example:
      >>> data_mesh().axis_names
      ('data',)
    """
    ordered = sorted(devices or jax.devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(ordered), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh) -> NamedSharding:
    """Every device holds its share of the first axis."""
    return NamedSharding(mesh, PartitionSpec("data"))


def shared(mesh: Mesh, count: int, *, axis: int = 0) -> NamedSharding:
    """Every device holds its share of a batch; the whole batch, where the devices do not divide it evenly.

    Args:
      mesh: of `data_mesh`.
      count: B, examples of the batch.
      axis: along which they lie.
    """
    if count % mesh.size:
        return replicated(mesh)
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))


def own_share(count: int, mesh: Mesh) -> slice:
    """Which of a batch's examples this process reads: those that its devices take.

    Args:
      count: of examples; as in `shared`.
      mesh: of `data_mesh`.
    """
    if count % mesh.size:
        return slice(count)
    own = [place for place, device in enumerate(mesh.devices.flat) if device.process_index == jax.process_index()]
    each = count // mesh.size
    return slice(own[0] * each, (own[-1] + 1) * each)


def place(own: Any, sharding: NamedSharding) -> Any:
    """Arrays on all devices of all processes.

    Args:
      own: what this process has of each array or PRNG key: its share, or, where they stand whole, all.
      sharding: of this module.
    """

    def placed(leaf: Any) -> jax.Array:
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(placed(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        return jax.make_array_from_process_local_data(sharding, np.asarray(leaf))

    return jax.tree.map(placed, own)


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises InputError unless every device gets the same number of examples, at least one."""
    if batch_size < 1 or batch_size % mesh.size:
        raise InputError(f"batch_size={batch_size}: expected a positive multiple of the {mesh.size} devices")
