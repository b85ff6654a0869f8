"""How arrays lie on the devices: everything about it is said here."""

from collections.abc import Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

Tree = TypeVar("Tree")


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A one-dimensional mesh with the axis ``data`` over all devices, or over the given ones."""
    if devices is None:
        devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    # Not `jax.make_mesh`, which may reorder the devices: those of a process must be neighbours, as
    # the examples are that it reads.  With Auto axes the compiler places what is in between.
    return Mesh(np.asarray(devices), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device: state and metrics."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharded(mesh: Mesh) -> NamedSharding:
    """The first axis in equal parts: images, labels, logits."""
    return NamedSharding(mesh, PartitionSpec("data"))


def shard_batch(batch: Tree, mesh: Mesh) -> Tree:
    """Puts this process's part of a batch of NumPy arrays on its devices, as part of the whole."""
    return _put(batch, batch_sharded(mesh))


def replicate(arrays: Tree, mesh: Mesh) -> Tree:
    """Puts arrays of NumPy, the same in every process, on every device as a whole."""
    return _put(arrays, replicated(mesh))


def _put(arrays: Tree, sharding: NamedSharding) -> Tree:
    return jax.tree.map(
        lambda array: jax.make_array_from_process_local_data(sharding, array), arrays
    )
