"""A split that is kept in memory as arrays."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Mapping
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.config.sampling import SamplingConfig
from resnet_jax.data.batches import Batch, Selection
from resnet_jax.data.sampling import Sampling, first_flips


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySplit:
    """A `Split` in memory, which every device keeps as a whole.

    Attributes:
        images: uint8[N, H, W, C].
        labels: int32[N].
        sampling_config: Which examples an epoch of training visits.
        alternating_flip: Probability that an image is mirrored in the first epoch. In each epoch
            all others are mirrored. None mirrors no images.
    """

    images: np.ndarray
    labels: np.ndarray
    sampling_config: SamplingConfig = SamplingConfig()
    alternating_flip: float | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    @functools.cached_property
    def sampling(self) -> Sampling:
        """The order in which training visits the examples."""
        return Sampling(self.sampling_config, len(self), self.labels)

    @property
    def epoch_size(self) -> int:
        """Number of examples in an epoch of training; see `Split.epoch_size`."""
        return self.sampling.epoch_size

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the images and labels."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(self.images.tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()

    @property
    def unreadable(self) -> Mapping[str, str]:
        """An empty mapping, because all images have been read already."""
        return {}

    @property
    def resident(self) -> tuple[np.ndarray, np.ndarray]:
        """The images and the labels."""
        return self.images, self.labels

    @property
    def example(self) -> Selection[jax.ShapeDtypeStruct]:
        """An index and whether it counts; see `Split.example`."""
        flag = jax.ShapeDtypeStruct((), bool)
        mirrored = None if self.alternating_flip is None else flag
        return Selection(jax.ShapeDtypeStruct((), np.int32), flag, mirrored)

    def with_index(self) -> Self:
        """Return the split itself, whose selections have the positions of the examples."""
        return self

    def image(self, index: int) -> np.ndarray:
        """Return an image, uint8[H, W, C]."""
        return self.images[index]

    def name(self, index: int) -> str:
        """Return the number of an example, since arrays have no names."""
        return f"example {index}"

    def fetch(
        self, resident: tuple[jax.Array, jax.Array], drawn: Selection[jax.Array]
    ) -> Batch[jax.Array]:
        """Gather the selected examples from the arrays on the device; see `Split.fetch`."""
        images, labels = (
            jnp.asarray(array).at[drawn.index].get(mode="promise_in_bounds") for array in resident
        )
        if drawn.mirrored is not None:
            mirrored = drawn.mirrored[:, None, None, None]
            images = jnp.where(mirrored, images[:, :, ::-1], images)
        return Batch(images, labels, drawn.mask)

    def resized(self, size: int) -> Self:
        """Return the same split, because its images are resized after their augmentation."""
        del size
        return self

    def train_batches(
        self,
        batch_size: int,
        *,
        seed: int,
        start_step: int,
        offset: int = 0,
        process_index: int = 0,
        process_count: int = 1,
    ) -> Iterator[Selection[np.ndarray]]:
        """Iterate over shuffled selections without end; see `Split.train_batches`."""
        part = _part(batch_size, process_index, process_count)
        first = offset + start_step * batch_size
        positions = np.arange(first, first + batch_size)[part]
        while True:
            index, epochs = self.sampling.at(seed, positions)
            mirrored = None
            if self.alternating_flip is not None:
                first = first_flips(len(self), seed, self.alternating_flip)[index]
                mirrored = first ^ (epochs % 2 == 1)
            yield Selection(index.astype(np.int32), np.ones(len(index), bool), mirrored)
            positions += batch_size

    def eval_batches(
        self, batch_size: int, *, process_index: int = 0, process_count: int = 1
    ) -> Iterator[Selection[np.ndarray]]:
        """Iterate over the whole split in order; see `Split.eval_batches`."""
        part = _part(batch_size, process_index, process_count)
        for start in range(0, len(self), batch_size):
            index = np.arange(start, start + batch_size, dtype=np.int32)[part]
            mask = index < len(self)
            mirrored = None if self.alternating_flip is None else np.zeros(len(index), bool)
            yield Selection(np.where(mask, index, 0), mask, mirrored)


def _part(batch_size: int, process_index: int, process_count: int) -> slice:
    """Return the part of a global batch that belongs to one of several processes."""
    local = batch_size // process_count
    return slice(process_index * local, (process_index + 1) * local)
