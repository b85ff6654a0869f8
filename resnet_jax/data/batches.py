"""Batches, and the order in which an epoch visits the examples."""

import functools
from typing import Generic, NamedTuple, TypeVar

import numpy as np

Array = TypeVar("Array")


class Batch(NamedTuple, Generic[Array]):
    """A batch of images for the devices: NumPy arrays, JAX arrays or abstract arrays.

    Attributes:
        image: uint8[B, H, W, C].
        label: int32[B]. Entries where ``mask`` is False mean nothing.
        mask: bool[B]. False marks padding and images that were skipped; they must not affect any
            result.
    """

    image: Array
    label: Array
    mask: Array


class Selection(NamedTuple, Generic[Array]):
    """The examples of a batch, as indices into arrays that are on the devices.

    Attributes:
        index: int32[B].
        mask: bool[B]. False marks padding, which must not affect any result.
        mirrored: bool[B], whether an image is mirrored horizontally. None mirrors none.
    """

    index: Array
    mask: Array
    mirrored: Array | None = None


class Indexed(NamedTuple, Generic[Array]):
    """A batch of images, with the positions of the examples in their split.

    Attributes:
        batch: The images.
        index: int32[B].
    """

    batch: Batch[Array]
    index: Array


@functools.lru_cache(maxsize=4)
def epoch_order(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of the examples in an epoch, int64[N], a permutation that is read-only."""
    order = np.random.default_rng((seed, epoch)).permutation(num_examples)
    order.flags.writeable = False
    return order
