"""Inference on any number of images, with bounded memory and few compiled programs."""

import collections
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
import numpy as np

from resnet_jax.data.images.decode import MAX_PIXELS
from resnet_jax.data.preprocessing import ImageLike, Preprocessing

if TYPE_CHECKING:
    from resnet_jax.inference.classifier import Classifier

Tta = Literal["none", "flip", "five-crop"]
"""Views of an image over which the outputs are averaged (test-time augmentation).

``"none"`` is the central crop alone.  ``"flip"`` adds its mirror image.  ``"five-crop"`` is the
four corners and the center, see `Preprocessing.five_crops`.
"""

# Batches are padded to one of these sizes or to the largest size that is asked for, so that few
# programs are compiled.
_BATCH_SIZES = (1, 4, 16, 64)
MAX_BATCH_SIZE = _BATCH_SIZES[-1]
"""Largest number of images that the network computes at once, unless another one is asked for."""
# CPUs are not faster with larger batches.  ResNet-50 at 224 pixels takes 110 ms of CPU time for an
# image in batches of 16 and 104 to 118 ms in batches of 64, and `resnet-jax predict` needs 0.9 GiB
# instead of 1.8 GiB (2 busy cores of an AMD EPYC, jax 0.10, 2026-11-28).
_CPU_BATCH_SIZE = 16
# Number of batches that are decoded ahead of the one that the device computes.
_AHEAD = 2
_VIEWS = {"none": 1, "flip": 2, "five-crop": 5}


class Batch(NamedTuple):
    """Decoded images.

    Attributes:
        first: Index of the first image among all images.
        images: The N images, as they were given.
        pixels: uint8[V, B, H, W, C], V views of each image. B is at least N; zeros follow the
            images, and take the place of those that cannot be read.
        errors: What is wrong with each image, or an empty string.
    """

    first: int
    images: Sequence[ImageLike]
    pixels: np.ndarray
    errors: Sequence[str]


class Outputs(NamedTuple):
    """What a network computes for a batch.

    Attributes:
        logits: float32[B, K], or None if they are not asked for.
        features: float32[B, C], the pooled features before the head, or None likewise.
    """

    logits: jax.Array | None
    features: jax.Array | None


class Streamed(NamedTuple):
    """What the network computes for one image.

    Attributes:
        index: Position of the image in the input, from 0.
        image: The image, as it was given.
        logits: float32[K], or None if they are not asked for or the image cannot be read.
        features: float32[C], the pooled features before the head, or None likewise.
        error: What is wrong with the image, in one line, or an empty string.
    """

    index: int
    image: ImageLike
    logits: np.ndarray | None
    features: np.ndarray | None
    error: str


def stream(
    classifier: "Classifier",
    images: Iterable[ImageLike],
    *,
    features: bool = False,
    logits: bool = True,
    tta: Tta = "none",
    batch_size: int | None = None,
) -> Iterator[Streamed]:
    """Yield the outputs for each image of an iterable, in order.

    Threads decode the next images while the device computes.  A few batches are in memory at a
    time, whatever the number of images, and the iterable is read only that far ahead.

    With several views, logits and features are averaged over them, as timm's ``--tta`` and the
    example of torchvision's ``FiveCrop`` do.  An average of logits is a geometric mean of
    probabilities, and a temperature applies to it as to any logits.  (AlexNet and fastai average
    probabilities.)

    Args:
        classifier: The network, its preprocessing and its limit on the size of images.
        images: Images of any kinds and sizes, also a generator.
        features: Whether to return the pooled features.
        logits: Whether to return the logits.
        tta: Views over which the outputs are averaged.
        batch_size: Largest number of images that the network computes at once. Smaller batches
            need less memory. By default it is 16 on CPUs, where larger batches are not faster, and
            64 elsewhere.

    Yields:
        One item for each image, also for those that cannot be read.

    Raises:
        ValueError: Logits are asked for and the network has no head, or ``tta`` or ``batch_size``
            is impossible.
        ImportError: An image needs a package that is not installed.
    """
    if logits and not classifier.class_names:
        raise ValueError("the network has no head and predicts no classes; pass logits=False")
    decoded = decode_batches(
        images,
        classifier.preprocessing,
        tta=tta,
        batch_size=default_batch_size() if batch_size is None else batch_size,
        max_pixels=classifier.max_pixels,
    )

    def compute() -> Iterator[tuple[Batch, list[Outputs]]]:
        for batch in decoded:
            views = [] if all(batch.errors) else batch.pixels
            yield (
                batch,
                [classifier.forward(view, logits=logits, features=features) for view in views],
            )

    return _one_behind(compute())


