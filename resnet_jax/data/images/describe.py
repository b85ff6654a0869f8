"""What is in a data set of images: sizes, classes, duplicates, damage."""

import collections
import dataclasses
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from etils import epath

from resnet_jax.data.images.decode import DecodeError, decode
from resnet_jax.data.images.folder import open_splits
from resnet_jax.data.images.paths import as_path
from resnet_jax.data.images.source import ImageSource
from resnet_jax.data.images.tfds import TfdsSplit, open_builder


class _Image(NamedTuple):
    """What one file comes to."""

    label: int
    name: str
    size: int
    digest: bytes
    problem: str | None
    shape: tuple[int, int]
    moments: np.ndarray


@dataclasses.dataclass(frozen=True)
class Summary:
    """What is in a split.

    Attributes:
        counts: images of each class, by its name.
        size: of all files, in bytes.
        heights: int[N] of those that can be decoded, in pixels.
        widths: of the same, in pixels.
        mean: float[3] of red, green and blue, of levels from 0 to 255, every pixel counting the
            same.
        std: float[3] about it.
        unreadable: names of damaged files and what is wrong with them.
        digests: SHA-256 of every file and its name; of equal files the first.
        duplicates: pairs of names of equal files.
    """

    counts: dict[str, int]
    size: int
    heights: np.ndarray
    widths: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    unreadable: dict[str, str]
    digests: dict[bytes, str]
    duplicates: list[tuple[str, str]]


def open_all(path: epath.PathLike) -> dict[str, ImageSource]:
    """The splits of a prepared data set of TFDS, a folder, or a table, by name.

    Raises:
        DataError: there are no such images.
    """
    path = as_path(path)
    if (path / "dataset_info.json").exists():
        return {name: TfdsSplit(path, name) for name in open_builder(path, None).info.splits}
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
        record = source[index]
        digest = hashlib.sha256(record.image).digest()
        shape, moments, problem = (0, 0), np.zeros((3, 3)), None
        try:
            image = decode(record.image)
        except DecodeError as error:
            problem = str(error)
        else:
            shape = image.shape[0], image.shape[1]
            pixels = image.reshape(-1, 3).astype(np.float64)
            moments = np.stack([np.full(3, len(pixels)), pixels.sum(0), (pixels**2).sum(0)])
        progress()
        return _Image(record.label, record.name, len(record.image), digest, problem, shape, moments)

    with ThreadPoolExecutor(threads) as pool:
        images = list(pool.map(look, range(len(source))))
    counts = collections.Counter(image.label for image in images)
    digests: dict[bytes, str] = {}
    duplicates = []
    for image in images:
        first = digests.setdefault(image.digest, image.name)
        if first != image.name:
            duplicates.append((first, image.name))
    count, total, square = np.sum([image.moments for image in images], axis=0)
    count = np.maximum(count, 1)
    mean = total / count
    shapes = np.array([image.shape for image in images if image.problem is None]).reshape(-1, 2)
    return Summary(
        counts={name: counts[label] for label, name in enumerate(source.class_names)},
        size=sum(image.size for image in images),
        heights=shapes[:, 0],
        widths=shapes[:, 1],
        mean=mean,
        std=np.sqrt(np.maximum(square / count - mean**2, 0)),
        unreadable={image.name: image.problem for image in images if image.problem},
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
