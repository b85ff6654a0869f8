"""Rows of tables that list images and their classes: .csv, .tsv and .jsonl files."""

import csv
import io
import json
import logging
import os
import re
import stat
from collections.abc import Iterator
from typing import Any, NamedTuple

from etils import epath

from resnet_jax.data.dataset import DataError, printable
from resnet_jax.data.images.paths import is_remote
from resnet_jax.data.images.splits import SPLITS

TABLES = (".csv", ".tsv", ".jsonl")

_logger = logging.getLogger(__name__)

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)")


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        image: Path relative to the table.
        label: Name of the class.
        split: Name of the split; empty if the table has no splits.
    """

    image: str
    label: str
    split: str


def read_table(path: epath.Path) -> list[Row]:
    """Return the rows of a table, without rows that repeat an image with the same label and split.

    A ``.csv`` or ``.tsv`` file has a header and is separated by commas or tabs; each line of a
    ``.jsonl`` file is an object.  Blank lines, a byte order mark, and blanks around values are
    ignored.  A path may be any bytes, as on the file system; labels are UTF-8.

    Raises:
        DataError: The table cannot be read; a row lacks a value, has a label that is not one name
            or number, or names a file that does not exist; or two rows contradict each other.
            The message gives the row and its line.
    """
    try:
        # Spreadsheet programs write a byte order mark.
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if "\0" in text:
        raise DataError(f"{path} is not text in UTF-8; save it again as UTF-8")
    parse = _objects if path.suffix.lower() == ".jsonl" else _fields
    found = [
        (f"row {number} of {path} (line {line})", f"row {number} (line {line})", values)
        for number, (line, values) in enumerate(parse(path, text), start=1)
    ]
    if not found:
        raise DataError(f"{path} has no rows")
    has_splits = any("split" in values for *_, values in found)
    rows: list[Row] = []
    labels: dict[float, tuple[str, str]] = {}
    places: dict[object, list[tuple[str, Row]]] = {}
    repeated: list[str] = []
    for where, number, values in found:
        for key in ("image", "label"):
            if values.get(key) is None:
                raise DataError(
                    f"{where} lacks image or label; it has "
                    f"{ {name: value for name, value in values.items() if value is not None} }"
                )
        label = _label(values["label"], where)
        if _NUMBER.fullmatch(label):
            spelling, first = labels.setdefault(float(label), (label, number))
            if spelling != label:
                raise DataError(
                    f"{where} has the label {label!r} and {first} has {spelling!r}, which are the "
                    "same number; write each class in one way"
                )
        image, place = _image(values["image"], path.parent, where)
        row = Row(image, label, _split(values.get("split"), where) if has_splits else "")
        earlier = [
            (first, other)
            for first, other in places.setdefault(place, [])
            if _is_same(path.parent, other.image, image)
        ]
        for first, other in earlier:
            if other.label != label:
                raise DataError(
                    f"{where} gives {image} the label {label!r}, but {first} gives the same image "
                    f"the label {other.label!r}; remove one of the rows"
                )
        if again := [first for first, other in earlier if other.split == row.split]:
            repeated.append(f"{image} in {again[0]} and in {number}")
            continue
        places[place].append((number, row))
        rows.append(row)
    if repeated:
        _logger.warning(
            "%s repeats rows, each of which is used once: %d, such as %s",
            printable(str(path)),
            len(repeated),
            printable(repeated[0]),
        )
    return rows


def _fields(path: epath.Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the last line and the values of each row of a .csv or .tsv file."""
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=_DELIMITERS[path.suffix.lower()],
        skipinitialspace=True,
    )
    header: list[str] | None = None
    try:
        for cells in reader:
            if not any(map(str.strip, cells)):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                for name in ("image", "label", "split"):
                    if header.count(name) > 1:
                        raise DataError(f"{path} has two columns {name}; remove or rename one")
                continue
            if any(map(str.strip, cells[len(header) :])):
                raise DataError(
                    f"line {reader.line_num} of {path} has {len(cells)} fields, but the header "
                    f"has {len(header)}; quote a value that contains {reader.dialect.delimiter!r}"
                )
            yield reader.line_num, dict(zip(header, cells, strict=False))
    except csv.Error as error:
        raise DataError(f"line {reader.line_num} of {path} cannot be read: {error}") from None


def _objects(path: epath.Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the line and the values of each row of a .jsonl file."""
    number = 0
    for line, content in enumerate(io.StringIO(text, newline=""), start=1):
        if not content.strip():
            continue
        number += 1
        where = f"row {number} of {path} (line {line})"
        try:
            row = json.loads(content)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{where} cannot be read as JSON: {error.msg} at column {error.colno}"
            ) from None
        except (ValueError, RecursionError) as error:  # Numbers of too many digits, deep nesting.
            raise DataError(f"{where} cannot be read as JSON: {error}") from None
        if not isinstance(row, dict):
            raise DataError(f"{where} lacks image or label; it has {row}")
        yield line, row


def _label(value: Any, where: str) -> str:
    """Return the name of a class."""
    message = (
        f"{where} has {value!r} in the column label; it must be one name or number, because images "
        "of several classes are not supported"
    )
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(message)
    label = str(value).strip()
    if not label or (label == "nan" and isinstance(value, float)):
        raise DataError(f"{where} has nothing in the column label; name the class of the image")
    if label[0] + label[-1] in ("[]", "{}"):
        raise DataError(message)
    if printable(label) != label:
        raise DataError(
            f"{where} has {printable(label)} in the column label, which is not UTF-8; save the "
            "table as UTF-8"
        )
    return label


def _split(value: Any, where: str) -> str:
    split = SPLITS.get(str(value).strip().lower())
    if split is None:
        raise DataError(f"{where} has the split {value!r}, but splits are {', '.join(SPLITS)}")
    return split


def _image(value: Any, directory: epath.Path, where: str) -> tuple[str, object]:
    """Return the path of an image, relative to the table, and a key that is equal for equal files.

    Files with equal keys may be different ones, see `_is_same`.
    """
    if not isinstance(value, str):
        raise DataError(f"{where} has the image {value!r}, which is not a path")
    image = value if _identity(directory, value) is not None else value.strip()
    identity = _identity(directory, image)
    if not image:
        raise DataError(f"{where} has nothing in the column image; give the path of the image")
    if identity is None:
        raise DataError(f"{where} names {image}, which does not exist")
    return image, identity


def _identity(directory: epath.Path, image: str) -> object | None:
    """Return a key for a file, or None if it does not exist."""
    if is_remote(directory):
        return os.path.normpath(image) if (directory / image).is_file() else None
    path = os.path.join(directory, image)
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: the text cannot be the name of a file.
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _is_same(directory: epath.Path, one: str, other: str) -> bool:
    """Return whether two paths lead to one file, directly or through symbolic links.

    Hard links are different files, and so are files to which a file system gives one number.
    """
    if os.path.normpath(one) == os.path.normpath(other):
        return True
    if is_remote(directory):
        return False
    real = [os.path.realpath(os.path.join(directory, image)) for image in (one, other)]
    return real[0] == real[1]
