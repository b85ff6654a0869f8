"""What a data set is to the rest of the library."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Literal

import jax
import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """A part of a data set, in memory.

    Attributes:
        images: uint8[N, H, W, C].
        labels: int32[N].
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Images to train and to evaluate on, and how the device prepares them.

    Attributes:
        name: for people.
        train: the training split.
        evaluation: the split that accuracy is reported on.
        evaluation_split: a checkpoint may be chosen by its ``"validation"`` accuracy, never by
            its ``"test"`` accuracy.
        class_names: name of every label.
        augment: (key, uint8[B, H, W, C]) to float32[B, H', W', C], for training; jittable, and
            the same whatever the sharding.
        prepare: uint8[B, H, W, C] to float32[B, H', W', C], for evaluation; jittable.
    """

    name: str
    train: Split
    evaluation: Split
    evaluation_split: Literal["validation", "test"]
    class_names: tuple[str, ...]
    augment: Callable[[jax.Array, jax.Array], jax.Array]
    prepare: Callable[[jax.Array], jax.Array]

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the training split: a run is only continued on the data it began with."""
        digest = hashlib.sha256(repr(self.train.images.shape).encode())
        digest.update(self.train.images.tobytes())
        digest.update(self.train.labels.tobytes())
        return digest.hexdigest()
