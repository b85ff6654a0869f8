"""How arrays lie on the devices: everything about it is said here."""

from collections.abc import Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from resnet_jax.training.state import TrainState

Tree = TypeVar("Tree")


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A one-dimensional mesh with the axis ``data`` over all devices, or over the given ones."""
    if devices is None:
        devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    # Not `jax.make_mesh`, which may reorder the devices: those of a process must be neighbours, as
    # the examples are that it reads.  With Auto axes the compiler places what is in between.
    return Mesh(np.asarray(devices), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device: parameters and metrics."""
    return NamedSharding(mesh, PartitionSpec())


def spread(shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    """The longest axis that the devices can share evenly in equal parts, else full copies."""
    shareable = [axis for axis, size in enumerate(shape) if size and size % mesh.size == 0]
    if not shareable:
        return replicated(mesh)
    axis = max(shareable, key=lambda axis: shape[axis])
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))


def state_shardings(state: TrainState, mesh: Mesh, *, shard_optimizer: bool) -> TrainState:
    """How each array of a state lies: full copies, but for the optimizer's and the averages."""
    shardings = jax.tree.map(lambda _: replicated(mesh), state)
    if not shard_optimizer:
        return shardings
    opt_state, ema = jax.tree.map(
        lambda leaf: spread(leaf.shape, mesh), (state.opt_state, state.ema)
    )
    return shardings.replace(opt_state=opt_state, ema=ema)


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
