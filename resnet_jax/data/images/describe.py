"""Statistics of image data sets: sizes, classes, duplicates and damaged files."""

import collections
import dataclasses
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from etils import epath

from resnet_jax.data.dataset import DataError
from resnet_jax.data.images.decode import MAX_PIXELS, DecodeError, TooLargeError, decode_strips
from resnet_jax.data.images.folder import open_splits
from resnet_jax.data.images.idx import is_idx, open_idx_images
from resnet_jax.data.images.paths import as_path
from resnet_jax.data.images.pixels import PixelStatistics, Thumbnail, pixel_statistics
from resnet_jax.data.images.source import ImageSource, UnreadableError, check_label
from resnet_jax.data.images.tfds import TfdsSplit, is_prepared, open_builder


class _Image(NamedTuple):
    """Findings about one file."""

    name: str
    label: int | None = None
    size: int = 0
    digest: bytes = b""
    problem: str | None = None
    forgiven: str | None = None
    too_large: bool = False
    looks: PixelStatistics | None = None


@dataclasses.dataclass(frozen=True)
class Summary:
    """Statistics of a split.

    Attributes:
        num_images: Number of images, including unreadable ones.
        counts: Number of images of each class, by name. Empty if no image has a label.
        size: Total size of all files in bytes.
        heights: int[N], heights in pixels of the images that can be decoded.
        widths: int[N], widths in pixels of the same images.
        mean: float[3], mean of red, green and blue over all pixels, as levels from 0 to 255.
        std: float[3], standard deviation over all pixels, as levels from 0 to 255.
        unreadable: Names of the files that cannot be read or decoded, with the reason for each.
        forgiven: Names of the damaged files that are trained on nevertheless, with the damage.
        mislabelled: Messages about labels that are not the index of a class.
        digests: Name of the first file with each SHA-256.
        too_large: Names of the files with more pixels than allowed, with their size.
        duplicates: Pairs of names of identical files with the same label.
        contradictions: Pairs of names of identical files with different labels.
        thumbnails: The images with labels, reduced, to find images that are nearly the same.
    """

    num_images: int
    counts: dict[str, int]
    size: int
    heights: np.ndarray
    widths: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    unreadable: dict[str, str]
    forgiven: dict[str, str]
    mislabelled: list[str]
    digests: dict[bytes, str]
    too_large: dict[str, str]
    duplicates: list[tuple[str, str]]
    contradictions: list[tuple[str, str]]
    thumbnails: list[Thumbnail]


def open_all(
    path: epath.PathLike,
    *,
    name: str | None = None,
    image_key: str = "image",
    label_key: str = "label",
) -> dict[str, ImageSource]:
    """Open all splits of a data set, even if some of its files are damaged.

    Args:
        path: A folder, a table, a directory of IDX files, a prepared TFDS data set, or the
            directory of its versions.
        name: Name of a prepared data set in the directory ``path``.
        image_key: See `TfdsSplit`. Used for prepared data sets only.
        label_key: See `TfdsSplit`. Used for prepared data sets only.

    Returns:
        The splits by name.

    Raises:
        DataError: The images do not exist or cannot be used.
    """
    path = as_path(path)
    if name is None and is_idx(path):
        return dict(open_idx_images(path))
    if name or is_prepared(path):
        return {
            split: TfdsSplit(
                path, split, name=name, image_key=image_key, label_key=label_key, strict=False
            )
            for split in open_builder(path, name).info.splits
        }
    return dict(open_splits(path, evaluation_share=0.2, seed=0, every=True))


def summarize(
    source: ImageSource,
    *,
    threads: int,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[], None] = lambda: None,
) -> Summary:
    """Read and decode every image of a split once, and return its statistics.

    Args:
        source: The split.
        threads: Number of threads that read and decode.
        max_pixels: Largest number of pixels of an image.
        progress: Called after each image.
    """

    def look(index: int) -> _Image:
        try:
            record = source[index]
        except UnreadableError as error:
            return _Image(error.name, problem=error.reason)
        digest = hashlib.sha256(record.image).digest()
        found = _Image(record.name, record.label, len(record.image), digest)
        forgiven = None
        try:
            try:
                looks = pixel_statistics(
                    decode_strips(record.image, strict=True, max_pixels=max_pixels)
                )
            except TooLargeError:
                raise
            except DecodeError as error:
                looks = pixel_statistics(decode_strips(record.image, max_pixels=max_pixels))
                forgiven = str(error)
        except DecodeError as error:
            return found._replace(problem=str(error), too_large=isinstance(error, TooLargeError))
        return found._replace(forgiven=forgiven, looks=looks)

    with ThreadPoolExecutor(threads) as pool:
        images = []
        for image in pool.map(look, range(len(source))):
            images.append(image)
            progress()
    counts = collections.Counter(image.label for image in images if image.label is not None)
    mislabelled = []
    # If the labels are secret, as for the test images of ImageNet, all of them are -1.
    secret = set(counts) == {-1}
    if not secret:
        for image in images:
            try:
                check_label(image.label or 0, len(source.class_names), image.name)
            except DataError as error:
                mislabelled.append(str(error))
    digests: dict[bytes, str] = {}
    first_labels: dict[bytes, int | None] = {}
    duplicates, contradictions = [], []
    for image in images:
        if not image.digest:
            continue
        first = digests.setdefault(image.digest, image.name)
        label = first_labels.setdefault(image.digest, image.label)
        if first != image.name:
            same = label == image.label
            (duplicates if same else contradictions).append((first, image.name))
    looks = [image.looks for image in images if image.looks is not None]
    count = max(1, sum(look.height * look.width for look in looks))
    total, square = np.zeros(3), np.zeros(3)
    for look in looks:
        total += look.total
        square += look.square
    mean = np.asarray(total / count)
    return Summary(
        num_images=len(images),
        counts={
            name: counts[label] for label, name in enumerate(() if secret else source.class_names)
        },
        size=sum(image.size for image in images),
        heights=np.array([look.height for look in looks], int),
        widths=np.array([look.width for look in looks], int),
        mean=mean,
        std=np.sqrt(np.maximum(square / count - mean**2, 0)),
        unreadable={
            image.name: image.problem for image in images if image.problem and not image.too_large
        },
        too_large={
            image.name: image.problem for image in images if image.problem and image.too_large
        },
        forgiven={image.name: image.forgiven for image in images if image.forgiven},
        mislabelled=mislabelled,
        digests=digests,
        duplicates=duplicates,
        contradictions=contradictions,
        thumbnails=[
            Thumbnail(
                image.name, source.class_names[image.label], image.digest, image.looks.thumbnail
            )
            for image in images
            if image.looks is not None
            and image.label is not None
            and 0 <= image.label < len(source.class_names)
        ],
    )


def shared(one: Summary, other: Summary) -> list[tuple[str, str]]:
    """Return pairs of names of files with the same bytes in two splits."""
    return [
        (name, other.digests[digest])
        for digest, name in one.digests.items()
        if digest in other.digests
    ]
