"""Data sets from an array of images and an array of labels for each split."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from resnet_jax.config import ArraysConfig, IdxConfig
from resnet_jax.data.array_dataset import array_dataset
from resnet_jax.data.array_split import ArraySplit
from resnet_jax.data.dataset import DataError, Dataset
from resnet_jax.data.stratification import stratified_split

# Seed that chooses the held-out images, the same for all runs.
_SEED = 0


class Named(NamedTuple):
    """An array, and where it comes from, for messages."""

    name: str
    values: np.ndarray


def labeled_split(images: Named, labels: Named) -> ArraySplit:
    """Return images and labels as a split.

    Args:
        images: uint8[N, H, W] or uint8[N, H, W, C].
        labels: Integers [N] or [N, 1] from 0 on.

    Raises:
        DataError: The arrays have other types or shapes, or do not match each other.
    """
    pixels, classes = images.values, labels.values
    if pixels.dtype != np.uint8:
        raise DataError(
            f"{images.name} has {_description(pixels)}, but images must be bytes (uint8) from 0 to "
            "255; give the array of the images, or convert them, such as by "
            "np.round(255 * images).astype(np.uint8) for values from 0 to 1"
        )
    if pixels.ndim not in (3, 4) or 0 in pixels.shape:
        raise DataError(
            f"{images.name} has {_description(pixels)}, but images must be bytes "
            "[N, H, W] or [N, H, W, C]; give the array of the images"
        )
    if pixels.ndim == 4 and pixels.shape[1] in (1, 3) and pixels.shape[3] > 4:
        raise DataError(
            f"{images.name} has {_description(pixels)} with the channels first; move them to the "
            "end with np.moveaxis(images, 1, -1)"
        )
    if classes.ndim == 2 and classes.shape[1] == 1:
        classes = classes[:, 0]
    if not np.issubdtype(classes.dtype, np.integer) or classes.ndim != 1:
        raise DataError(
            f"{labels.name} has {_description(classes)}, but labels must be integers [N]; give "
            "the array of the labels"
        )
    if len(pixels) != len(classes):
        raise DataError(
            f"{images.name} has {len(pixels):,} images and {labels.name} {len(classes):,} labels; "
            "give those of one split"
        )
    # More classes than images would be an array of something else.
    if not 0 <= classes.min() <= classes.max() < max(256, len(classes)):
        raise DataError(
            f"{labels.name} has labels from {classes.min()} to {classes.max()}, but they must be "
            "the indices of the classes, counted from 0; give the array of the labels"
        )
    return ArraySplit(pixels[..., None] if pixels.ndim == 3 else pixels, classes.astype(np.int32))


def labeled_dataset(
    config: IdxConfig | ArraysConfig, name: str, read: Callable[[str, str], ArraySplit]
) -> Dataset:
    """Return a data set of which a function reads the splits.

    Args:
        config: Names of the arrays, which images accuracy is reported on, and the augmentation.
        name: Name of the data set.
        read: Function from the names of the images and of the labels to a split.

    Raises:
        DataError: The splits have images of different sizes, the training images cannot be
            divided, or ``class_names`` lacks a name.
    """
    train = read(config.train_images, config.train_labels)
    if config.evaluation_split == "test":
        evaluation = read(config.test_images, config.test_labels)
        if train.image_shape != evaluation.image_shape:
            raise DataError(
                f"{name}: {config.train_images} has images of {_size(train.image_shape)} pixels "
                f"and {config.test_images} of {_size(evaluation.image_shape)}; give arrays of one "
                "data set"
            )
    else:
        train, evaluation = _hold_out(train, config.validation_share, name)
    return array_dataset(
        name,
        train,
        evaluation,
        evaluation_split=config.evaluation_split,
        class_names=_class_names(config.class_names, name, train, evaluation),
        augmentation=config.augment,
        sampling=config.sampling,
    )


def _hold_out(images: ArraySplit, share: float, name: str) -> tuple[ArraySplit, ArraySplit]:
    """Split by class, the same for all runs, into training and evaluation images."""
    classes, ranks = np.unique(images.labels, return_inverse=True)
    size = math.ceil(share * len(images))
    smaller = min(size, len(images) - size)
    if np.bincount(ranks).min() < 2 or smaller < len(classes):
        raise DataError(
            f"{name}: a share of {share:g} of the {len(images):,} training images cannot be held "
            f"out (both parts need as many images as there are classes, {len(classes)}, and every "
            "class needs two); change data.validation_share, or set data.evaluation_split to test"
        )
    # The original order makes the split easy to compare with the array.
    kept, held_out = (
        ArraySplit(images.images[part], images.labels[part])
        for part in map(np.sort, stratified_split(ranks, size, seed=_SEED))
    )
    return kept, held_out


def _class_names(given: tuple[str, ...], name: str, *splits: ArraySplit) -> tuple[str, ...]:
    num_classes = 1 + max(int(split.labels.max()) for split in splits)
    if not given:
        return tuple(map(str, range(num_classes)))
    if num_classes > len(given):
        raise DataError(
            f"{name} has labels up to {num_classes - 1}, but data.class_names has only "
            f"{len(given)} names; name every class, or none"
        )
    return given


def _description(values: np.ndarray) -> str:
    return f"{values.dtype} values {list(values.shape)}"


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape[:2])) + (f" ({shape[2]} channels)" if shape[2] != 1 else "")
