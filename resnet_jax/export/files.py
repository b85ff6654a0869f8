"""Files and directories that an export writes."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside a file, which takes its place if the block succeeds.

    After an interruption, either the old file is there, or the new one, never a part.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def new_directory(directory: Path, names: tuple[str, ...], *, overwrite: bool) -> Path:
    """Create a directory for files, and return its path.

    Args:
        directory: The directory, which may exist.
        names: The files that will be written.
        overwrite: Whether they may exist.

    Raises:
        ValueError: The path is a file, or the directory has such a file.
    """
    directory = directory.expanduser()
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory} is a file; give the path of a directory")
    taken = [name for name in names if (directory / name).exists()]
    if taken and not overwrite:
        raise ValueError(
            f"{directory / taken[0]} exists; give another directory, or replace it with --overwrite"
        )
    directory.mkdir(parents=True, exist_ok=True)
    return directory
