"""Images in one folder for each class, or in a table of files and classes."""

import csv
import dataclasses
import functools
import io
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from etils import epath

from resnet_jax.data.dataset import DataError
from resnet_jax.data.images.paths import as_path, files_below, read_file, size_text
from resnet_jax.data.images.source import Record, UnreadableError, digest

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif"),
    *(".bmp", ".gif", ".tif", ".tiff", ".jp2", ".ppm", ".pgm"),
)

# Names of the splits in folders and tables, in lowercase or uppercase letters.
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """Image files with labels.

    Attributes:
        root: Directory of the files.
        files: Paths relative to ``root``.
        labels: Label of each file.
        class_names: Name of each label.
    """

    root: epath.Path
    files: tuple[str, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Record:
        path = os.path.join(self._directory, self.files[index])
        try:
            image = read_file(path)
        except OSError as error:
            raise UnreadableError(path, f"cannot be read ({error.strerror or error})") from None
        return Record(image, self.labels[index], path)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the names, sizes and labels of the files. The files are not read."""
        return digest(
            f"{file} {size_text(os.path.join(self._directory, file))} {label}"
            for file, label in zip(self.files, self.labels, strict=True)
        )

    @functools.cached_property
    def _directory(self) -> str:
        """The root as text, cached because the conversion takes longer than opening a file."""
        return os.fspath(self.root)

    def take(self, indices: Sequence[int]) -> Self:
        """Return some of the files."""
        return dataclasses.replace(
            self,
            files=tuple(self.files[i] for i in indices),
            labels=tuple(self.labels[i] for i in indices),
        )


def open_splits(
    path: epath.PathLike, *, evaluation_share: float, seed: int, every: bool = False
) -> dict[str, ImageFiles]:
    """Open the splits of a directory of images or of a table of files.

    Args:
        path: A directory contains either ``train`` and ``val`` (or ``validation``, ``test``), each
            with one folder for each class, or the folders of the classes themselves. Images may be
            at any depth in the folder of a class. A table is a ``.csv`` file with a header or a
            ``.jsonl`` file. Its column ``image`` is a path relative to the table, ``label`` is the
            name of a class, and the optional ``split`` is named like the folders.
        evaluation_share: Share of the images of each class that is held out for evaluation, from 0
            to 1, if there is no evaluation split.
        seed: Seed that chooses the held-out images.
        every: Also read the test split if there is a validation split.

    Returns:
        The splits by name: ``"train"`` first, then ``"validation"``, ``"test"``, or both if
        ``every`` is set.

    Raises:
        DataError: The directory or table does not exist or cannot be read, or a split, class,
            column or file is missing or unknown.
    """
    path = as_path(path)
    is_table = path.suffix.lower() in (".csv", ".jsonl")
    splits = (_read_table if is_table else _read_folder)(path, every)
    if len(splits) > 1:
        return splits
    train, validation = _split(splits["train"], evaluation_share, seed)
    return {"train": train, "validation": validation}


def _wanted(found: Iterable[str], every: bool) -> list[str]:
    names = sorted(set(found), key=tuple(_SPLITS.values()).index)
    return names if every else names[:2]


def _read_folder(directory: epath.Path, every: bool) -> dict[str, ImageFiles]:
    children = _directories(directory)
    folders: dict[str, epath.Path] = {}
    for name, child in children.items():
        split = _SPLITS.get(name.lower())
        if split in folders:
            raise DataError(f"{folders[split]} and {child} are one split; merge them or remove one")
        if split:
            folders[split] = child
    if not folders:
        return {"train": _read_classes(directory)}
    if "train" not in folders:
        name = next(iter(folders.values())).name
        raise DataError(f"{directory} has {name} but no train; rename one or add the other")
    others = [child.name for child in children.values() if child not in folders.values()]
    if others:
        raise DataError(
            f"{directory} has {', '.join(others[:5])} beside {folders['train'].name}, but splits "
            f"are {', '.join(_SPLITS)}; rename or move the other folders"
        )
    splits = {name: _read_classes(folders[name]) for name in _wanted(folders, every)}
    for name, images in splits.items():
        only = set(images.class_names) ^ set(splits["train"].class_names)
        if only:
            raise DataError(
                f"{folders['train']} and {folders[name]} have different classes: "
                f"only one of them has {', '.join(sorted(only)[:5])}"
            )
    return splits


def _read_table(path: epath.Path, every: bool) -> dict[str, ImageFiles]:
    rows = _rows(path)
    named = {row.split for row in rows}
    if named != {""} and ("train" not in named or len(named) == 1):
        raise DataError(
            f"{path} needs rows of the split train and of one of val, valid, validation and test; "
            f"it has {', '.join(named)}"
        )
    class_names = sorted({row.label for row in rows}, key=_natural)
    if len(class_names) < 2:
        raise DataError(f"{path} has only the class {class_names[0]}; a classifier needs two")
    numbers = {name: label for label, name in enumerate(class_names)}

    def files(split: str) -> ImageFiles:
        chosen = [row for row in rows if row.split == split]
        return ImageFiles(
            path.parent,
            tuple(row.image for row in chosen),
            tuple(numbers[row.label] for row in chosen),
            tuple(class_names),
        )

    if named == {""}:
        return {"train": files("")}
    splits = {name: files(name) for name in _wanted(named, every)}
    missing = [name for name, label in numbers.items() if label not in splits["train"].labels]
    if missing:
        raise DataError(
            f"{path} has no training rows of class {', '.join(missing[:5])}; add some, or "
            "remove the evaluation rows of these classes"
        )
    return splits


class _Row(NamedTuple):
    """A row of a table. The split is empty if the table has no splits."""

    image: str
    label: str
    split: str


def _rows(path: epath.Path) -> list[_Row]:
    try:
        # Spreadsheet programs write a byte order mark.
        lines = io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")
        rows: list[Any] = (
            [json.loads(line) for line in lines if line.strip()]
            if path.suffix.lower() == ".jsonl"
            else list(csv.DictReader(lines))
        )
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if not rows:
        raise DataError(f"{path} has no rows")
    has_splits = any(isinstance(row, dict) and "split" in row for row in rows)
    found = []
    for number, row in enumerate(rows, start=1):
        where = f"row {number} of {path}"
        if not isinstance(row, dict) or row.get("image") is None or row.get("label") is None:
            raise DataError(f"{where} lacks image or label; it has {row}")
        image, split = row["image"], ""
        if not isinstance(image, str):
            raise DataError(f"{where} has the image {image!r}, which is not a path")
        if has_splits:
            split = _SPLITS.get(str(row.get("split")).lower(), "")
            if not split:
                raise DataError(
                    f"{where} has the split {row.get('split')!r}, but splits are "
                    f"{', '.join(_SPLITS)}"
                )
        if not (path.parent / image).is_file():
            raise DataError(f"{where} names {image}, which does not exist")
        found.append(_Row(image, str(row["label"]), split))
    return found


def _directories(directory: epath.Path) -> dict[str, epath.Path]:
    if not directory.is_dir():
        raise DataError(f"{directory} is not a directory; give the one of the images")
    try:
        return {
            child.name: child
            for child in sorted(directory.iterdir(), key=lambda path: _natural(path.name))
            if child.is_dir() and not child.name.startswith(".")
        }
    except OSError as error:
        raise DataError(f"{directory} cannot be read: {error.strerror}") from None


def _read_classes(directory: epath.Path) -> ImageFiles:
    classes = _directories(directory)
    if len(classes) < 2:
        raise DataError(
            f"{directory} has {len(classes)} folders; a classifier needs one for each of at least "
            "two classes"
        )
    files, labels = [], []
    for label, (name, folder) in enumerate(classes.items()):
        images = sorted(_images(folder), key=_natural)
        if not images:
            raise DataError(
                f"{folder} has no images ({', '.join(EXTENSIONS)}); remove the folder of class "
                f"{name}, or fill it"
            )
        files += [os.path.join(name, image) for image in images]
        labels += [label] * len(images)
    return ImageFiles(directory, tuple(files), tuple(labels), tuple(classes))


def _images(folder: epath.Path) -> list[str]:
    return [
        file
        for file in files_below(folder)
        if file.lower().endswith(EXTENSIONS) and not os.path.basename(file).startswith(".")
    ]


def _split(images: ImageFiles, share: float, seed: int) -> tuple[ImageFiles, ImageFiles]:
    """Split by class, with at least one image of each class in both parts."""
    labels = np.asarray(images.labels)
    rng = np.random.default_rng(seed)
    train, evaluation = [], []
    for label, name in enumerate(images.class_names):
        indices = rng.permutation(np.flatnonzero(labels == label))
        if len(indices) < 2:
            raise DataError(
                f"class {name} has {len(indices)} image, but a class needs two to be split"
            )
        count = min(max(1, round(share * len(indices))), len(indices) - 1)
        evaluation += indices[:count].tolist()
        train += indices[count:].tolist()
    return images.take(sorted(train)), images.take(sorted(evaluation))


def _natural(name: str) -> tuple[int, int, str]:
    """Return a sort key: numbers come first, by value, so that class 10 comes after class 9."""
    return (0, int(name), "") if name.isdecimal() else (1, 0, name)
