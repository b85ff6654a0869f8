"""Images in one folder for each class, or in a table of files and classes."""

import dataclasses
import functools
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Self

import numpy as np
from etils import epath

from resnet_jax.data.dataset import DataError, printable
from resnet_jax.data.images.names import EXTENSIONS, is_hidden
from resnet_jax.data.images.paths import as_path, files_below, leads_out, read_file, size_text
from resnet_jax.data.images.source import Record, UnreadableError, digest
from resnet_jax.data.images.splits import SPLITS
from resnet_jax.data.images.table import TABLES, Row, read_table


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """Image files with labels.

    Attributes:
        root: Directory of the files.
        files: Paths relative to ``root``.
        labels: Label of each file.
        class_names: Name of each label. It is `printable`.
        held_out: Whether the files are a part of the training files that was held out.
    """

    root: epath.Path
    files: tuple[str, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    held_out: bool = False

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Record:
        path = os.path.join(self._directory, self.files[index])
        try:
            image = read_file(path)
        except OSError as error:
            raise UnreadableError(path, f"cannot be read ({error.strerror or error})") from None
        return Record(image, self.labels[index], printable(path))

    def name(self, index: int) -> str:
        """Return the path of a file relative to ``root``; see `ImageSource.name`."""
        return printable(self.files[index])

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
    path: epath.PathLike,
    *,
    evaluation_share: float,
    seed: int,
    every: bool = False,
    hold_out: bool = False,
) -> dict[str, ImageFiles]:
    """Open the splits of a directory of images or of a table of files.

    Args:
        path: A directory contains either ``train`` and ``val`` (or ``validation``, ``test``), each
            with one folder for each class, or the folders of the classes themselves. Images may be
            at any depth in the folder of a class. A table is a ``.csv`` or ``.tsv`` file with a
            header or a ``.jsonl`` file, see `read_table`. Its column ``image`` is a path relative
            to the table, ``label`` is the name of a class, and the optional ``split`` is named like
            the folders.
        evaluation_share: Share of the images of each class that is held out for evaluation, from 0
            to 1, if there is no evaluation split.
        seed: Seed that chooses the held-out images.
        every: Return every split that there is.
        hold_out: Also hold a validation split out of the training images if there is a test split
            but no validation split.

    Returns:
        The splits by name: ``"train"`` first, then ``"validation"`` or, if there is no validation
        split, ``"test"``; with ``every``, both.

    Raises:
        DataError: The directory or table does not exist or cannot be read, or a split, class,
            column or file is missing or unknown.
    """
    path = as_path(path)
    splits = (_read_table if _is_table(path) else _read_folder)(path, every)
    if not _holds_out(splits, hold_out):
        return splits
    train, held_out = _split(splits["train"], evaluation_share, seed)
    test = {"test": splits["test"]} if every and "test" in splits else {}
    return {"train": train, "validation": held_out, **test}


def open_split(
    path: epath.PathLike,
    split: str | None = None,
    *,
    evaluation_share: float,
    seed: int,
    hold_out: bool = False,
) -> tuple[str, ImageFiles]:
    """Open one split, without reading the others.

    Args:
        path: A directory of images or a table of files, see `open_splits`. Here it may have a
            validation or test split only.
        split: Name of the split: ``"train"``, ``"validation"`` or another name of it, or
            ``"test"``; those that `open_splits` returns have the same images here. ``"all"`` means
            all images of a directory or table without splits. By default it is the test split, or
            else the validation split, or else all images.
        evaluation_share: See `open_splits`.
        seed: See `open_splits`.
        hold_out: See `open_splits`.

    Returns:
        The name of the split, and its images. The classes are those of the split itself.

    Raises:
        DataError: As for `open_splits`, or there is no such split.
    """
    path = as_path(path)
    wanted = SPLITS.get((split or "").lower(), split)
    names, read = _splits_of(path)
    if wanted in ("train", "validation") and _holds_out(names or ("train",), hold_out):
        parts = _split(read("train" if names else ""), evaluation_share, seed)
        return wanted, parts[wanted == "validation"]
    if names:
        wanted = wanted or next(name for name in ("test", "validation", "train") if name in names)
        if wanted not in names:
            raise DataError(f"{path} has no split {split}; it has {', '.join(names)}")
        return wanted, read(wanted)
    if wanted not in (None, "all"):
        raise DataError(
            f"{path} has no splits; leave the split out for all images, or give validation for "
            "those that training holds out"
        )
    return "all", read("")


def _holds_out(splits: Collection[str], hold_out: bool) -> bool:
    """Return whether a part of the training split is held out for validation."""
    missing = "validation" not in splits and (hold_out or "test" not in splits)
    return missing and "train" in splits


def _is_table(path: epath.Path) -> bool:
    return path.suffix.lower() in TABLES and not path.is_dir()


def _splits_of(path: epath.Path) -> tuple[list[str], Callable[[str], ImageFiles]]:
    """Return the names of the splits, and the function that reads one of them.

    Without splits there are no names, and the name ``""`` reads all images.
    """
    if not _is_table(path):
        folders = _split_folders(path)
        return sorted(folders), lambda name: _read_classes(folders.get(name, path))
    rows = read_table(path)

    def read(name: str) -> ImageFiles:
        chosen = [row for row in rows if row.split == name]
        return _table_files(path, chosen, sorted({row.label for row in chosen}, key=_natural))

    return sorted({row.split for row in rows} - {""}), read