def default_batch_size() -> int:
    """Return the default of the largest batch size, see `stream`."""
    return _CPU_BATCH_SIZE if jax.default_backend() == "cpu" else MAX_BATCH_SIZE


def image_name(index: int, image: ImageLike) -> str:
    """Return the path or URL of an image, or its position in the input if it has none."""
    return os.fspath(image) if isinstance(image, str | os.PathLike) else f"image {index}"


def decode_batches(
    images: Iterable[ImageLike],
    preprocessing: Preprocessing,
    *,
    tta: Tta = "none",
    batch_size: int = MAX_BATCH_SIZE,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Batch]:
    """Yield images in batches of few different sizes, while threads decode the next ones.

    Args:
        images: Images of any kinds and sizes, also a generator.
        preprocessing: How an image becomes the input of the network.
        tta: Views of each image.
        batch_size: Largest size of a batch.
        max_pixels: Largest number of pixels of an image that is not an array.

    Raises:
        ValueError: ``tta`` or ``batch_size`` is impossible.
        ImportError: An image needs a package that is not installed.
    """
    if tta not in _VIEWS:
        raise ValueError(f"tta must be one of {', '.join(_VIEWS)}, but it is {tta!r}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, but it is {batch_size}")

    def load(image: ImageLike, out: np.ndarray) -> str:
        """Write the views of an image to uint8[V, H, W, C], and return what is wrong with it."""
        try:
            if tta == "five-crop":
                out[:] = preprocessing.five_crops(image, max_pixels=max_pixels)
            else:
                out[:1] = preprocessing.on_host(image, max_pixels=max_pixels)
                out[1:] = out[:1, :, ::-1]
        except OSError as error:
            return error.strerror or str(error) or type(error).__name__
        except ValueError as error:
            return str(error)
        return ""

    def generate() -> Iterator[Batch]:
        window: collections.deque[tuple[Batch, list[Future[str]]]] = collections.deque()
        pool = ThreadPoolExecutor(thread_name_prefix="decode")
        try:
            for first, chunk, size in _chunks(images, batch_size):
                shape = (_VIEWS[tta], size, *preprocessing.image_shape)
                batch = Batch(first, chunk, np.zeros(shape, np.uint8), [])
                futures = [
                    pool.submit(load, image, batch.pixels[:, i]) for i, image in enumerate(chunk)
                ]
                window.append((batch, futures))
                if len(window) > _AHEAD:
                    yield _complete(*window.popleft())
            while window:
                yield _complete(*window.popleft())
        finally:
            # The consumer may stop early.
            pool.shutdown(cancel_futures=True)

    return generate()


def batch_sizes(total: int, largest: int) -> Iterator[tuple[int, int]]:
    """Yield the number of images and the padded size of each batch.

    At least half of each batch are images.

    Args:
        total: Number of images.
        largest: Largest size of a batch.
    """
    sizes = [*(size for size in _BATCH_SIZES if size < largest), largest]
    while total:
        size = max(size for size in sizes if size <= 2 * total)
        count = min(size, total)
        yield count, size
        total -= count


def _chunks(
    images: Iterable[ImageLike], largest: int
) -> Iterator[tuple[int, list[ImageLike], int]]:
    """Yield the first index, the images and the padded size of each batch."""
    iterator = iter(images)
    first = 0
    while chunk := list(itertools.islice(iterator, largest)):
        start = 0
        for count, size in batch_sizes(len(chunk), largest):
            yield first + start, chunk[start : start + count], size
            start += count
        first += len(chunk)


def _complete(batch: Batch, futures: Iterable[Future[str]]) -> Batch:
    return batch._replace(errors=[future.result() for future in futures])


def _one_behind(computed: Iterable[tuple[Batch, list[Outputs]]]) -> Iterator[Streamed]:
    """Yield the items of each batch after the device has been given the next batch."""
    previous: Iterator[Streamed] = iter(())
    for batch, views in computed:
        yield from previous
        previous = _items(batch, views)
    yield from previous


def _items(batch: Batch, views: Sequence[Outputs]) -> Iterator[Streamed]:
    logits = _mean([view.logits for view in views])
    features = _mean([view.features for view in views])
    for i, (image, error) in enumerate(zip(batch.images, batch.errors, strict=True)):
        yield Streamed(
            batch.first + i,
            image,
            logits=None if error or logits is None else logits[i],
            features=None if error or features is None else features[i],
            error=error,
        )


def _mean(views: Sequence[jax.Array | None]) -> np.ndarray | None:
    """Return the mean over views, or None if this output was not asked for."""
    arrays = [np.asarray(view) for view in views if view is not None]
    return np.mean(arrays, axis=0) if arrays else None
