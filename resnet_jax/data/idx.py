"""The IDX files of MNIST and of the data sets that follow it, such as Fashion-MNIST.

An IDX file consists of two zero bytes, the code of a type, the number of dimensions, the size of
each dimension as a 32-bit integer, and the values. All numbers are big-endian. Published files are
often compressed with gzip.

Reference:
    http://yann.lecun.com/exdb/mnist/ (LeCun, Cortes and Burges 1998), "File formats".
"""

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np

from resnet_jax.config import IdxConfig
from resnet_jax.data.array_split import ArraySplit
from resnet_jax.data.dataset import DataError, Dataset, printable
from resnet_jax.data.labeled_arrays import Named, labeled_dataset, labeled_split

_GZIP = b"\x1f\x8b"
# Types of the values, by their code.
_TYPES = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}


def open_idx(config: IdxConfig) -> Dataset:
    """Return the images of a directory of IDX files, in memory.

    Raises:
        DataError: A file does not exist, is not a complete IDX file, or does not match the others.
    """

    def read(images: str, labels: str) -> ArraySplit:
        return read_labeled(config.directory, images, labels)

    return labeled_dataset(config, printable(config.directory), read)


def read_labeled(directory: str | os.PathLike[str], images: str, labels: str) -> ArraySplit:
    """Return the images and labels of two IDX files in a directory.

    Args:
        directory: The directory of the files.
        images: Name of the file of the images, bytes [N, H, W], with or without ``.gz``.
        labels: Name of the file of the labels, integers [N] that are not negative.

    Raises:
        DataError: As in `open_idx`.
    """
    image_path, label_path = _find(directory, images), _find(directory, labels)
    return labeled_split(
        Named(str(image_path), read_idx(image_path)), Named(str(label_path), read_idx(label_path))
    )


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Return the values of an IDX file, which may be compressed with gzip.

    Args:
        path: The file.

    Returns:
        An array of the type and shape that the file states.

    Raises:
        DataError: The file cannot be read, or is not a complete IDX file.
    """
    try:
        stored = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    try:
        content = gzip.decompress(stored) if stored.startswith(_GZIP) else stored
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} is truncated or damaged ({error}); download it again") from None
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES or not content[3]:
        raise DataError(
            f"{path} is not an IDX file: it begins with {content[:4].hex(' ') or 'nothing'} "
            "instead of two zero bytes, a type and a number of dimensions; give another file"
        )
    dtype, dimensions = _TYPES[content[2]], content[3]
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise DataError(f"{path} is truncated within its header; download it again")
    shape = [int(size) for size in np.frombuffer(content, ">u4", dimensions, offset=4)]
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise DataError(
            f"{path} is truncated or damaged: {expected:,} bytes were expected for values {shape}, "
            f"but there are {len(content):,}; download it again"
        )
    values = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return values.astype(dtype.newbyteorder("="))


def find_idx(directory: str | os.PathLike[str], name: str) -> Path | None:
    """Return the path of a file that may have the ending ``.gz``, or None if it does not exist."""
    path = Path(directory).expanduser() / name
    candidates = (path, path.with_name(f"{path.name}.gz"))
    return next((path for path in candidates if path.is_file()), None)


def _find(directory: str | os.PathLike[str], name: str) -> Path:
    path = find_idx(directory, name)
    if path is None:
        raise DataError(
            f"{Path(directory, name)} does not exist, with or without .gz; give the directory of "
            "the IDX files"
        )
    return path
