"""Files that a command writes when its work is done."""

import os
import tempfile
from pathlib import Path

from resnet_jax.commands.arguments import UsageError


def check_new_files(*paths: Path | None, overwrite: bool) -> None:
    """Raise `UsageError` if a file cannot be written, before any long work.

    Args:
        paths: The files. None stands for a file that was not asked for.
        overwrite: Whether they may exist.
    """
    asked = [path.expanduser() for path in paths if path is not None]
    for path in asked:
        directory = path.absolute().parent
        if path.is_dir():
            raise UsageError(f"{path} is a directory; give the path of a file")
        if not directory.is_dir():
            raise UsageError(f"{path} cannot be written: there is no directory {directory}")
        if path.exists() and not overwrite:
            raise UsageError(f"{path} exists; give another path, or replace it with --overwrite")
        check_writable(path, directory)
    if len({path.absolute() for path in asked}) < len(asked):
        raise UsageError(f"{asked[0]} is given twice; give each result a path of its own")


def check_writable(path: Path, directory: Path) -> None:
    """Raise `UsageError` if no file can be created, before any long work.

    A file is created and removed, because permissions do not say everything: file systems can be
    full or read-only.

    Args:
        path: What is to be written, for the message.
        directory: Where. If it does not exist, the directory in which it would be created is tried.
    """
    directory = directory.absolute()
    existing = next(place for place in (directory, *directory.parents) if place.exists())
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"{path} cannot be written: {reason}; give another path") from None


def write_text(path: Path, text: str) -> None:
    """Write a file such that an interruption leaves the whole file or none."""
    path = path.expanduser()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        temporary.write_text(text, "utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
