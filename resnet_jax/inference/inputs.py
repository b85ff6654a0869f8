"""Image files from what a user names: files, folders, patterns, URLs and lists."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from resnet_jax.data.dataset import printable
from resnet_jax.data.images.names import EXTENSIONS, is_hidden
from resnet_jax.data.images.remote import is_remote, list_remote

LIST = "-"
"""Name that stands for a list of files on standard input."""


class InputError(ValueError):
    """Raised for a name that leads to no image. The message says what was expected."""


def check_inputs(names: Iterable[str | os.PathLike[str]]) -> None:
    """Raise an error if a name leads to no image, without reading any image.

    Raises:
        InputError: A file or folder does not exist, no file matches a pattern, or a folder has no
            images.
        OSError: A URL cannot be listed.
        ImportError: A URL needs a package that is not installed.
    """
    for name in names:
        if os.fspath(name) != LIST:
            next(expand([name], in_order=False))


def expand(
    names: Iterable[str | os.PathLike[str]],
    listed: BinaryIO | None = None,
    *,
    in_order: bool = True,
) -> Iterator[str]:
    """Yield the paths and URLs of images, in an order that does not change.

    Folders are read one at a time, when their images are asked for, so that the first image of a
    large tree comes at once and the memory does not grow with the number of images.

    Args:
        names: What to read, each one of

            - a file of any name;
            - a folder, for all files below it whose name ends like that of an image. Files and
              folders that begin with a dot, and those in which storage systems keep thumbnails and
              deleted files, are left out. Each directory is read once, also if symbolic links lead
              to it;
            - a pattern such as ``"photos/**/*.jpg"``, if no file has this name;
            - a URL of a file, and for file systems that can list files, such as ``s3://``, also of
              a folder or a pattern;
            - ``"-"`` for a list of files, folders and URLs, one on each line.

        listed: The list for ``"-"``. By default it is standard input.
        in_order: Whether the images of a folder are sorted by name. Otherwise they have the order
            of the file system, and the first one comes before the folder has been read.

    Yields:
        Paths and URLs. Members of the list, and directories within a folder, that do not exist or
        cannot be read are yielded, too: reading them tells why.

    Raises:
        InputError: As in `check_inputs`, when it is the turn of that name.
        OSError: As in `check_inputs`.
        ImportError: As in `check_inputs`.
    """
    for name in names:
        text = os.fspath(name)
        if text == LIST:
            yield from _listed(sys.stdin.buffer if listed is None else listed)
            continue
        found = False
        for path in _expand(text, in_order):
            found = True
            yield path
        if not found:
            raise InputError(_reason(text))


def _expand(text: str, in_order: bool) -> Iterator[str]:
    """Yield the images of one name; none if it leads to nothing."""
    if is_remote(text):
        is_pattern = "*" in text
        # Asking whether a file is a folder would take another request.
        found = list_remote(text) if is_pattern or not _is_image(text) else None
        if found is None:
            yield text
        else:
            yield from found if is_pattern else filter(_is_image, found)
        return
    path = os.path.expanduser(text)
    if os.path.isdir(path):
        yield from _below(path, set(), in_order)
    elif os.path.lexists(path):
        yield path
    elif glob.has_magic(path):
        yield from _matches(path)


def _matches(pattern: str) -> Iterator[str]:
    """Yield the files that match a pattern, and the images below the folders that match it."""
    named = pattern.split(os.sep)
    for match in sorted(glob.glob(pattern, recursive=True)):
        if any(is_hidden(part) and part not in named for part in match.split(os.sep)):
            continue
        if not os.path.isdir(match):
            yield match
        elif "**" not in named:
            yield from _below(match, set())


def _listed(lines: BinaryIO) -> Iterator[str]:
    """Yield the images of a list. A pattern in it is the name of a file."""
    for line in lines:
        text = os.fsdecode(line.rstrip(b"\r\n"))
        if not text:
            continue
        if os.path.isdir(text):
            yield from _below(text, set())
        else:
            yield text


def _below(directory: str, seen: set[tuple[int, int]], in_order: bool = True) -> Iterator[str]:
    """Yield the images below a directory, sorted by name within each directory, or unsorted."""
    # A directory may have millions of images, so that only their names are kept.
    names: list[str] = []
    folders: set[str] = set()
    try:
        status = os.stat(directory)
        identity = status.st_dev, status.st_ino
        if identity in seen:
            return
        seen.add(identity)
        with os.scandir(directory) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                if _is_directory(entry):
                    folders.add(entry.name)
                elif not _is_image(entry.name):
                    continue
                elif not in_order:
                    yield entry.path
                    continue
                names.append(entry.name)
    except OSError:
        yield directory
        return
    for name in sorted(names):
        path = os.path.join(directory, name)
        if name in folders:
            yield from _below(path, seen, in_order)
        else:
            yield path


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link leads to itself.
        return False


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def _reason(text: str) -> str:
    """Return why a name leads to no image, and what to do."""
    name = printable(text)
    if is_remote(text) or os.path.isdir(os.path.expanduser(text)):
        return f"{name} has no images ({', '.join(EXTENSIONS)}); name the files themselves"
    if glob.has_magic(text):
        return f"no file matches {name}; check the pattern"
    return f"{name}: there is no such file or folder; check the path"
