"""Data sets prepared by TensorFlow Datasets, read without TensorFlow."""

import dataclasses
import functools
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from etils import epath

from resnet_jax.data.dataset import DataError
from resnet_jax.data.images.paths import allow_open_files, as_path, file_size, is_remote
from resnet_jax.data.images.source import Record, check_label, digest
from resnet_jax.data.images.tfrecord import TFRecords


class TfdsSplit:
    """A split prepared as array_record, parquet or TFRecord.

    Args:
        directory: what `tfds.builder_from_directory` takes, with ``dataset_info.json`` in it; or
            the data directory above it, with ``name``.
        split: such as ``train`` or ``train[:90%]``.
        name: such as ``imagenet2012`` or ``imagenet2012:5.1.0``; None if ``directory`` is of the
            data set itself.
        image_key: of the images, among the features.
        label_key: of the labels.

    Raises:
        DataError: the data set is not prepared, or has no such split or feature.
    """

    def __init__(
        self,
        directory: epath.PathLike,
        split: str,
        *,
        name: str | None = None,
        image_key: str = "image",
        label_key: str = "label",
    ) -> None:
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
        label = info.features[label_key]
        if not getattr(label, "names", None):
            raise DataError(f"feature {label_key!r} of {info.full_name} is no class label")
        self.class_names: tuple[str, ...] = tuple(label.names)
        self._keys = image_key, label_key
        self._name = f"{info.full_name} {split}"
        if not self._split.num_examples:
            raise DataError(f"{self._name} is empty")
        self._examples = self._open()

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Record:
        example = _example().FromString(self._examples[index]).features.feature
        image_key, label_key = self._keys
        name = f"{self._name}, example {index}"
        label = example[label_key].int64_list.value[0]
        return Record(
            example[image_key].bytes_list.value[0],
            check_label(label, len(self.class_names), name),
            name,
        )

    @functools.cached_property
    def labels(self) -> tuple[int, ...]:
        """Of all images; they are read for it."""
        return tuple(self[index].label for index in range(len(self)))

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the files, their sizes, and the split; the contents are not read."""
        return digest(
            [
                self._name,
                *(
                    f"{os.path.basename(part.filename)} {file_size(os.fspath(part.filename))} "
                    f"{part.skip} {part.take}"
                    for part in self._split.file_instructions
                ),
            ]
        )

    def _open(self) -> Sequence[bytes]:
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core.file_adapters import FileFormat

        parts = [
            (
                os.fspath(part.filename),
                part.skip,
                part.take if part.take >= 0 else part.examples_in_shard,
            )
            for part in self._split.file_instructions
        ]
        file_format = self._builder.info.file_format
        if file_format != FileFormat.TFRECORD:
            if file_format == FileFormat.ARRAY_RECORD:
                # Its reader opens each once and for good.
                allow_open_files(len(parts))
            records = self._builder.as_data_source(
                self._spec, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
            )
            if file_format == FileFormat.PARQUET:
                # It gives all of every file that the split has a part of.
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
        return TFRecords(parts, _index_directory(os.fspath(self._builder.data_dir)))


@dataclasses.dataclass(frozen=True)
class _Selected(Sequence[bytes]):
    records: Sequence[bytes]
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> bytes:  # pyrefly: ignore[bad-override]
        return self.records[self.indices[index]]


def open_builder(directory: epath.PathLike, name: str | None) -> Any:
    """The builder of a prepared data set.

    Raises:
        DataError: it is not prepared there.
    """
    import tensorflow_datasets as tfds

    directory = as_path(directory)
    if not directory.is_dir():
        raise DataError(f"{directory} is no directory; give that of the prepared data set")
    try:
        if name is None:
            return tfds.builder_from_directory(directory)
        return tfds.builder_from_directories(_versions(directory, name))
    except Exception as error:
        raise DataError(
            f"{directory} holds no prepared data set{f' {name}' if name else ''} ({_line(error)}); "
            "prepare it with `tfds build` or `resnet-jax data prepare`"
        ) from None


def _versions(directory: epath.Path, name: str) -> list[epath.Path]:
    """The directory of the newest version or of the one asked for."""
    name, _, version = name.partition(":")
    found = sorted(
        _prepared(directory / name, levels=2),
        key=lambda path: [int(n) if n.isdecimal() else 0 for n in path.name.split(".")],
    )
    if version:
        found = [path for path in found if path.name == version]
    if not found:
        raise FileNotFoundError(f"no dataset_info.json below {directory / name}")
    return [found[-1]]


def _prepared(directory: epath.Path, *, levels: int) -> Iterator[epath.Path]:
    """Those so many levels below: of versions, with the name of a configuration or without."""
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
    """Beside the data where that can be written, else in the user's cache."""
    if not is_remote(data_dir) and os.access(data_dir, os.W_OK):
        return Path(data_dir, ".index")
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "resnet_jax" / "index"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
