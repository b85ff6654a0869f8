"""What a data set is to the rest of the library."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, Protocol

import jax
import numpy as np

from resnet_jax.data.batches import Batch, epoch_order


class DataError(Exception):
    """Data that cannot be used; the message names it, what was expected, and what to do."""


class Split(Protocol):
    """A part of a data set, in memory or in files."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of what batches hold."""
        ...

    @property
    def labels(self) -> np.ndarray:
        """int32[N]."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes when the data does."""
        ...

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Of the images that were skipped so far, names and reasons."""
        ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray:
        """uint8[H, W, C], as evaluation gets it."""
        ...

    def train_batches(
        self, batch_size: int, *, seed: int, start_step: int
    ) -> Iterator[Batch[np.ndarray]]:
        """Endless shuffled batches from a step on.

        The epochs follow each other without a gap, each in an order of its own: every example comes
        once an epoch, also where the batch does not divide the split, and nothing is dropped.
        Where to start costs nothing, however late: the step is the whole position.

        Args:
            batch_size: examples a batch.
            seed: decides the order.
            start_step: number of batches to skip.
        """
        ...

    def eval_batches(self, batch_size: int) -> Iterator[Batch[np.ndarray]]:
        """The whole split in order, every example once, the last batch padded to full size."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySplit:
    """A split in memory; see `Split`.

    Attributes:
        images: uint8[N, H, W, C].
        labels: int32[N].
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """As in `Split`."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the images and labels."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(self.images.tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()

    @property
    def unreadable(self) -> Mapping[str, str]:
        """None."""
        return {}

    def image(self, index: int) -> np.ndarray:
        """As in `Split`."""
        return self.images[index]

    def train_batches(
        self, batch_size: int, *, seed: int, start_step: int
    ) -> Iterator[Batch[np.ndarray]]:
        """As in `Split`."""
        epoch, offset = divmod(start_step * batch_size, len(self))
        order = epoch_order(len(self), seed, epoch)[offset:]
        while True:
            while len(order) < batch_size:
                epoch += 1
                order = np.concatenate([order, epoch_order(len(self), seed, epoch)])
            indices, order = order[:batch_size], order[batch_size:]
            yield Batch(self.images[indices], self.labels[indices], np.ones(batch_size, bool))

    def eval_batches(self, batch_size: int) -> Iterator[Batch[np.ndarray]]:
        """As in `Split`."""
        for start in range(0, len(self), batch_size):
            images = self.images[start : start + batch_size]
            labels = self.labels[start : start + batch_size]
            padding = batch_size - len(labels)
            yield Batch(
                np.pad(images, ((0, padding), (0, 0), (0, 0), (0, 0))),
                np.pad(labels, (0, padding)),
                np.arange(batch_size) < len(labels),
            )


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
        augment: (key, uint8[B, H, W, C] images, int32[B] labels) to float32[B, H', W', C] images
            and either the labels or float32[B, K] targets, for training; jittable, and the same
            whatever the sharding.
        prepare: uint8[B, H, W, C] to float32[B, H', W', C], for evaluation; jittable.
    """

    name: str
    train: Split
    evaluation: Split
    evaluation_split: Literal["validation", "test"]
    class_names: tuple[str, ...]
    augment: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
    prepare: Callable[[jax.Array], jax.Array]

    @property
    def fingerprint(self) -> str:
        """Of the training split: a run is only continued on the data it began with."""
        return self.train.fingerprint
