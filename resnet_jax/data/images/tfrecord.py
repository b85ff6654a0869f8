"""Random access to TFRecord files through an index of offsets, without TensorFlow.

A record is its length (8 bytes), a checksum of that (4), the data, and a checksum of them (4).
"""

import functools
import hashlib
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from etils import epath

from resnet_jax.data.dataset import DataError
from resnet_jax.data.images.paths import as_path, file_size, is_remote, read_range

_LENGTH = struct.Struct("<Q")
_AROUND = 16
# Of a data set as many files stay open; ImageNet has 1,024, and a process is often allowed no more.
_OPEN_FILES = 128


def index_tfrecord(path: epath.PathLike) -> np.ndarray:
    """Offset and length of the data of every record, int64[N, 2].

    Raises:
        DataError: the file ends within a record, or is none.
    """
    size = file_size(os.fspath(path))
    entries = []
    with as_path(path).open("rb") as file:
        offset = 0
        while offset < size:
            file.seek(offset)
            head = file.read(8)
            length = _LENGTH.unpack(head)[0] if len(head) == 8 else size
            if offset + _AROUND + length > size:
                raise DataError(
                    f"{path} is truncated or no TFRecord file: after {len(entries)} records, at "
                    f"byte {offset} of {size}, there is no whole one; fetch it again"
                )
            entries.append((offset + 12, length))
            offset += _AROUND + length
    return np.asarray(entries, np.int64).reshape(-1, 2)


def cached_index(path: epath.PathLike, cache: Path) -> np.ndarray:
    """`index_tfrecord`, kept in a directory until the file changes in size or time.

    Args:
        path: the TFRecord file.
        cache: directory of the indices; created where it does not exist.
    """
    if is_remote(path):
        status = as_path(path).stat()
        key = f"{os.fspath(path)} {status.length} {status.mtime}"
    else:
        status = os.stat(path)
        key = f"{os.path.abspath(path)} {status.st_size} {status.st_mtime_ns}"
    stored = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
    try:
        return np.load(stored, allow_pickle=False)
    except (OSError, ValueError):
        pass  # Not there yet, or damaged; it is made again.
    index = index_tfrecord(path)
    cache.mkdir(parents=True, exist_ok=True)
    temporary = stored.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.save(file, index)
    os.replace(temporary, stored)
    return index


class TFRecords(Sequence[bytes]):
    """The records of several files, one after the other.

    Args:
        parts: of each file the path, how many records to skip, and how many to take.
        cache: directory of the indices.

    Raises:
        DataError: a file is truncated, or has fewer records than are to be taken.
    """

    def __init__(self, parts: Sequence[tuple[epath.PathLike, int, int]], cache: Path) -> None:
        self._paths = [os.fspath(path) for path, _, _ in parts]
        indices = []
        for number, (path, skip, take) in enumerate(parts):
            index = cached_index(path, cache)[skip : skip + take]
            if len(index) < take:
                raise DataError(
                    f"{path} has {len(index)} records behind {skip}, but {take} were expected"
                )
            indices.append(np.insert(index, 0, number, axis=1))
        self._index = np.concatenate(indices) if indices else np.zeros((0, 3), np.int64)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> bytes:  # pyrefly: ignore[bad-override]
        file, offset, length = (int(value) for value in self._index[index])
        path = self._paths[file]
        if is_remote(path):
            data = read_range(path, offset, length)
        else:
            data = self._opened(path).read(offset, length)
        if len(data) < length:
            raise DataError(f"{path} has become shorter since it was indexed")
        return data

    @functools.cached_property
    def _opened(self) -> "Callable[[str], _File]":
        return functools.lru_cache(_OPEN_FILES)(_File)

    def __getstate__(self) -> dict[str, object]:
        # Descriptors are of this process.
        return {name: value for name, value in self.__dict__.items() if name != "_opened"}


class _File:
    """A file that stays open as long as anyone has it: other threads may read what is evicted."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)

    def __del__(self) -> None:
        if "_descriptor" in self.__dict__:
            os.close(self._descriptor)
