"""The data sets, one function for each kind of configuration."""

from functools import partial
from typing import Any

import jax
import numpy as np

from resnet_jax.config import (
    DataConfig,
    DigitsConfig,
    FolderConfig,
    SyntheticConfig,
    TfdsArraysConfig,
    TfdsConfig,
)
from resnet_jax.data.augment import normalize, random_affine_resize
from resnet_jax.data.dataset import ArraySplit, Dataset
from resnet_jax.data.preprocessing import Preprocessing


def open_dataset(config: DataConfig) -> Dataset:
    """The data set that a configuration describes, ready to read.

    Raises:
        DataError: there are no such images.
        ImportError: the libraries that read images are not installed.
    """
    match config:
        case DigitsConfig():
            return _digits(config)
        case SyntheticConfig():
            return _synthetic(config)
        case FolderConfig() | TfdsConfig() | TfdsArraysConfig():
            try:
                from resnet_jax.data.images.datasets import open_images
            except ImportError as error:
                raise ImportError(
                    f"images in files need {error.name}: pip install 'resnet_jax[data]'"
                ) from None
            return open_images(config)


def _digits(config: DigitsConfig) -> Dataset:
    """1,797 real 8x8 images, split 1,437 to 360 by class, the same on every machine.

    The split is drawn with a seed of its own, so ``TrainConfig.seed`` does not change it.
    """
    # scikit-learn takes a second to import, and importers of the library do not need it.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits: Any = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int32)

    def hold_out(indices: np.ndarray) -> list[np.ndarray]:
        return train_test_split(indices, test_size=360, stratify=labels[indices], random_state=0)

    train, evaluation = hold_out(np.arange(len(labels)))
    if config.evaluate_on == "validation":
        train, evaluation = hold_out(train)
    scale = partial(normalize, mean=images[train].mean(), std=images[train].std())

    def augment(key: jax.Array, batch: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        turned = scale(
            random_affine_resize(
                key,
                batch,
                config.image_size,
                max_rotation=config.max_rotation,
                max_scaling=config.max_scaling,
                max_shift=config.max_shift,
            )
        )
        return turned, labels

    return Dataset(
        name="scikit-learn digits",
        train=ArraySplit(images[train], labels[train]),
        evaluation=ArraySplit(images[evaluation], labels[evaluation]),
        evaluation_split=config.evaluate_on,
        class_names=tuple(str(name) for name in digits.target_names),
        augment=augment,
        preprocessing=Preprocessing(
            image_size=images.shape[1],
            crop_fraction=1.0,
            interpolation="pil_bilinear",
            mean=(float(images[train].mean()) / 255,),
            std=(float(images[train].std()) / 255,),
            channels=1,
            upsample_size=config.image_size,
        ),
    )


def _synthetic(config: SyntheticConfig) -> Dataset:
    rng = np.random.default_rng(0)

    def split(num_examples: int) -> ArraySplit:
        shape = (num_examples, config.image_size, config.image_size, 3)
        return ArraySplit(
            rng.integers(0, 256, shape, np.uint8),
            rng.integers(0, config.num_classes, num_examples, np.int32),
        )

    # Of uniform bytes.
    scale = partial(normalize, mean=127.5, std=73.9)

    def augment(key: jax.Array, batch: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        del key
        return scale(batch), labels

    return Dataset(
        name="synthetic",
        train=split(config.train_examples),
        evaluation=split(config.test_examples),
        evaluation_split="test",
        class_names=tuple(str(i) for i in range(config.num_classes)),
        augment=augment,
        preprocessing=Preprocessing(
            image_size=config.image_size,
            crop_fraction=1.0,
            interpolation="pil_bilinear",
            mean=(127.5 / 255,),
            std=(73.9 / 255,),
            channels=3,
        ),
    )
