"""Statistics of the pixels of images, and images that look nearly the same."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

# Height and width of the thumbnails that are compared, in pixels.
_SIDE = 8
# Two images are nearly the same if the root mean square of the difference of their thumbnails is at
# most this, in gray levels. Another quality of JPEG or another size changes about one level.
_NEAR = 3.0
# Thumbnails with a smaller standard deviation over their pixels, in gray levels, show nothing.
_CONTRAST = 8.0
# Number of neighbors of an image that are looked at, which bounds the work for many equal images.
_NEIGHBORS = 9


class PixelStatistics(NamedTuple):
    """Statistics of one image.

    Attributes:
        height: Height in pixels.
        width: Width in pixels.
        total: int64[3], sum of the levels of red, green and blue.
        square: int64[3], sum of their squares.
        thumbnail: uint8[8, 8, 3], means over a grid of cells.
    """

    height: int
    width: int
    total: np.ndarray
    square: np.ndarray
    thumbnail: np.ndarray


class Thumbnail(NamedTuple):
    """An image that is compared with others.

    Attributes:
        name: Where the image comes from.
        class_name: Its class.
        digest: SHA-256 of the file.
        pixels: uint8[8, 8, 3].
    """

    name: str
    class_name: str
    digest: bytes
    pixels: np.ndarray


def pixel_statistics(strips: Iterable[np.ndarray]) -> PixelStatistics:
    """Return the statistics of an image.

    All sums are integers, and need no copy of the image.

    Args:
        strips: uint8[h, W, 3], the image in strips of rows.
    """
    square = np.zeros(3, np.int64)
    levels = np.arange(256) ** 2
    rows = []
    edges = np.zeros(0, int)
    width = 0
    for strip in strips:
        width = strip.shape[1]
        edges = np.arange(_SIDE) * width // _SIDE
        rows.append(np.add.reduceat(strip, edges, axis=1, dtype=np.uint32))
        for channel in range(3):
            square[channel] += np.bincount(strip[..., channel].ravel(), minlength=256) @ levels
    cells = np.concatenate(rows)
    height = len(cells)
    tops = np.arange(_SIDE) * height // _SIDE
    sums = np.add.reduceat(cells, tops, axis=0, dtype=np.int64)
    # In an image of fewer than 8 pixels, cells share pixels.
    heights, widths = (
        np.maximum(1, np.diff(starts, append=side))
        for starts, side in ((tops, height), (edges, width))
    )
    means = sums / (heights[:, None] * widths)[..., None]
    starts = np.unique(edges, return_index=True)[1]
    return PixelStatistics(
        height=height,
        width=width,
        total=cells.sum(0, dtype=np.int64)[np.sort(starts)].sum(0),
        square=square,
        thumbnail=np.rint(means).astype(np.uint8),
    )


def nearly_the_same(images: Sequence[Thumbnail]) -> list[tuple[Thumbnail, Thumbnail]]:
    """Return pairs of images of different classes that look nearly the same, in their order.

    Each image is compared with the eight most similar ones.  Identical files and images without
    contrast are left out.
    """
    images = [image for image in images if image.pixels.std(axis=(0, 1)).max() >= _CONTRAST]
    if len(images) < 2:
        return []
    # Means of four pixels are compared first, because trees in fewer dimensions need less memory.
    # Their difference is at most that of the thumbnails.
    small = np.array(
        [image.pixels.reshape(4, 2, 4, 2, 3).mean(axis=(1, 3)).ravel() for image in images],
        np.float32,
    )
    radius = _NEAR * np.sqrt(small.shape[1])
    distances, neighbors = KDTree(small).query(
        small, k=min(_NEIGHBORS, len(images)), distance_upper_bound=radius
    )
    found = set()
    for one, other in zip(*np.nonzero(np.isfinite(distances)), strict=True):
        other = int(neighbors[one, other])
        pair = images[one], images[other]
        if pair[0].class_name == pair[1].class_name or pair[0].digest == pair[1].digest:
            continue
        difference = pair[0].pixels.astype(int) - pair[1].pixels
        if np.mean(difference**2) <= _NEAR**2:
            found.add((min(int(one), other), max(int(one), other)))
    return [(images[one], images[other]) for one, other in sorted(found)]
