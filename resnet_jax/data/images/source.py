"""What every source of encoded images gives."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from resnet_jax.data.dataset import DataError


class Record(NamedTuple):
    """One encoded image.

    Attributes:
        image: the bytes of a JPEG, PNG, WebP or other file that Pillow reads.
        label: index of its class.
        name: where it comes from, for people.
    """

    image: bytes
    label: int
    name: str


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

    def __getitem__(self, index: int) -> Record: ...


def digest(parts: Iterable[str]) -> str:
    """SHA-256 over lines of text."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part.encode() + b"\n")
    return sha.hexdigest()


def check_label(label: int, num_classes: int, name: str) -> int:
    """The label.

    Raises:
        DataError: it is no index of a class.
    """
    if not 0 <= label < num_classes:
        raise DataError(
            f"{name} has label {label}, but there are {num_classes} classes, counted from 0"
        )
    return label
