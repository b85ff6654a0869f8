"""Batches of an in-memory split, each a function of seed and step alone."""

from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from resnet_jax.data.dataset import Split

Array = TypeVar("Array")


class Batch(NamedTuple, Generic[Array]):
    """Images as they go to the devices, as arrays of NumPy, of JAX or abstract ones.

    Attributes:
        image: uint8[B, H, W, C].
        label: int32[B].
        mask: bool[B]; False marks padding, which must count nowhere.
    """

    image: Array
    label: Array
    mask: Array


def train_batches(
    split: Split, batch_size: int, *, seed: int, start_step: int
) -> Iterator[Batch[np.ndarray]]:
    """Endless shuffled batches from a step on.

    The epochs follow each other without a gap, each in an order of its own: every example comes
    once an epoch, also where the batch does not divide the split, and nothing is dropped.  Where
    to start costs nothing, however late: the step is the whole position.

    Args:
        split: where the examples come from.
        batch_size: examples a batch.
        seed: decides the order.
        start_step: number of batches to skip.
    """
    epoch = start_step * batch_size // len(split)
    offset = start_step * batch_size % len(split)
    order = _epoch_order(split, seed, epoch)[offset:]
    while True:
        while len(order) < batch_size:
            epoch += 1
            order = np.concatenate([order, _epoch_order(split, seed, epoch)])
        indices, order = order[:batch_size], order[batch_size:]
        yield Batch(split.images[indices], split.labels[indices], np.ones(batch_size, bool))


def eval_batches(split: Split, batch_size: int) -> Iterator[Batch[np.ndarray]]:
    """The whole split in order, every example once, the last batch padded to full size."""
    for start in range(0, len(split), batch_size):
        images = split.images[start : start + batch_size]
        labels = split.labels[start : start + batch_size]
        padding = batch_size - len(labels)
        yield Batch(
            np.pad(images, ((0, padding), (0, 0), (0, 0), (0, 0))),
            np.pad(labels, (0, padding)),
            np.arange(batch_size) < len(labels),
        )


def _epoch_order(split: Split, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(len(split))
