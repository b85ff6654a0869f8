"""Random access to TFRecord files through an index of offsets, without TensorFlow.

A record consists of its length (8 bytes), a checksum of the length (4 bytes), the data, and a
checksum of the data (4 bytes).  Both checksums are masked CRC-32C.  They are compared whenever a
record is read, because this takes less than 1 % of the time that decoding an image takes.
"""

import functools
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from etils import epath

from resnet_jax.data.dataset import DataError
from resnet_jax.data.images.optional import crc32c
from resnet_jax.data.images.paths import as_path, file_size, is_remote, read_range
from resnet_jax.data.images.source import UnreadableError, digest

_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_BEFORE = _LENGTH.size + _CHECKSUM.size
_AROUND = _BEFORE + _CHECKSUM.size
# Number of files of a data set that stay open. ImageNet has 1,024 files, and a process is often
# allowed to open no more than that.
_OPEN_FILES = 128
# Offset of a record that a damaged file has lost.
_LOST = -1


class DamagedFileError(DataError):
    """Raised for a TFRecord file that cannot be read to its end.

    Attributes:
        damage: What is wrong with it, as the end of a sentence that begins with its path.
        index: Offsets and lengths of the records before the damage, as `index_tfrecord` returns.
    """

    def __init__(self, path: str, damage: str, index: np.ndarray) -> None:
        super().__init__(f"{path} {damage}")
        self.damage, self.index = damage, index


def index_tfrecord(path: epath.PathLike) -> np.ndarray:
    """Return the offset and length in bytes of the data of each record, int64[N, 2].

    Raises:
        DamagedFileError: The file ends within a record, a length is damaged, or it is not a
            TFRecord file.
        ImportError: google-crc32c is not installed.
    """
    checksum = crc32c()
    size = file_size(os.fspath(path))
    entries: list[tuple[int, int]] = []
    offset, damage = 0, None
    with as_path(path).open("rb") as file:
        while offset < size and not damage:
            file.seek(offset)
            head = file.read(_BEFORE)
            length = _LENGTH.unpack(head[:8])[0] if len(head) == _BEFORE else size
            if len(head) == _BEFORE and not _is_intact(checksum, head[:8], head[8:]):
                damage = "damaged", "the length of a record and its checksum disagree"
            elif offset + _AROUND + length > size:
                damage = "truncated", "no complete record follows"
            else:
                entries.append((offset + _BEFORE, length))
                offset += _AROUND + length
    index = np.asarray(entries, np.int64).reshape(-1, 2)
    if damage:
        raise DamagedFileError(
            os.fspath(path),
            f"is {damage[0]} or not a TFRecord file: after {len(index)} records, at byte {offset} "
            f"of {size}, {damage[1]}; download it again",
            index,
        )
    return index


def _is_intact(checksum: Callable[[bytes], int], data: bytes, stored: bytes) -> bool:
    """Return whether data have the checksum that is stored after them.

    The checksum is rotated by 15 bits and a constant is added, because the CRC of data that contain
    their own CRC would be a constant.
    """
    crc = checksum(data)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return _CHECKSUM.pack(masked) == stored


def cached_index(path: epath.PathLike, cache: Path) -> np.ndarray:
    """Return `index_tfrecord`, from a cache if size and time of the file have not changed.

    Args:
        path: The TFRecord file.
        cache: Directory of the indices. It is created if it does not exist.
    """
    if is_remote(path):
        status = as_path(path).stat()
        key = f"{os.fspath(path)} {status.length} {status.mtime}"
    else:
        status = os.stat(path)
        key = f"{os.path.abspath(path)} {status.st_size} {status.st_mtime_ns}"
    stored = cache / f"{digest([key])[:32]}.npy"
    try:
        return np.load(stored, allow_pickle=False)
    except (OSError, ValueError):
        pass  # The index does not exist yet or is damaged, so it is created.
    index = index_tfrecord(path)
    cache.mkdir(parents=True, exist_ok=True)
    temporary = stored.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.save(file, index)
    os.replace(temporary, stored)
    return index


def _index_of(path: epath.PathLike, skip: int, take: int, cache: Path) -> np.ndarray:
    """Return some rows of `cached_index`, and raise `DamagedFileError` if they are not there."""
    try:
        index = cached_index(path, cache)
    except OSError as error:
        nothing = np.zeros((0, 2), np.int64)
        damage = f"cannot be read: {error.strerror or error}; download it again"
        raise DamagedFileError(os.fspath(path), damage, nothing) from None
    if len(index) < skip + take:
        raise DamagedFileError(
            os.fspath(path),
            f"has {max(0, len(index) - skip)} records after the first {skip}, but {take} were "
            "expected; download it again",
            index,
        )
    return index[skip : skip + take]


class TFRecords(Sequence[bytes]):
    """The records of several files as one sequence.

    Args:
        parts: For each file its path, the number of records to skip, and the number to take.
        cache: Directory of the indices.
        strict: Whether all records must be there.  If False, what lies beyond the damage of a file
            raises `UnreadableError` when it is read.

    Raises:
        DataError: A file does not exist, is truncated or damaged, or has fewer records than
            ``parts`` says, and ``strict`` is set.
        ImportError: google-crc32c is not installed.
    """

    def __init__(
        self,
        parts: Sequence[tuple[epath.PathLike, int, int]],
        cache: Path,
        *,
        strict: bool = True,
    ) -> None:
        # A missing library is reported before the first record.
        crc32c()
        self._paths = [os.fspath(path) for path, _, _ in parts]
        self._cache = cache
        # For each damaged file, by its number, what is wrong with it.
        self._damage: dict[int, str] = {}
        indices = []
        for number, (path, skip, take) in enumerate(parts):
            try:
                index = _index_of(path, skip, take, cache)
            except DamagedFileError as error:
                if strict:
                    raise
                self._damage[number] = error.damage.removeprefix("is ")
                intact = error.index[skip : skip + take]
                index = np.concatenate([intact, np.full((take - len(intact), 2), _LOST)])
            indices.append(np.insert(index, 0, number, axis=1))
        self._index = np.concatenate(indices) if indices else np.zeros((0, 3), np.int64)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> bytes:  # pyrefly: ignore[bad-override]
        file, offset, length = (int(value) for value in self._index[index])
        path = self._paths[file]
        if offset == _LOST:
            raise UnreadableError(path, self._damage[file])
        start, size = offset - _BEFORE, _AROUND + length
        if is_remote(path):
            content = read_range(path, start, size)
        else:
            content = self._opened(path).read(start, size)
        if len(content) < size:
            raise DataError(f"{path} has become shorter since it was indexed; download it again")
        head, data, end = content[:8], content[_BEFORE:-4], content[-4:]
        checksum = crc32c()
        for part, stored, what in ((head, content[8:_BEFORE], "length"), (data, end, "data")):
            if not _is_intact(checksum, part, stored):
                raise DataError(f"damaged record at byte {start}: {what} and checksum disagree")
        if _LENGTH.unpack(head)[0] != length:
            raise DataError(f"{path} has changed since it was indexed; remove {self._cache}")
        return data

    @functools.cached_property
    def _opened(self) -> "Callable[[str], _File]":
        return functools.lru_cache(_OPEN_FILES)(_File)

    def __getstate__(self) -> dict[str, object]:
        # File descriptors belong to this process.
        return {name: value for name, value in self.__dict__.items() if name != "_opened"}


class _File:
    """An open file, which is closed when nobody refers to it any more.

    Other threads may still read a file that the cache has evicted.
    """

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)

    def __del__(self) -> None:
        if "_descriptor" in self.__dict__:
            os.close(self._descriptor)
