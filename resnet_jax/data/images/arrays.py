"""Small images of one size, decoded once and kept in memory."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from resnet_jax.data.dataset import ArraySplit, DataError
from resnet_jax.data.images.cores import usable_cores
from resnet_jax.data.images.decode import DecodeError, decode
from resnet_jax.data.images.source import ImageSource, labelled

# Images that a thread decodes in one go.
_PIECE = 256


def read_arrays(sources: Sequence[ImageSource]) -> list[ArraySplit]:
    """All images of some splits as uint8[N, H, W, 3], or [N, H, W, 1] if all of them are grey.

    Raises:
        DataError: one cannot be decoded, or has another size than the first.
    """
    shape = _decode(sources[0], 0)[0].shape
    arrays = [np.empty((len(source), *shape), np.uint8) for source in sources]
    labels = [np.empty(len(source), np.int32) for source in sources]

    def read(split: int, start: int) -> bool:
        """Reads a piece, and tells whether it is grey."""
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
        grey = all(list(pool.map(read, *zip(*pieces, strict=True))))
    if grey:
        arrays = [np.ascontiguousarray(images[..., :1]) for images in arrays]
    return [ArraySplit(*split) for split in zip(arrays, labels, strict=True)]


def _decode(source: ImageSource, index: int) -> tuple[np.ndarray, int]:
    record = labelled(source, index)
    try:
        return decode(record.image), record.label
    except DecodeError as error:
        raise DataError(f"{record.name}: {error}; mend or remove it") from None


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}"
