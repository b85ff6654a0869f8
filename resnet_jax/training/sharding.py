"""How arrays lie on the devices: everything about it is said here."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from resnet_jax.data import Batch


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A one-dimensional mesh with the axis ``data`` over all devices, or over the given ones."""
    devices = jax.devices() if devices is None else devices
    # `jax.make_mesh` defaults to Explicit axes, under which programs that leave the placement to
    # the compiler, as ours do, are rejected.
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device: state and metrics."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharded(mesh: Mesh) -> NamedSharding:
    """The first axis in equal parts: images, labels, logits."""
    return NamedSharding(mesh, PartitionSpec("data"))


def shard_batch(batch: Batch[np.ndarray], mesh: Mesh) -> Batch[jax.Array]:
    """Puts this process's part of a batch on its devices as part of the global batch."""

    def put(array: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(batch_sharded(mesh), array)

    return jax.tree.map(put, batch)
