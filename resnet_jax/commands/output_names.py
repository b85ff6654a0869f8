"""Names of the files that a command writes about images."""

import itertools
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath

# Characters that Windows does not allow in names, and control characters.
_FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]')
# Longest stem in characters. File systems allow 255 bytes, of which a character takes up to four.
_LONGEST = 50


def output_names(images: Sequence[str], suffixes: Sequence[str]) -> list[str]:
    """Return a relative path for each image, without a suffix, such that no two are the same.

    Names are those of the images, and the folders below the deepest one that all images share are
    kept. An image whose name is taken gets a number. Names that differ only in upper and lower case
    count as the same, as they do on macOS and Windows.

    Args:
        images: Paths and URLs.
        suffixes: Suffixes of the files, such as ``".png"``. No folder ends with one of them, so
            that it cannot take the place of a file.

    >>> output_names(["photos/a/1.jpg", "photos/b/1.jpg", "photos/b/1.PNG"], [".png"])
    ['a/1', 'b/1', 'b/1-2']
    """
    paths = [_parts(image) for image in images]
    above = zip(*(folders for *folders, _ in paths), strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda folders: len(set(folders)) == 1, above))
    names, taken = [], set()
    for *folders, file in paths:
        kept = [
            f"{folder}_" if folder.lower().endswith(tuple(suffixes)) else folder
            for folder in map(_allowed, folders[shared:])
        ]
        first = name = "/".join([*kept, _allowed(PurePosixPath(file).stem)])
        number = 1
        while (key := unicodedata.normalize("NFC", name).casefold()) in taken:
            number += 1
            name = f"{first}-{number}"
        taken.add(key)
        names.append(name)
    return names


def _parts(image: str) -> list[str]:
    """Return the folders and the name of an image."""
    _, separator, rest = image.partition("://")
    if separator:
        return [part for part in rest.split("/") if part not in ("", ".", "..")] or ["image"]
    path = os.path.abspath(os.path.expanduser(image))
    return [part for part in path.split(os.sep) if part]


def _allowed(name: str) -> str:
    """Return a name without what some file systems refuse."""
    return _FORBIDDEN.sub("_", name)[:_LONGEST].rstrip(". ") or "_"
