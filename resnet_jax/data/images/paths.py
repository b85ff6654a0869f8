"""Access to local files, and to URLs such as ``gs://bucket/file`` through etils and fsspec.

Local files are read with Python's own functions, which are faster.
"""

import collections
import contextlib
import os

from etils import epath

from resnet_jax.data.dataset import DataError
from resnet_jax.data.images.names import is_hidden
from resnet_jax.data.images.remote import is_remote, read_remote, remote

try:
    import resource
except ImportError:  # Windows does not have it.
    resource = None

# Number of files that a process may have open for other purposes.
_OTHER_FILES = 64


def as_path(path: epath.PathLike) -> epath.Path:
    """Return a path with ``~`` expanded. A URL keeps its two slashes."""
    return epath.Path(path).expanduser()


def read_file(path: str) -> bytes:
    """Return the content of a file or URL."""
    if is_remote(path):
        return read_remote(path)
    with open(path, "rb", buffering=0) as file:
        return file.read()


def read_range(path: str, offset: int, length: int) -> bytes:
    """Return ``length`` bytes of a URL, starting at ``offset``."""
    return remote(
        path, lambda system, name: system.cat_file(name, start=offset, end=offset + length)
    )


def file_size(path: str) -> int:
    """Return the size of a file or URL in bytes."""
    if is_remote(path):
        return remote(path, lambda system, name: system.size(name))
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


def leads_out(directory: epath.PathLike) -> bool:
    """Return whether a path is a symbolic link to a directory that contains the link itself."""
    if is_remote(directory) or not os.path.islink(directory):
        return False
    real, place = os.path.realpath(directory), os.path.realpath(os.path.dirname(directory))
    return _contains(real, place)


def files_below(directory: epath.Path) -> dict[str, str | None]:
    """Return all files below a directory, at any depth, without the hidden ones.

    Symbolic links are followed, but every real file is returned once: under its own path if that is
    below the directory too.  A link to a directory that contains the link is ignored.

    Returns:
        Paths relative to the directory. For those that lead through a symbolic link, also if
        the directory itself is one, the path of the real file; for all others None.

    Raises:
        DataError: A directory cannot be read.
    """
    if is_remote(directory):
        names = remote(
            os.fspath(directory),
            lambda system, name: [os.path.relpath(file, name) for file in system.find(name)],
        )
        return {name: None for name in names if not any(map(is_hidden, name.split("/")))}
    try:
        return _local_files_below(os.fspath(directory))
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from None


def _local_files_below(root: str) -> dict[str, str | None]:
    start = os.path.realpath(root)
    own: list[str] = []
    linked: dict[str, str] = {}
    seen: set[str] = set()
    # Links come last, so that a file that has a path of its own is found under that.
    pending = collections.deque([("", start, os.path.islink(root))])
    while pending:
        directory, real, through_link = pending.popleft()
        if real in seen:
            continue
        seen.add(real)
        with os.scandir(os.path.join(root, directory)) as entries:
            children = sorted(entries, key=lambda entry: entry.name)
        for child in children:
            if is_hidden(child.name):
                continue
            path = os.path.join(directory, child.name)
            if child.is_symlink():
                target = os.path.realpath(child.path)
                if not os.path.isdir(target):
                    linked.setdefault(target, path)
                elif not _contains(target, start) and not _contains(target, real):
                    pending.append((path, target, True))
            elif child.is_dir():
                pending.appendleft((path, os.path.join(real, child.name), through_link))
            elif through_link:
                linked.setdefault(os.path.join(real, child.name), path)
            else:
                own.append(path)
    files: dict[str, str | None] = dict.fromkeys(own)
    if linked:
        real_files = {os.path.join(start, path) for path in own}
        files |= {path: target for target, path in linked.items() if target not in real_files}
    return files


def _contains(directory: str, path: str) -> bool:
    """Return whether a real path is a directory or below it."""
    return path == directory or path.startswith(directory.rstrip(os.sep) + os.sep)
