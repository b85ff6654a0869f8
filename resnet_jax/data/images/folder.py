"""Images in folders: a folder for each class, or a table that names files and classes."""

import csv
import dataclasses
import functools
import io
import json
import os
from collections.abc import Sequence
from typing import Self

import numpy as np
from etils import epath

from resnet_jax.data.dataset import DataError
from resnet_jax.data.images.paths import as_path, file_size, files_below, read_file
from resnet_jax.data.images.source import Record, check_label, digest

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")

# Names that splits go by.
_TRAIN = ("train", "training")
_EVALUATION = ("val", "valid", "validation", "test")


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """Files with labels.

    Attributes:
        root: the directory that the files are in.
        files: paths below it.
        labels: of each file.
        class_names: name of every label.
    """

    root: epath.Path
    files: tuple[str, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Record:
        path = os.path.join(self.root, self.files[index])
        try:
            image = read_file(path)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from None
        return Record(image, self.labels[index], path)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of names, sizes and labels; the contents are not read."""
        return digest(
            f"{file} {file_size(os.path.join(self.root, file))} {label}"
            for file, label in zip(self.files, self.labels, strict=True)
        )

    def take(self, indices: Sequence[int]) -> Self:
        """Some of the files."""
        return dataclasses.replace(
            self,
            files=tuple(self.files[i] for i in indices),
            labels=tuple(self.labels[i] for i in indices),
        )


def open_folder(
    directory: epath.PathLike, *, evaluation_share: float, seed: int
) -> tuple[ImageFiles, ImageFiles, str]:
    """The two splits of a directory of images.

    Args:
        directory: either has ``train`` and ``val`` (or ``validation``, ``test``), each with a
            folder for each class; or has the folders of the classes itself.  Within the folder of
            a class the images may lie at any depth.
        evaluation_share: where there is no evaluation split, this share of the images of each class
            becomes one, 0 to 1.
        seed: decides which.

    Returns:
        The splits to train and to evaluate on, and the name of the latter, ``"validation"`` or
        ``"test"``.

    Raises:
        DataError: there is no such directory, a split or class is empty or missing, or cannot be
            read.
    """
    directory = as_path(directory)
    children = _directories(directory)
    train = next((children[name] for name in _TRAIN if name in children), None)
    found = [name for name in _EVALUATION if name in children]
    if train is None and found:
        raise DataError(f"{directory} has {found[0]} but no train; rename one or add the other")
    if train is None:
        return *_split(_read_classes(directory), evaluation_share, seed), "validation"
    images = _read_classes(train)
    if not found:
        return *_split(images, evaluation_share, seed), "validation"
    evaluation = _read_classes(children[found[0]])
    if images.class_names != evaluation.class_names:
        only = set(images.class_names) ^ set(evaluation.class_names)
        raise DataError(
            f"{train} and {children[found[0]]} have other classes: {', '.join(sorted(only)[:5])} "
            "is in one of them only"
        )
    return images, evaluation, "test" if found[0] == "test" else "validation"


def open_manifest(
    path: epath.PathLike, *, evaluation_share: float, seed: int
) -> tuple[ImageFiles, ImageFiles, str]:
    """The two splits of a table of files.

    Args:
        path: ``.csv`` with a header, or ``.jsonl``.  ``image`` is a path relative to the table,
            ``label`` the name of a class; ``split``, where there is one, is as the folders in
            `open_folder`.
        evaluation_share: as there.
        seed: as there.

    Raises:
        DataError: the table cannot be read, or lacks a column, a split or a file.
    """
    path = as_path(path)
    try:
        lines = io.StringIO(path.read_text(), newline="")
        rows = (
            [json.loads(line) for line in lines if line.strip()]
            if path.suffix == ".jsonl"
            else list(csv.DictReader(lines))
        )
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if not rows:
        raise DataError(f"{path} has no rows")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or row.get("image") is None or row.get("label") is None:
            raise DataError(f"row {number} of {path} lacks image or label; it has {row}")
        if not (path.parent / row["image"]).is_file():
            raise DataError(f"row {number} of {path} names {row['image']}, which does not exist")
    class_names = tuple(sorted({str(row["label"]) for row in rows}, key=_natural))

    def files(rows: list[dict[str, str]]) -> ImageFiles:
        return ImageFiles(
            path.parent,
            tuple(row["image"] for row in rows),
            tuple(class_names.index(str(row["label"])) for row in rows),
            class_names,
        )

    if "split" not in rows[0]:
        return *_split(files(rows), evaluation_share, seed), "validation"
    train = [row for row in rows if row["split"] in _TRAIN]
    name = next((n for n in _EVALUATION if any(row["split"] == n for row in rows)), None)
    if not train or name is None:
        raise DataError(
            f"{path} needs rows of split train and of one of {', '.join(_EVALUATION)}; it has "
            f"{', '.join(sorted({row['split'] for row in rows}))}"
        )
    evaluation = [row for row in rows if row["split"] == name]
    return files(train), files(evaluation), "test" if name == "test" else "validation"


def _directories(directory: epath.Path) -> dict[str, epath.Path]:
    if not directory.is_dir():
        raise DataError(f"{directory} is no directory; give the one that holds the images")
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
        labels += [check_label(label, len(classes), name)] * len(images)
    return ImageFiles(directory, tuple(files), tuple(labels), tuple(classes))


def _images(folder: epath.Path) -> list[str]:
    return [
        file
        for file in files_below(folder)
        if file.lower().endswith(EXTENSIONS) and not os.path.basename(file).startswith(".")
    ]


def _split(images: ImageFiles, share: float, seed: int) -> tuple[ImageFiles, ImageFiles]:
    """By class, with at least one image of each on either side."""
    labels = np.asarray(images.labels)
    rng = np.random.default_rng(seed)
    train, evaluation = [], []
    for label, name in enumerate(images.class_names):
        indices = rng.permutation(np.flatnonzero(labels == label))
        if len(indices) < 2:
            raise DataError(f"class {name} has {len(indices)} image; it needs two to be split")
        count = min(max(1, round(share * len(indices))), len(indices) - 1)
        evaluation += indices[:count].tolist()
        train += indices[count:].tolist()
    return images.take(sorted(train)), images.take(sorted(evaluation))


def _natural(name: str) -> tuple[int, int, str]:
    """Numbers by value and before all else, so that class 10 comes behind class 9."""
    return (0, int(name), "") if name.isdecimal() else (1, 0, name)
