"""Files here, and behind URLs such as ``gs://bucket/file``, through etils and fsspec.

Local files are read by the plain means of Python, which are faster.
"""

import contextlib
import os
from collections.abc import Callable
from typing import Any

import fsspec
from etils import epath

from resnet_jax.data.dataset import DataError

try:
    import resource
except ImportError:  # Windows has no such limits.
    resource = None

# Files that a process has open for other ends.
_OTHER_FILES = 64


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


def size_text(path: str) -> str:
    """For people and fingerprints: a file that is not there, or not for us, has a size too."""
    try:
        return f"{file_size(path)} bytes"
    except OSError as error:
        return f"no size ({error.strerror or error})"


def allow_open_files(count: int) -> None:
    """Lets this process, and those that it starts, keep so many more files open.

    The soft limit, which shells often set to 1,024, rises by as many, at most to the hard one.

    Raises:
        DataError: the hard one is too low.
    """
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    wanted = soft + count
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    # Some systems have a limit of their own below the hard one.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed < count + _OTHER_FILES:
        raise DataError(
            f"{count:,} files must be open at once, but a process is allowed {allowed:,}; raise "
            f"`ulimit -Hn` above {count + _OTHER_FILES:,}, or prepare the data set in fewer files"
        )


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
