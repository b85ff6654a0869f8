"""Data sets prepared by TensorFlow Datasets, read without TensorFlow."""

import bisect
import dataclasses
import functools
import itertools
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from etils import epath

from resnet_jax.data.dataset import DataError
from resnet_jax.data.images.paths import allow_open_files, as_path, is_remote, size_text
from resnet_jax.data.images.source import Record, UnreadableError, digest, labelled
from resnet_jax.data.images.tfrecord import TFRecords

_VERSION = re.compile(r"\d+\.\d+\.\d+")


class TfdsSplit:
    """A split prepared as array_record, parquet or TFRecord.

    Args:
        directory: Directory of the data set, which contains ``dataset_info.json``; or, if ``name``
            is given, the directory that contains the data set of that name.
        split: Split to read, such as ``train`` or ``train[:90%]``.
        name: Name of the data set, such as ``imagenet2012`` or ``imagenet2012:5.1.0``. None if
            ``directory`` is the directory of the data set itself.
        image_key: Name of the feature that holds the image.
        label_key: Name of the feature that holds the label.
        strict: Whether all files must be intact.  If False, the records that cannot be read raise
            `UnreadableError`.

    Raises:
        DataError: The data set is not prepared or has no such split or feature; or its files cannot
            be opened, and ``strict`` is set.
    """

    def __init__(
        self,
        directory: epath.PathLike,
        split: str,
        *,
        name: str | None = None,
        image_key: str = "image",
        label_key: str = "label",
        strict: bool = True,
    ) -> None:
        import tensorflow_datasets as tfds

        self._builder = open_builder(directory, name)
        info = self._builder.info
        try:
            self._spec, self._split = split, info.splits[split]
        except (KeyError, ValueError) as error:
            raise DataError(
                f"{info.full_name} has no split {split!r} ({_line(error)}); it has "
                f"{', '.join(info.splits)}"
            ) from None
        for key in (image_key, label_key):
            if key not in info.features:
                raise DataError(
                    f"{info.full_name} has no feature {key!r}; it has "
                    f"{', '.join(sorted(info.features))}"
                )
        if not isinstance(info.features[image_key], tfds.features.Image):
            raise DataError(f"feature {image_key!r} of {info.full_name} is not an image")
        label = info.features[label_key]
        if not isinstance(label, tfds.features.ClassLabel) or not label.names:
            raise DataError(f"feature {label_key!r} of {info.full_name} is not a class label")
        self.class_names: tuple[str, ...] = tuple(label.names)
        self._keys = image_key, label_key
        self._name = f"{info.full_name} {split}"
        if not self._split.num_examples:
            raise DataError(f"{self._name} is empty")
        try:
            self._examples = self._open(strict)
        except (DataError, ImportError):
            raise
        except Exception as error:  # Each library that reads a format has its own errors.
            damage = f"cannot be opened ({_line(error)}); fetch its files again"
            if strict:
                raise DataError(f"{self._name} {damage}") from None
            self._examples = _Lost(self._split.num_examples, self._name, damage)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(f"{self._name} has {len(self)} examples, but not index {index}")
        image_key, label_key = self._keys
        name = f"{self._name}, example {index}"
        try:
            example = _example().FromString(self._examples[index]).features.feature
            return Record(
                example[image_key].bytes_list.value[0],
                example[label_key].int64_list.value[0],
                name,
            )
        except UnreadableError:
            raise
        except Exception as error:  # Each library that reads a format has its own errors.
            file = self._file(index)
            raise UnreadableError(
                name, f"{file}, {size_text(file)}, cannot be read ({_line(error)}); fetch it again"
            ) from None

    def name(self, index: int) -> str:
        """Return the split and the number of an example; see `ImageSource.name`."""
        return f"{self._spec}, example {index}"

    @functools.cached_property
    def labels(self) -> tuple[int, ...]:
        """Labels of all images. All records are read for them.

        Raises:
            DataError: A record cannot be read, or its label is not the index of a class.
        """
        return tuple(labelled(self, index).label for index in range(len(self)))

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the names and sizes of the files and of the split. The files are not read."""
        return digest(
            [
                self._name,
                *(
                    f"{os.path.basename(file)} {size_text(file)} {skip} {take}"
                    for file, skip, take in self._parts
                ),
            ]
        )

    def _file(self, index: int) -> str:
        """Return the path of the file that contains an example."""
        ends = list(itertools.accumulate(take for _, _, take in self._parts))
        return self._parts[bisect.bisect_right(ends, index)][0]

    @property
    def _parts(self) -> list[tuple[str, int, int]]:
        """For each file its path, the number of examples to skip, and the number to take."""
        return [
            (
                os.fspath(part.filename),
                part.skip,
                part.take if part.take >= 0 else part.examples_in_shard,
            )
            for part in self._split.file_instructions
        ]

    def _open(self, strict: bool) -> Sequence[bytes]:
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core.file_adapters import FileFormat

        parts = self._parts
        file_format = self._builder.info.file_format
        if file_format != FileFormat.TFRECORD:
            if file_format == FileFormat.ARRAY_RECORD:
                # Its reader opens every file and keeps it open.
                allow_open_files(len(parts))
            records = self._builder.as_data_source(
                self._spec, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
            )
            if file_format == FileFormat.PARQUET:
                # The reader returns all examples of each file that the split has a part of.
                sizes = [part.examples_in_shard for part in self._split.file_instructions]
                starts = itertools.accumulate(sizes[:-1], initial=0)
                return _Selected(
                    records,
                    [
                        start + skip + i
                        for start, (_, skip, take) in zip(starts, parts, strict=True)
                        for i in range(take)
                    ],
                )
            return records
        cache = _index_directory(os.fspath(self._builder.data_dir))
        return TFRecords(parts, cache, strict=strict)


@dataclasses.dataclass(frozen=True)
class _Selected(Sequence[bytes]):
    records: Sequence[bytes]
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> bytes:  # pyrefly: ignore[bad-override]
        return self.records[self.indices[index]]


@dataclasses.dataclass(frozen=True)
class _Lost(Sequence[bytes]):
    """The records of a split that cannot be opened."""

    number: int
    name: str
    damage: str

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> bytes:  # pyrefly: ignore[bad-override]
        raise UnreadableError(self.name, self.damage)


def is_prepared(directory: epath.PathLike) -> bool:
    """Return whether a directory is a prepared data set, or contains versions of one."""
    directory = as_path(directory)
    return directory.is_dir() and (_newest_in(directory) / "dataset_info.json").exists()


def open_builder(directory: epath.PathLike, name: str | None) -> Any:
    """Return the TensorFlow Datasets builder of a prepared data set.

    Args:
        directory: See `TfdsSplit`. It may also be the directory that contains the versions; the
            newest version is then used.
        name: See `TfdsSplit`.

    Raises:
        DataError: The directory does not contain the prepared data set.
    """
    import tensorflow_datasets as tfds

    directory = as_path(directory)
    if not directory.is_dir():
        raise DataError(f"{directory} is not a directory; give the one of the prepared data set")
    try:
        version = _newest_in(directory) if name is None else _version(directory, name)
        _check_features(version)
        # `tfds.builder_from_directories` returns the splits in a different order each time.
        return tfds.builder_from_directory(version)
    except Exception as error:
        raise DataError(
            f"{directory} does not contain a prepared data set{f' {name}' if name else ''} "
            f"({_line(error)}); prepare it with `tfds build` or `resnet-jax data prepare`"
        ) from None


def _check_features(version: epath.Path) -> None:
    """Check that all features are those of TensorFlow Datasets.

    TensorFlow Datasets imports the module of every class that ``features.json`` names, and a file
    must not decide which code runs.

    Raises:
        ValueError: A class belongs to another package.
    """
    file = version / "features.json"
    if not file.exists():
        return
    for name in _class_names(json.loads(file.read_text())):
        if name.partition(".")[0] != "tensorflow_datasets":
            raise ValueError(f"its feature {name!r} is not one of tensorflow_datasets")


def _class_names(value: Any) -> Iterator[str]:
    """Yield the names of classes in a ``features.json``, in its old and its new layout."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in ("pythonClassName", "python_class_name", "type") and isinstance(item, str):
                yield item
            yield from _class_names(item)
    elif isinstance(value, list):
        for item in value:
            yield from _class_names(item)


