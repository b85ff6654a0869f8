"""The interface between data sets and the rest of the library."""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol, Self

import jax
import numpy as np

from resnet_jax.data.augment.resample import resize
from resnet_jax.data.batches import Batch
from resnet_jax.data.preprocessing import Preprocessing


class DataError(Exception):
    """Raised for data that cannot be used.

    The message names the data, says what was expected, and says what to do.  It can be printed and
    written as UTF-8 even if it names a file whose name is not UTF-8, see `printable`.
    """

    def __init__(self, *parts: str) -> None:
        super().__init__(*map(printable, parts))


def printable(text: str) -> str:
    r"""Return a text that every file and terminal with UTF-8 accepts.

    Python represents the bytes of a file name that are not UTF-8, such as the é of an old archive
    with Latin-1 names, by lone surrogates.  They are shown as escapes here: ``caf\xe9.jpg``.
    """
    return _SURROGATE.sub(_escape, text)


# Lone surrogates; Python's strings have no others.
_SURROGATE = re.compile("[\ud800-\udfff]")


def _escape(surrogate: re.Match[str]) -> str:
    code = ord(surrogate[0])
    # The surrogates that stand for the bytes from 0x80 to 0xFF, see PEP 383.
    return rf"\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else rf"\u{code:04x}"


class Split(Protocol):
    """A part of a data set, in memory or in files.

    Its iterators yield what the host sends to the devices for each batch: either whole batches, or
    only the indices of examples in arrays that are already there.  `fetch` turns what they yield
    into a batch.
    """

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images in a batch."""
        ...

    @property
    def labels(self) -> np.ndarray:
        """Labels of all examples, int32[N].

        Some data sets have to read every image file for them, and a damaged file then raises
        `DataError`.  Evaluation takes the labels from its batches instead, which also say which
        examples were skipped.
        """
        ...

    @property
    def fingerprint(self) -> str:
        """Text that changes when the data changes."""
        ...

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Names of the images that were skipped so far, with the reason for each."""
        ...

    @property
    def resident(self) -> Any:
        """Arrays that every device keeps during the whole run: a pytree, which may be empty."""
        ...

    @property
    def example(self) -> Any:
        """What the iterators yield, as `jax.ShapeDtypeStruct` without the batch axis."""
        ...

    @property
    def epoch_size(self) -> int:
        """Number of examples in an epoch of training, each counted as often as it is drawn."""
        ...

    def __len__(self) -> int: ...

    def with_index(self) -> "Split":
        """Return the split whose iterators also yield positions, int32[B], as ``index``."""
        ...

    def image(self, index: int) -> np.ndarray:
        """Return an image as evaluation uses it, uint8[H, W, C]."""
        ...

    def name(self, index: int) -> str:
        """Return where an image comes from, such as the path of its file. It is `printable`."""
        ...

    def fetch(self, resident: Any, drawn: Any) -> Batch[jax.Array]:
        """Return the batch that an item of the iterators stands for. It can be jitted.

        Args:
            resident: The arrays in `resident`, on the devices.
            drawn: The item, on the devices.
        """
        ...

    def resized(self, size: int) -> Self:
        """Return the same examples for training on images of another height and width, in pixels.

        A split of image files crops them to that size.  A split in memory returns itself, because
        `Dataset.resized` resizes its images on the devices.
        """
        ...

    def train_batches(
        self,
        batch_size: int,
        *,
        seed: int,
        start_step: int,
        offset: int = 0,
        process_index: int = 0,
        process_count: int = 1,
    ) -> Iterator[Any]:
        """Iterate over shuffled training batches without end.

        Epochs of `epoch_size` examples follow each other without a gap, each in a different order.
        Unless the split has another `SamplingConfig`, every example appears once in an epoch and
        none is dropped, even if the batch size does not divide the number of examples.  A late
        start costs nothing, because the step and the offset alone determine the position.

        Args:
            batch_size: Number of examples in the global batch.
            seed: Seed of the order.
            start_step: Number of batches to skip.
            offset: Number of examples to skip besides.  It may be negative: batches of another size
                may have come before, and ``offset + start_step * batch_size`` examples are skipped.
            process_index: Which part of each batch to yield.
            process_count: Number of parts. It divides the batch size.
        """
        ...

    def eval_batches(
        self, batch_size: int, *, process_index: int = 0, process_count: int = 1
    ) -> Iterator[Any]:
        """Iterate over the whole split in order, every example once.

        The last batch is padded to full size.  All processes yield the same number of batches.

        Args:
            batch_size: Number of examples in the global batch.
            process_index: Which part of each batch to yield.
            process_count: Number of parts. It divides the batch size.
        """
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Images for training and evaluation, and how the device prepares them.

    Attributes:
        name: Name of the data set, for people.
        train: The training split.
        evaluation: The split that accuracy is reported on.
        evaluation_split: Kind of the evaluation split. A checkpoint may be chosen by its
            ``"validation"`` accuracy, but never by its ``"test"`` accuracy.
        class_names: Name of each label.
        augment: Function for training from a key, uint8[B, H, W, C] images and int32[B] labels to
            float32[B, H', W', C] images and either the labels or float32[B, K] targets. It can be
            jitted, and its results do not depend on the sharding. If ``mix_until_epoch`` is set,
            it also takes ``mixing``, bool[], which tells whether images are mixed.
        preprocessing: What evaluation does to an image of any size, on the host and on the device.
        mix_until_epoch: Number of epochs after which images are no longer mixed. None if they are
            mixed during the whole run, or never.
    """

    name: str
    train: Split
    evaluation: Split
    evaluation_split: Literal["validation", "test"]
    class_names: tuple[str, ...]
    augment: Callable[..., tuple[jax.Array, jax.Array]]
    preprocessing: Preprocessing
    mix_until_epoch: float | None = None

    @property
    def train_image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images that `augment` returns."""
        images = jax.ShapeDtypeStruct((2, *self.train.image_shape), np.uint8)
        labels = jax.ShapeDtypeStruct((2,), np.int32)
        key = jax.eval_shape(jax.random.key, 0)
        return jax.eval_shape(self.augment, key, images, labels)[0].shape[1:]

    def resized(self, size: int) -> Self:
        """Return the same data with square training images of another size.

        Files are cropped to that size.  Images in memory are augmented first and then resized on
        the devices, with antialiasing.  Evaluation does not change.

        Args:
            size: Height and width in pixels.
        """

        def augment(*arguments: Any, **options: Any) -> tuple[jax.Array, jax.Array]:
            augmented, targets = self.augment(*arguments, **options)
            return resize(augmented, size), targets

        return dataclasses.replace(self, train=self.train.resized(size), augment=augment)

    @property
    def prepare(self) -> Callable[[jax.Array], jax.Array]:
        """Jittable function from uint8[B, H, W, C] to float32[B, H', W', C], for evaluation."""
        return self.preprocessing.on_device

    @property
    def fingerprint(self) -> str:
        """Text that changes when either split changes.

        A run is only continued, and only evaluated, on the data that it began with.
        """
        parts = f"{self.train.fingerprint} {self.evaluation.fingerprint}"
        return hashlib.sha256(parts.encode()).hexdigest()
