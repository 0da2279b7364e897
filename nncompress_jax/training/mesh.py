"""One mesh axis, `data`: every device holds the whole state and a share of each batch."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nncompress_jax.errors import InputError


def data_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """The mesh over the given devices, by default over all.

    Example:
      >>> data_mesh().axis_names
      ('data',)
    """
    return Mesh(np.array(devices or jax.devices()), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh) -> NamedSharding:
    """Every device holds its share of the first axis."""
    return NamedSharding(mesh, PartitionSpec("data"))


def batches_by_example(mesh: Mesh) -> NamedSharding:
    """Every device holds its share of each batch: of the second axis."""
    return NamedSharding(mesh, PartitionSpec(None, "data"))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises InputError unless every device gets the same number of examples, at least one."""
    if batch_size < 1 or batch_size % mesh.size:
        raise InputError(f"batch_size={batch_size}: expected a positive multiple of the {mesh.size} devices")
