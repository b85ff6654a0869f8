"""What a data set is to the rest of the library."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.data.batches import Batch, Selection, epoch_order
from resnet_jax.data.preprocessing import Preprocessing


class DataError(Exception):
    """Data that cannot be used; the message names it, what was expected, and what to do."""


class Split(Protocol):
    """A part of a data set, in memory or in files.

    Its iterators yield what goes from the host to the devices for each batch: whole batches, or
    no more than the indices of examples in arrays that lie there.  `fetch` makes a batch of it.
    """

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

    @property
    def resident(self) -> Any:
        """Arrays that every device is to keep throughout the run; a tree of them, or none."""
        ...

    @property
    def example(self) -> Any:
        """What the iterators yield, as `jax.ShapeDtypeStruct` without the axis of examples."""
        ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray:
        """uint8[H, W, C], as evaluation gets it."""
        ...

    def fetch(self, resident: Any, drawn: Any) -> Batch[jax.Array]:
        """The batch that an item of the iterators stands for; jittable."""
        ...

    def train_batches(
        self,
        batch_size: int,
        *,
        seed: int,
        start_step: int,
        process_index: int = 0,
        process_count: int = 1,
    ) -> Iterator[Any]:
        """Endless shuffled batches from a step on.

        The epochs follow each other without a gap, each in an order of its own: every example comes
        once an epoch, also where the batch does not divide the split, and nothing is dropped.
        Where to start costs nothing, however late: the step is the whole position.

        Args:
            batch_size: examples of the global batch.
            seed: decides the order.
            start_step: number of batches to skip.
            process_index: which part of each batch to yield.
            process_count: number of parts; it divides the batch.
        """
        ...

    def eval_batches(
        self, batch_size: int, *, process_index: int = 0, process_count: int = 1
    ) -> Iterator[Any]:
        """The whole split in order, every example once, the last batch padded to full size.

        All processes yield equally many.
        """
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySplit:
    """A split in memory, which lies on every device as a whole; see `Split`.

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

    @property
    def resident(self) -> tuple[np.ndarray, np.ndarray]:
        """The images and the labels."""
        return self.images, self.labels

    @property
    def example(self) -> Selection[jax.ShapeDtypeStruct]:
        """As in `Split`."""
        return Selection(jax.ShapeDtypeStruct((), np.int32), jax.ShapeDtypeStruct((), bool))

    def image(self, index: int) -> np.ndarray:
        """As in `Split`."""
        return self.images[index]

    def fetch(
        self, resident: tuple[jax.Array, jax.Array], drawn: Selection[jax.Array]
    ) -> Batch[jax.Array]:
        """As in `Split`."""
        images, labels = (
            jnp.asarray(array).at[drawn.index].get(mode="promise_in_bounds") for array in resident
        )
        return Batch(images, labels, drawn.mask)

    def train_batches(
        self,
        batch_size: int,
        *,
        seed: int,
        start_step: int,
        process_index: int = 0,
        process_count: int = 1,
    ) -> Iterator[Selection[np.ndarray]]:
        """As in `Split`."""
        part = _part(batch_size, process_index, process_count)
        epoch, offset = divmod(start_step * batch_size, len(self))
        order = epoch_order(len(self), seed, epoch)[offset:]
        while True:
            while len(order) < batch_size:
                epoch += 1
                order = np.concatenate([order, epoch_order(len(self), seed, epoch)])
            index, order = order[:batch_size][part], order[batch_size:]
            yield Selection(index.astype(np.int32), np.ones(len(index), bool))

    def eval_batches(
        self, batch_size: int, *, process_index: int = 0, process_count: int = 1
    ) -> Iterator[Selection[np.ndarray]]:
        """As in `Split`."""
        part = _part(batch_size, process_index, process_count)
        for start in range(0, len(self), batch_size):
            index = np.arange(start, start + batch_size, dtype=np.int32)[part]
            mask = index < len(self)
            yield Selection(np.where(mask, index, 0), mask)


def _part(batch_size: int, process_index: int, process_count: int) -> slice:
    """What one of several processes has of a batch."""
    local = batch_size // process_count
    return slice(process_index * local, (process_index + 1) * local)


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
        preprocessing: what evaluation does to an image of any size, on the host and on the device.
    """

    name: str
    train: Split
    evaluation: Split
    evaluation_split: Literal["validation", "test"]
    class_names: tuple[str, ...]
    augment: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
    preprocessing: Preprocessing

    @property
    def prepare(self) -> Callable[[jax.Array], jax.Array]:
        """uint8[B, H, W, C] to float32[B, H', W', C], for evaluation; jittable."""
        return self.preprocessing.on_device

    @property
    def fingerprint(self) -> str:
        """Of both splits: a run is only continued, and evaluated, on the data it began with."""
        parts = f"{self.train.fingerprint} {self.evaluation.fingerprint}"
        return hashlib.sha256(parts.encode()).hexdigest()
