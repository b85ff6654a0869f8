"""Labeled images of one split for evaluation, in memory or in files, one by one."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from resnet_jax.config import (
    ArraysConfig,
    DataConfig,
    DigitsConfig,
    FolderConfig,
    IdxConfig,
    SyntheticConfig,
    TfdsArraysConfig,
    TfdsConfig,
)
from resnet_jax.data.dataset import DataError, Split
from resnet_jax.data.images.source import ImageSource, labelled
from resnet_jax.data.opening import open_dataset


class LabeledImage(NamedTuple):
    """An image with its class.

    Attributes:
        image: Content of an image file, or pixels uint8[H, W, C].
        label: Index of its class.
        name: Where the image comes from.
    """

    image: bytes | np.ndarray
    label: int
    name: str


@dataclasses.dataclass(frozen=True, eq=False)
class LabeledImages:
    """A split of labeled images with random access.

    Attributes:
        name: Name of the data set, such as the path of its folder.
        split: Name of the split.
        class_names: Name of each label.
        size: Number of images.
        read: Function that returns the image of an index. It raises `UnreadableError` if the image
            cannot be read, and `DataError` if its label is not the index of a class.
    """

    name: str
    split: str
    class_names: tuple[str, ...]
    size: int
    read: Callable[[int], LabeledImage]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> LabeledImage:
        if not 0 <= index < self.size:
            raise IndexError(f"there are {self.size} images, but no index {index}")
        return self.read(index)


def open_labeled(
    path: str,
    split: str | None = None,
    *,
    name: str | None = None,
    image_key: str = "image",
    label_key: str = "label",
    evaluation_share: float = FolderConfig.evaluation_share,
    split_seed: int = FolderConfig.split_seed,
    hold_out: bool = False,
) -> LabeledImages:
    """Open one split of a folder of images, a table, or a prepared TFDS data set.

    Args:
        path: A directory with one folder for each class, or with such directories for the splits; a
            ``.csv``, ``.tsv`` or ``.jsonl`` table; or the directory of a TFDS data set.
        split: Name of the split. By default it is the test split, if its images have labels, or
            else the validation split, or else all images. A folder or table without splits, or with
            training images only, has the split ``"validation"``, the images that training holds
            out, and ``"train"``, the others. A TFDS data set also has parts of splits, such as
            ``"test[:10%]"``.
        name: Name of a TFDS data set below ``path``, such as ``imagenet2012``.
        image_key: Name of the feature that holds the image (TFDS).
        label_key: Name of the feature that holds the label (TFDS).
        evaluation_share: Share of each class that is held out of a folder or table.
        split_seed: Seed that chooses these images.
        hold_out: Whether they are also held out of the training split of a folder or table that has
            a test split but no validation split, as fine-tuning does.

    Raises:
        DataError: The images do not exist or cannot be used, or there is no such split.
        ImportError: The libraries that read image files are not installed.
    """
    try:
        from resnet_jax.data.images.folder import open_split
        from resnet_jax.data.images.paths import as_path
        from resnet_jax.data.images.tfds import TfdsSplit, is_prepared, open_builder
    except ImportError as error:
        raise ImportError(
            f"reading image files needs {error.name}: pip install 'resnet-linen[data]'",
            name=error.name,
        ) from None
    if not as_path(path).exists():
        raise DataError(f"{path} does not exist; give the folder, table or TFDS data set")
    if name is None and not is_prepared(path):
        split, files = open_split(
            path, split, evaluation_share=evaluation_share, seed=split_seed, hold_out=hold_out
        )
        return _of_source(files, path, split)

    def open_tfds(split: str) -> TfdsSplit:
        return TfdsSplit(path, split, name=name, image_key=image_key, label_key=label_key)

    title = path if name is None else f"{path} {name}"
    if split is not None:
        return _of_source(open_tfds(split), title, split)
    known = open_builder(path, name).info.splits
    for split in ("test", "validation"):
        # The labels of some test splits, such as that of ImageNet, are secret.
        if split in known and (source := open_tfds(split))[0].label >= 0:
            return _of_source(source, title, split)
    raise DataError(
        f"{title} has no split test or validation with labels; it has {', '.join(known)}"
    )


def open_labeled_config(config: DataConfig, split: str | None = None) -> LabeledImages:
    """Open one split of the data that a configuration describes.

    Args:
        config: The data of a run.
        split: Name of the split. By default it is the one that the run is evaluated on.

    Raises:
        DataError: The images do not exist or cannot be used, or there is no such split.
        ImportError: The libraries that read image files are not installed.
    """
    match config:
        case FolderConfig():
            if split is None:
                split = _evaluation_split(config)
            return open_labeled(
                config.path,
                split,
                evaluation_share=config.evaluation_share,
                split_seed=config.split_seed,
                hold_out=config.hold_out_validation,
            )
        case TfdsConfig() | TfdsArraysConfig():
            return open_labeled(
                config.directory,
                split or config.evaluation_split,
                name=config.name,
                image_key=config.image_key,
                label_key=config.label_key,
            )
        case DigitsConfig():
            splits = ("test", "validation", "train")
            if split in ("test", "validation"):
                config = dataclasses.replace(config, evaluate_on=split)
        case IdxConfig() | ArraysConfig():
            splits = ("test", "validation", "train")
            if split in ("test", "validation"):
                config = dataclasses.replace(config, evaluation_split=split)
        case SyntheticConfig():
            splits = ("test", "train")
    if split not in (None, *splits):
        raise DataError(
            f"the data {config.kind} have no split {split}; they have {', '.join(splits)}"
        )
    dataset = open_dataset(config)
    arrays = dataset.train if split == "train" else dataset.evaluation
    split = split or dataset.evaluation_split
    return _of_arrays(arrays, dataset.name, split, dataset.class_names)


def _evaluation_split(config: FolderConfig) -> str:
    """Return the name of the split that a run is evaluated on."""
    from resnet_jax.data.images.opening import open_sources

    return open_sources(config)[2]


def _of_source(source: ImageSource, name: str, split: str) -> LabeledImages:
    return LabeledImages(
        name,
        split,
        source.class_names,
        len(source),
        lambda index: LabeledImage(*labelled(source, index)),
    )


def _of_arrays(arrays: Split, name: str, split: str, class_names: tuple[str, ...]) -> LabeledImages:
    labels = arrays.labels
    return LabeledImages(
        name,
        split,
        class_names,
        len(arrays),
        lambda index: LabeledImage(
            arrays.image(index), int(labels[index]), f"{name}, {split} image {index}"
        ),
    )
