"""Placement of arrays on the devices; no other module decides it."""

from collections.abc import Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from resnet_jax.training.state import TrainState

Tree = TypeVar("Tree")


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Return a one-dimensional mesh with the axis ``data`` over given devices, by default all."""
    if devices is None:
        devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    # `jax.make_mesh` may reorder the devices. Here the devices of a process must be neighbors,
    # because the examples that it reads are. Auto axes let the compiler place intermediate arrays.
    return Mesh(np.asarray(devices), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding with a full copy on every device, for parameters and metrics."""
    return NamedSharding(mesh, PartitionSpec())


def spread(shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    """Return a sharding that splits the longest axis which the devices can share evenly.

    If there is no such axis, every device has a full copy.
    """
    shareable = [axis for axis, size in enumerate(shape) if size and size % mesh.size == 0]
    if not shareable:
        return replicated(mesh)
    axis = max(shareable, key=lambda axis: shape[axis])
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))


def state_shardings(state: TrainState, mesh: Mesh, *, shard_optimizer: bool) -> TrainState:
    """Return the sharding of each array of a state.

    Args:
        state: Arrays or their shapes.
        mesh: The devices.
        shard_optimizer: Spread the optimizer state and the moving averages over the devices. All
            other arrays have a full copy on every device.
    """
    shardings = jax.tree.map(lambda _: replicated(mesh), state)
    if not shard_optimizer:
        return shardings
    opt_state, ema = jax.tree.map(
        lambda leaf: spread(leaf.shape, mesh), (state.opt_state, state.ema)
    )
    return shardings.replace(opt_state=opt_state, ema=ema)


def batch_sharded(mesh: Mesh) -> NamedSharding:
    """Return the sharding that splits the first axis evenly, for images, labels and logits."""
    return NamedSharding(mesh, PartitionSpec("data"))


def shard_batch(batch: Tree, mesh: Mesh) -> Tree:
    """Return a batch on the devices, given this process's part of it in NumPy arrays."""
    return _put(batch, batch_sharded(mesh))


def replicate(arrays: Tree, mesh: Mesh) -> Tree:
    """Return NumPy arrays, equal in every process, with a full copy on every device."""
    return _put(arrays, replicated(mesh))


def fetch(arrays: Tree, mesh: Mesh) -> Tree:
    """Return arrays on the devices as NumPy arrays, even if the devices share them.

    All processes must call it.
    """
    return jax.device_get(jax.jit(lambda tree: tree, out_shardings=replicated(mesh))(arrays))


def _put(arrays: Tree, sharding: NamedSharding) -> Tree:
    return jax.tree.map(
        lambda array: jax.make_array_from_process_local_data(sharding, array), arrays
    )
