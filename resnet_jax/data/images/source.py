"""What every source of encoded images gives."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from resnet_jax.data.dataset import DataError


class Record(NamedTuple):
    """One encoded image.

    Attributes:
        image: the bytes of a JPEG, PNG, WebP or other file that Pillow reads.
        label: index of its class; sets without labels have -1.
        name: where it comes from, for people.
    """

    image: bytes
    label: int
    name: str


class UnreadableError(DataError):
    """An image that cannot be read or decoded, which a run may be told to skip.

    Attributes:
        name: where it comes from, for people.
        reason: what is wrong with it.
    """

    def __init__(self, name: str, reason: str) -> None:
        # What is pickled on the way from a worker.
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class ImageSource(Protocol):
    """A split with random access, safe to read from many threads."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of every label."""
        ...

    @property
    def labels(self) -> Sequence[int]:
        """Of all images."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes when the data does; a run is only continued on the data it began with."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record:
        """With the label as it is stored, which may be none of a class.

        Raises:
            UnreadableError: it cannot be read.
        """
        ...


def digest(parts: Iterable[str]) -> str:
    """SHA-256 over lines of text."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part.encode() + b"\n")
    return sha.hexdigest()


def labelled(source: ImageSource, index: int) -> Record:
    """A record to train or to evaluate on.

    Raises:
        DataError: its label is no index of a class.
        UnreadableError: it cannot be read.
    """
    record = source[index]
    check_label(record.label, len(source.class_names), record.name)
    return record


def check_label(label: int, num_classes: int, name: str) -> None:
    """Raises `DataError` where a label is no index of a class."""
    if not 0 <= label < num_classes:
        raise DataError(
            f"{name} has label {label}, but there are {num_classes} classes, counted from 0"
        )
