"""The IDX files of MNIST and of the data sets that follow it, such as Fashion-MNIST.

An IDX file consists of two zero bytes, the code of a type, the number of dimensions, the size of
each dimension as a 32-bit integer, and the values. All numbers are big-endian. Published files are
often compressed with gzip.

Reference:
    http://yann.lecun.com/exdb/mnist/ (LeCun, Cortes and Burges 1998), "File formats".
"""

import gzip
import io
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
# Upper bound of the factor by which gzip can unpack a file.
_MOST_EXPANDED = 1040
# NumPy's limit.
_MOST_DIMENSIONS = 64
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
    compressed = stored.startswith(_GZIP)
    try:
        content = _unpacked(stored) if compressed else stored
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} is truncated or damaged ({error}); download it again") from None
    if not _begins_well(content):
        raise DataError(
            f"{path} is not an IDX file: it begins with {content[:4].hex(' ') or 'nothing'} "
            "instead of two zero bytes, a type and a number of dimensions; give another file"
        )
    dtype, start = _TYPES[content[2]], _header_size(content)
    if len(content) < start:
        raise DataError(f"{path} is truncated within its header; download it again")
    shape, expected = _shape(content), _file_size(content)
    if len(content) != expected:
        more = " or more" if compressed and len(content) > expected else ""
        raise DataError(
            f"{path} is truncated or damaged: {expected:,} bytes were expected for values {shape}, "
            f"but there are {len(content):,}{more}; download it again"
        )
    try:
        values = np.frombuffer(content, dtype, offset=start).reshape(shape)
    except ValueError:
        raise DataError(f"{path} has impossible dimensions {shape}; download it again") from None
    return values.astype(dtype.newbyteorder("="))


def _begins_well(content: bytes) -> bool:
    """Return whether a file begins with two zero bytes, a known type and a number of dimensions."""
    return (
        len(content) >= 4
        and content[:2] == b"\0\0"
        and content[2] in _TYPES
        and 1 <= content[3] <= _MOST_DIMENSIONS
    )


def _header_size(content: bytes) -> int:
    return 4 + 4 * content[3]


def _shape(content: bytes) -> list[int]:
    """Return the shape that a whole header states."""
    return [int(size) for size in np.frombuffer(content, ">u4", content[3], offset=4)]


def _file_size(content: bytes) -> int:
    """Return the number of bytes of the file that a whole header announces."""
    return _header_size(content) + math.prod(_shape(content)) * _TYPES[content[2]].itemsize


def _unpacked(stored: bytes) -> bytes:
    """Decompress a file, but at most one byte more than its header announces.

    A small file can unpack to a thousand times its size.

    Raises:
        EOFError: The file is truncated, or too small for what its header announces.
        OSError: It is damaged.
        zlib.error: It is damaged.
    """
    with gzip.GzipFile(fileobj=io.BytesIO(stored)) as file:
        header = file.read(4)
        if not _begins_well(header):
            return header
        header += file.read(_header_size(header) - 4)
        if len(header) < _header_size(header):
            return header
        rest = _file_size(header) - len(header)
        if rest > _MOST_EXPANDED * len(stored):
            raise EOFError(f"{len(stored):,} bytes cannot contain values {_shape(header)}")
        # The end of the stream, with its checksum, is read only if all data are asked for.
        return header + file.read(rest + 1)


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
