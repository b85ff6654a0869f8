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
from resnet_jax.data.array_dataset import array_dataset
from resnet_jax.data.array_split import ArraySplit
from resnet_jax.data.dataset import DataError, Dataset, printable

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
# Seed that chooses the held-out images, the same for all runs.
_SEED = 0


def open_idx(config: IdxConfig) -> Dataset:
    """Return the images of a directory of IDX files, in memory.

    Raises:
        DataError: A file does not exist, is not a complete IDX file, or does not match the others.
    """
    train = read_labeled(config.directory, config.train_images, config.train_labels)
    if config.evaluation_split == "test":
        evaluation = read_labeled(config.directory, config.test_images, config.test_labels)
        if train.image_shape != evaluation.image_shape:
            raise DataError(
                f"{config.directory}: {config.train_images} has images of "
                f"{_size(train.image_shape)} pixels and {config.test_images} of "
                f"{_size(evaluation.image_shape)}; give files of one data set"
            )
    else:
        train, evaluation = _hold_out(config, train)
    return array_dataset(
        printable(config.directory),
        train,
        evaluation,
        evaluation_split=config.evaluation_split,
        class_names=_class_names(config, train, evaluation),
        augmentation=config.augment,
        sampling=config.sampling,
    )


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
    pixels, classes = read_idx(image_path), read_idx(label_path)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or 0 in pixels.shape:
        raise DataError(
            f"{image_path} has {_description(pixels)}, but images must be bytes [N, H, W]; give "
            "the file of the images"
        )
    if not np.issubdtype(classes.dtype, np.integer) or classes.ndim != 1:
        raise DataError(
            f"{label_path} has {_description(classes)}, but labels must be integers [N]; give the "
            "file of the labels"
        )
    if len(pixels) != len(classes):
        raise DataError(
            f"{image_path} has {len(pixels):,} images and {label_path} {len(classes):,} labels; "
            "give two files of one split"
        )
    # More classes than images would be a file of something else.
    if not 0 <= classes.min() <= classes.max() < max(256, len(classes)):
        raise DataError(
            f"{label_path} has labels from {classes.min()} to {classes.max()}, but they must be "
            "the indices of the classes, counted from 0; give the file of the labels"
        )
    return ArraySplit(pixels[..., None], classes.astype(np.int32))


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


def _hold_out(config: IdxConfig, images: ArraySplit) -> tuple[ArraySplit, ArraySplit]:
    """Split by class, the same for all runs, into training and evaluation images."""
    # scikit-learn takes a second to import, and most importers of the library do not need it.
    from sklearn.model_selection import train_test_split

    try:
        parts = train_test_split(
            np.arange(len(images)),
            test_size=config.validation_share,
            stratify=images.labels,
            random_state=_SEED,
        )
    except ValueError as error:
        raise DataError(
            f"{config.directory}: a share of {config.validation_share:g} of the {len(images):,} "
            f"training images cannot be held out ({error}); change data.validation_share, or set "
            "data.evaluation_split to test"
        ) from None
    # The original order makes the split easy to compare with the file.
    kept, held_out = (
        ArraySplit(images.images[part], images.labels[part]) for part in map(np.sort, parts)
    )
    return kept, held_out


def _class_names(config: IdxConfig, *splits: ArraySplit) -> tuple[str, ...]:
    num_classes = 1 + max(int(split.labels.max()) for split in splits)
    if not config.class_names:
        return tuple(map(str, range(num_classes)))
    if num_classes > len(config.class_names):
        raise DataError(
            f"{config.directory} has labels up to {num_classes - 1}, but data.class_names has only "
            f"{len(config.class_names)} names; name every class, or none"
        )
    return config.class_names


def _description(values: np.ndarray) -> str:
    return f"{values.dtype} values {list(values.shape)}"


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}"
