"""What is in a data set of images: sizes, classes, duplicates, damage."""

import collections
import dataclasses
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from etils import epath

from resnet_jax.data.dataset import DataError
from resnet_jax.data.images.decode import DecodeError, decode
from resnet_jax.data.images.folder import open_splits
from resnet_jax.data.images.paths import as_path
from resnet_jax.data.images.source import ImageSource, UnreadableError, check_label
from resnet_jax.data.images.tfds import TfdsSplit, is_prepared, open_builder


class _Image(NamedTuple):
    """What one file comes to."""

    name: str
    label: int | None = None
    size: int = 0
    digest: bytes = b""
    problem: str | None = None
    forgiven: str | None = None
    shape: tuple[int, int] = (0, 0)
    moments: np.ndarray = np.zeros((3, 3))


@dataclasses.dataclass(frozen=True)
class Summary:
    """What is in a split.

    Attributes:
        num_images: in all.
        counts: images of each class, by its name; empty if no image has a label.
        size: of all files, in bytes.
        heights: int[N] of those that can be decoded, in pixels.
        widths: of the same, in pixels.
        mean: float[3] of red, green and blue, of levels from 0 to 255, every pixel counting the
            same.
        std: float[3] about it.
        unreadable: names of files that cannot be read or decoded and what is wrong with them.
        forgiven: of files that are damaged, and are trained on all the same.
        mislabelled: for people, of labels that are of no class.
        digests: SHA-256 of every file and its name; of equal files the first.
        duplicates: pairs of names of equal files.
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
    duplicates: list[tuple[str, str]]


def open_all(
    path: epath.PathLike,
    *,
    name: str | None = None,
    image_key: str = "image",
    label_key: str = "label",
) -> dict[str, ImageSource]:
    """The splits of a prepared data set of TFDS, a folder, or a table, by name.

    Args:
        path: of any of them, or the directory above the versions of a prepared data set.
        name: of a data set prepared below.
        image_key: as for `TfdsSplit`, as is the next.
        label_key: of a prepared data set.

    Raises:
        DataError: there are no such images.
    """
    path = as_path(path)
    if name or is_prepared(path):
        return {
            split: TfdsSplit(path, split, name=name, image_key=image_key, label_key=label_key)
            for split in open_builder(path, name).info.splits
        }
    return dict(open_splits(path, evaluation_share=0.2, seed=0, every=True))


def summarize(
    source: ImageSource, *, threads: int, progress: Callable[[], None] = lambda: None
) -> Summary:
    """Reads and decodes every image once.

    Args:
        source: the split.
        threads: that do it.
        progress: called after each image.
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
                image = decode(record.image, strict=True)
            except DecodeError as error:
                image, forgiven = decode(record.image), str(error)
        except DecodeError as error:
            return found._replace(problem=str(error))
        pixels = image.reshape(-1, 3).astype(np.float64)
        return found._replace(
            forgiven=forgiven,
            shape=image.shape[:2],
            moments=np.stack([np.full(3, len(pixels)), pixels.sum(0), (pixels**2).sum(0)]),
        )

    with ThreadPoolExecutor(threads) as pool:
        images = []
        for image in pool.map(look, range(len(source))):
            images.append(image)
            progress()
    counts = collections.Counter(image.label for image in images if image.label is not None)
    mislabelled = []
    # Where the labels are kept secret, as those of ImageNet's test images, all of them are -1.
    secret = set(counts) == {-1}
    if not secret:
        for image in images:
            try:
                check_label(image.label or 0, len(source.class_names), image.name)
            except DataError as error:
                mislabelled.append(str(error))
    digests: dict[bytes, str] = {}
    duplicates = []
    for image in images:
        if image.digest:
            first = digests.setdefault(image.digest, image.name)
            if first != image.name:
                duplicates.append((first, image.name))
    count, total, square = np.sum([image.moments for image in images], axis=0)
    count = np.maximum(count, 1)
    mean = total / count
    shapes = np.array([image.shape for image in images if image.problem is None]).reshape(-1, 2)
    return Summary(
        num_images=len(images),
        counts={
            name: counts[label] for label, name in enumerate(() if secret else source.class_names)
        },
        size=sum(image.size for image in images),
        heights=shapes[:, 0],
        widths=shapes[:, 1],
        mean=mean,
        std=np.sqrt(np.maximum(square / count - mean**2, 0)),
        unreadable={image.name: image.problem for image in images if image.problem},
        forgiven={image.name: image.forgiven for image in images if image.forgiven},
        mislabelled=mislabelled,
        digests=digests,
        duplicates=duplicates,
    )


def shared(one: Summary, other: Summary) -> list[tuple[str, str]]:
    """Pairs of names of files that two splits have in common, byte for byte."""
    return [
        (name, other.digests[digest])
        for digest, name in one.digests.items()
        if digest in other.digests
    ]
