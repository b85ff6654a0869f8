"""Files that a command writes when its work is done."""

import os
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
        if not os.access(path if path.exists() else directory, os.W_OK):
            raise UsageError(f"{path} cannot be written: permission denied; give another path")
    if len({path.absolute() for path in asked}) < len(asked):
        raise UsageError(f"{asked[0]} is given twice; give each result a path of its own")


def write_text(path: Path, text: str) -> None:
    """Write a file such that an interruption leaves the whole file or none."""
    path = path.expanduser()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        temporary.write_text(text, "utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
