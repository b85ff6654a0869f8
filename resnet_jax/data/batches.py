"""What a batch is, and in which order examples come."""

import functools
from typing import Generic, NamedTuple, TypeVar

import numpy as np

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


class Selection(NamedTuple, Generic[Array]):
    """Which examples of arrays that lie on the devices make a batch.

    Attributes:
        index: int32[B].
        mask: bool[B]; False marks padding, which must count nowhere.
    """

    index: Array
    mask: Array


@functools.lru_cache(maxsize=4)
def epoch_order(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    """In which order the examples of a split come in an epoch: a permutation, not to be changed."""
    order = np.random.default_rng((seed, epoch)).permutation(num_examples)
    order.flags.writeable = False
    return order
