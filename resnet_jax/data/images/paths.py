"""Access to local files, and to URLs such as ``gs://bucket/file`` through etils and fsspec.

Local files are read with Python's own functions, which are faster.
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
except ImportError:  # Windows does not have it.
    resource = None

# Number of files that a process may have open for other purposes.
_OTHER_FILES = 64


def as_path(path: epath.PathLike) -> epath.Path:
    """Return a path with ``~`` expanded. A URL keeps its two slashes."""
    return epath.Path(path).expanduser()


def is_remote(path: epath.PathLike) -> bool:
    """Return whether a path is a URL."""
    return "://" in os.fspath(path)


def read_file(path: str) -> bytes:
    """Return the content of a file or URL."""
    if is_remote(path):
        return _remote(path, lambda system, name: system.cat_file(name))
    with open(path, "rb", buffering=0) as file:
        return file.read()


def read_range(path: str, offset: int, length: int) -> bytes:
    """Return ``length`` bytes of a URL, starting at ``offset``."""
    return _remote(
        path, lambda system, name: system.cat_file(name, start=offset, end=offset + length)
    )


def file_size(path: str) -> int:
    """Return the size of a file or URL in bytes."""
    if is_remote(path):
        return _remote(path, lambda system, name: system.size(name))
    return os.path.getsize(path)


def size_text(path: str) -> str:
    """Return the size of a file in words, also if it does not exist or cannot be read."""
    try:
        return f"{file_size(path)} bytes"
    except OSError as error:
        return f"no size ({error.strerror or error})"


def allow_open_files(count: int) -> None:
    """Allow this process, and the processes that it starts, to open ``count`` more files.

    The soft limit, which shells often set to 1,024, is raised by ``count``, at most to the hard
    limit.

    Raises:
        DataError: The hard limit is too low.
    """
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    wanted = soft + count
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    # Some systems have another limit below the hard limit.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed < count + _OTHER_FILES:
        raise DataError(
            f"{count:,} files must be open at once, but a process is allowed {allowed:,}; raise "
            f"`ulimit -Hn` above {count + _OTHER_FILES:,}, or prepare the data set in fewer files"
        )


def files_below(directory: epath.Path) -> list[str]:
    """Return the paths of all files below a directory, at any depth, relative to it.

    Raises:
        DataError: A directory cannot be read.
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
    """Call a function with the file system of a URL and the name in it."""
    return action(*fsspec.core.url_to_fs(path))
