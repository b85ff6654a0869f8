"""Small images of one size, which are decoded once and kept in memory."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from resnet_jax.data.array_split import ArraySplit
from resnet_jax.data.dataset import DataError
from resnet_jax.data.images.cores import usable_cores
from resnet_jax.data.images.decode import DecodeError, decode
from resnet_jax.data.images.source import ImageSource, labelled

# Number of images that a thread decodes in one task.
_PIECE = 256


def read_arrays(sources: Sequence[ImageSource]) -> list[ArraySplit]:
    """Decode all images of several splits.

    Args:
        sources: The splits.

    Returns:
        The splits in memory, in the same order. Images are uint8[N, H, W, 3], or uint8[N, H, W, 1]
        if all images of all splits are gray.

    Raises:
        DataError: An image cannot be decoded, or its size is not that of the first image.
    """
    shape = _decode(sources[0], 0)[0].shape
    arrays = [np.empty((len(source), *shape), np.uint8) for source in sources]
    labels = [np.empty(len(source), np.int32) for source in sources]

    def read(split: int, start: int) -> bool:
        """Decode a range of images, and return whether all of them are gray."""
        source, images = sources[split], arrays[split]
        stop = min(start + _PIECE, len(source))
        for index in range(start, stop):
            pixels, labels[split][index] = _decode(source, index)
            if pixels.shape != shape:
                raise DataError(
                    f"{source[index].name} has {_size(pixels.shape)} pixels and the first image "
                    f"{_size(shape)}; images of several sizes need an experiment that crops them, "
                    "such as imagenet-resnet50 or folder-resnet50"
                )
            images[index] = pixels
        return bool((images[start:stop] == images[start:stop, ..., :1]).all())

    pieces = [
        (split, start)
        for split, source in enumerate(sources)
        for start in range(0, len(source), _PIECE)
    ]
    with ThreadPoolExecutor(usable_cores()) as pool:
        gray = all(list(pool.map(read, *zip(*pieces, strict=True))))
    if gray:
        arrays = [np.ascontiguousarray(images[..., :1]) for images in arrays]
    return [ArraySplit(*split) for split in zip(arrays, labels, strict=True)]


def _decode(source: ImageSource, index: int) -> tuple[np.ndarray, int]:
    """Return the pixels of an image, uint8[H, W, 3], and its label."""
    record = labelled(source, index)
    try:
        return decode(record.image), record.label
    except DecodeError as error:
        raise DataError(f"{record.name}: {error}; repair or remove it") from None


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}"
