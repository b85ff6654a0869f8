"""Indices of weights that are divided into several files, as ``transformers`` writes them."""

import json
from pathlib import Path


def is_index(name: str) -> bool:
    """Return whether a file of this name is an index of weights in several files."""
    return name.endswith(".index.json")


def read_index(path: Path) -> dict[str, str]:
    """Return the names of all tensors, mapped to the names of the files that contain them.

    Raises:
        ValueError: The index is damaged, or names files in other directories or other indices.
    """
    try:
        files = json.loads(path.read_bytes())["weight_map"]
        valid = all(map(_is_file_beside, files.values()))
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: not an index of weight files, or it is damaged ({type(error).__name__}); "
            "fetch it again"
        ) from None
    if not valid:
        raise ValueError(
            f"{path}: the index must name files beside it that are no indices; put the files of "
            "weights beside it and edit it"
        )
    return files


def _is_file_beside(name: str) -> bool:
    # An index that names itself would be read for ever.
    return Path(name).name == name and name.isprintable() and not is_index(name)
