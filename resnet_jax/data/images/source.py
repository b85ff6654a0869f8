"""Encoded images with labels: the records, their sources, and checks of them."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from resnet_jax.data.dataset import DataError, printable


class Record(NamedTuple):
    """One encoded image.

    Attributes:
        image: Content of a JPEG, PNG, WebP or other file that Pillow reads.
        label: Index of the class, or -1 in data sets without labels.
        name: Where the image comes from, for messages. It is `printable`.
    """

    image: bytes
    label: int
    name: str


class UnreadableError(DataError):
    """Raised for an image that cannot be read or decoded. A run can be told to skip it.

    Attributes:
        name: Where the image comes from.
        reason: What is wrong with it.
    """

    def __init__(self, name: str, reason: str) -> None:
        # Exceptions from worker processes are pickled with these arguments.
        super().__init__(name, reason)
        self.name = printable(name)
        self.reason = printable(reason)

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class ImageSource(Protocol):
    """A split of encoded images with random access. Several threads may read it at once."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each label."""
        ...

    @property
    def labels(self) -> Sequence[int]:
        """Labels of all images. Some sources read every image file for them."""
        ...

    @property
    def fingerprint(self) -> str:
        """Text that changes when the data changes."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record:
        """Return a record with its stored label, which may be outside the range of the classes.

        Raises:
            UnreadableError: The image cannot be read.
        """
        ...

    def name(self, index: int) -> str:
        """Return where an image comes from, without reading it. It is `printable`.

        It is shorter than the name in the record, which also says where the data set is.
        """
        ...


def digest(parts: Iterable[str]) -> str:
    """Return the SHA-256 of lines of text, in hexadecimal. Names of files may be any bytes."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part.encode("utf-8", "surrogateescape") + b"\n")
    return sha.hexdigest()


def labelled(source: ImageSource, index: int) -> Record:
    """Return a record whose label is the index of a class.

    Raises:
        DataError: The label is not the index of a class.
        UnreadableError: The image cannot be read.
    """
    record = source[index]
    check_label(record.label, len(source.class_names), record.name)
    return record


def check_label(label: int, num_classes: int, name: str) -> None:
    """Raise `DataError` if a label is not the index of a class."""
    if not 0 <= label < num_classes:
        raise DataError(
            f"{name} has label {label}, but there are {num_classes} classes, counted from 0"
        )
