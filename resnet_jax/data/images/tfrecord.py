"""Random access to TFRecord files through an index of offsets, without TensorFlow.

A record is its length (8 bytes), a checksum of that (4), the data, and a checksum of them (4).
"""

import hashlib
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from etils import epath

from resnet_jax.data.dataset import DataError
from resnet_jax.data.images.paths import as_path, file_size, is_remote, read_range

_LENGTH = struct.Struct("<Q")
_AROUND = 16


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
        self._descriptors: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> bytes:  # pyrefly: ignore[bad-override]
        file, offset, length = (int(value) for value in self._index[index])
        path = self._paths[file]
        if is_remote(path):
            data = read_range(path, offset, length)
        else:
            data = os.pread(self._descriptor(file), length, offset)
        if len(data) < length:
            raise DataError(f"{path} has become shorter since it was indexed")
        return data

    def _descriptor(self, file: int) -> int:
        # Two threads may open a file at once; then one descriptor is kept and one is closed.
        if file not in self._descriptors:
            opened = os.open(self._paths[file], os.O_RDONLY)
            if self._descriptors.setdefault(file, opened) != opened:
                os.close(opened)
        return self._descriptors[file]

    def __getstate__(self) -> dict[str, object]:
        # Descriptors are of this process.
        return {**self.__dict__, "_descriptors": {}}

    def __del__(self) -> None:
        for descriptor in self.__dict__.get("_descriptors", {}).values():
            os.close(descriptor)