def _wanted(found: Iterable[str], every: bool) -> list[str]:
    names = sorted(set(found), key=tuple(SPLITS.values()).index)
    return names if every else names[:2]


def _split_folders(directory: epath.Path) -> dict[str, epath.Path]:
    """Return the folders of the splits by name; none if the folders are those of classes."""
    children = _directories(directory)
    folders: dict[str, epath.Path] = {}
    for name, child in children.items():
        split = SPLITS.get(name.lower())
        if split in folders:
            raise DataError(f"{folders[split]} and {child} are one split; merge them or remove one")
        if split:
            folders[split] = child
    others = [child.name for child in children.values() if child not in folders.values()]
    if folders and others:
        first = folders.get("train", next(iter(folders.values())))
        raise DataError(
            f"{directory} has {', '.join(others[:5])} beside {first.name}, but splits "
            f"are {', '.join(SPLITS)}; rename or move the other folders"
        )
    return folders


def _read_folder(directory: epath.Path, every: bool) -> dict[str, ImageFiles]:
    folders = _split_folders(directory)
    if not folders:
        return {"train": _read_classes(directory)}
    if "train" not in folders:
        name = next(iter(folders.values())).name
        raise DataError(f"{directory} has {name} but no train; rename one or add the other")
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
    rows = read_table(path)
    named = {row.split for row in rows}
    if named != {""} and ("train" not in named or len(named) == 1):
        raise DataError(
            f"{path} needs rows of the split train and of one of val, valid, validation and test; "
            f"it has {', '.join(named)}"
        )
    class_names = sorted({row.label for row in rows}, key=_natural)
    if len(class_names) < 2:
        raise DataError(f"{path} has only the class {class_names[0]}; a classifier needs two")

    def files(split: str) -> ImageFiles:
        return _table_files(path, [row for row in rows if row.split == split], class_names)

    if named == {""}:
        return {"train": files("")}
    splits = {name: files(name) for name in _wanted(named, every)}
    missing = [
        name for label, name in enumerate(class_names) if label not in splits["train"].labels
    ]
    if missing:
        raise DataError(
            f"{path} has no training rows of class {', '.join(missing[:5])}; add some, or "
            "remove the evaluation rows of these classes"
        )
    return splits


def _table_files(path: epath.Path, rows: Sequence[Row], class_names: Sequence[str]) -> ImageFiles:
    numbers = {name: label for label, name in enumerate(class_names)}
    return ImageFiles(
        path.parent,
        tuple(row.image for row in rows),
        tuple(numbers[row.label] for row in rows),
        tuple(class_names),
    )


def _directories(directory: epath.Path) -> dict[str, epath.Path]:
    if directory.is_file():
        raise DataError(
            f"{directory} is neither a directory of images nor a table ({', '.join(TABLES)})"
        )
    if not directory.is_dir():
        raise DataError(f"{directory} is not a directory; give the one of the images")
    try:
        return {
            child.name: child
            for child in sorted(directory.iterdir(), key=lambda path: _natural(path.name))
            if child.is_dir() and not is_hidden(child.name) and not leads_out(child)
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
    linked: dict[str, str] = {}
    for label, (name, folder) in enumerate(classes.items()):
        found = {
            os.path.join(name, file): real
            for file, real in files_below(folder).items()
            if file.lower().endswith(EXTENSIONS)
        }
        if not found:
            raise DataError(
                f"{folder} has no images ({', '.join(EXTENSIONS)}); remove the folder of class "
                f"{name}, or fill it"
            )
        files += sorted(found, key=_natural)
        labels += [label] * len(found)
        for file, real in found.items():
            if real is not None and (first := linked.setdefault(real, file)) != file:
                raise _in_two_classes(first, file)
    _check_links(directory, linked, classes)
    names = tuple(map(printable, classes))
    return ImageFiles(directory, tuple(files), tuple(labels), names)


def _check_links(
    directory: epath.Path, linked: dict[str, str], classes: dict[str, epath.Path]
) -> None:
    """Raise `DataError` if a link in the folder of a class leads to an image of another class.

    Args:
        directory: Directory of the classes.
        linked: Paths relative to the directory, by the path of the real file that they lead to.
        classes: Folders of the classes by name.
    """
    own = {
        os.path.realpath(folder): name
        for name, folder in (classes.items() if linked else ())
        if not os.path.islink(folder)
    }
    root = os.path.realpath(directory) if linked else ""
    for real, file in linked.items():
        if not real.startswith(root + os.sep) or not real.lower().endswith(EXTENSIONS):
            continue
        inside = real[len(root) + 1 :].split(os.sep)
        other = own.get(os.path.join(root, inside[0]))
        if other not in (None, file.split(os.sep)[0]) and not any(map(is_hidden, inside)):
            raise _in_two_classes(file, os.path.join(*inside))


def _in_two_classes(one: str, other: str) -> DataError:
    return DataError(
        f"{one} and {other} are the same file in two classes; remove the link from one of them"
    )


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
    held_out = dataclasses.replace(images.take(sorted(evaluation)), held_out=True)
    return images.take(sorted(train)), held_out


def _natural(name: str) -> tuple[int, int, str]:
    """Return a sort key: numbers come first, by value, so that class 10 comes after class 9."""
    return (0, int(name), "") if name.isdecimal() else (1, 0, name)