def _version(directory: epath.Path, name: str) -> epath.Path:
    """Return the directory of the requested version, or of the newest one."""
    name, _, version = name.partition(":")
    found = list(_prepared(directory / name, levels=2))
    if version:
        found = [path for path in found if path.name == version]
    if not found:
        raise FileNotFoundError(f"no dataset_info.json below {directory / name}")
    return max(found, key=_numbers)


def _newest_in(directory: epath.Path) -> epath.Path:
    """Return the newest version in a directory, or the directory itself if it is a version."""
    if (directory / "dataset_info.json").exists():
        return directory
    # Other names are skipped, because the directory may contain the folders of a thousand classes.
    versions = [
        child
        for child in directory.iterdir()
        if _VERSION.fullmatch(child.name) and (child / "dataset_info.json").exists()
    ]
    return max(versions, key=_numbers, default=directory)


def _numbers(version: epath.Path) -> list[int]:
    return [int(n) if n.isdecimal() else 0 for n in version.name.split(".")]


def _prepared(directory: epath.Path, *, levels: int) -> Iterator[epath.Path]:
    """Yield the directories of prepared versions, at most ``levels`` levels below a directory."""
    if (directory / "dataset_info.json").exists():
        yield directory
    elif levels and directory.is_dir():
        for child in directory.iterdir():
            yield from _prepared(child, levels=levels - 1)


@functools.cache
def _example() -> Any:
    from tensorflow_datasets.proto import tf_example_pb2

    module: Any = tf_example_pb2
    return module.Example


def _index_directory(data_dir: str) -> Path:
    """Return a directory next to the data if it is writable, otherwise one in the user's cache."""
    if not is_remote(data_dir) and os.access(data_dir, os.W_OK):
        return Path(data_dir, ".index")
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "resnet_jax" / "index"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
