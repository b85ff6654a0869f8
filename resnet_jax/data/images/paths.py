"""Files here, and behind URLs such as ``gs://bucket/file``, through etils and fsspec.

Local files are read by the plain means of Python, which are faster.
"""

import os
from collections.abc import Callable
from typing import Any

import fsspec
from etils import epath

from resnet_jax.data.dataset import DataError


def as_path(path: epath.PathLike) -> epath.Path:
    """A directory or file, with ``~`` expanded; a URL keeps its two slashes."""
    return epath.Path(path).expanduser()


def is_remote(path: epath.PathLike) -> bool:
    """Whether it is a URL."""
    return "://" in os.fspath(path)


def read_file(path: str) -> bytes:
    """All of a file."""
    if is_remote(path):
        return _remote(path, lambda system, name: system.cat_file(name))
    with open(path, "rb", buffering=0) as file:
        return file.read()


def read_range(path: str, offset: int, length: int) -> bytes:
    """Part of a file behind a URL."""
    return _remote(
        path, lambda system, name: system.cat_file(name, start=offset, end=offset + length)
    )


def file_size(path: str) -> int:
    """In bytes."""
    if is_remote(path):
        return _remote(path, lambda system, name: system.size(name))
    return os.path.getsize(path)


def files_below(directory: epath.Path) -> list[str]:
    """Paths of all files at any depth below a directory, relative to it.

    Raises:
        DataError: a directory cannot be read.
    """
    if is_remote(directory):
        return _remote(
            os.fspath(directory),
            lambda system, name: [os.path.relpath(file, name) for file in system.find(name)],
        )

    def unreadable(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}")

    return [
        os.path.relpath(os.path.join(parent, file), directory)
        for parent, _, files in os.walk(directory, onerror=unreadable, followlinks=True)
        for file in files
    ]


def _remote(path: str, action: Callable[[Any, str], Any]) -> Any:
    return action(*fsspec.core.url_to_fs(path))
