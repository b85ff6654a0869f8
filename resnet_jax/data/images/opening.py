"""Opening of data sets of image files."""

import dataclasses
from functools import partial

from resnet_jax.config import FolderConfig, TfdsArraysConfig, TfdsConfig
from resnet_jax.data.array_dataset import array_dataset
from resnet_jax.data.augment import augment_batch, check_channels
from resnet_jax.data.dataset import DataError, Dataset, printable
from resnet_jax.data.images.arrays import read_arrays
from resnet_jax.data.images.folder import open_splits
from resnet_jax.data.images.loading import ImageSplit
from resnet_jax.data.images.optional import opencv
from resnet_jax.data.images.paths import as_path, is_remote
from resnet_jax.data.images.source import ImageSource
from resnet_jax.data.images.tfds import TfdsSplit
from resnet_jax.data.preprocessing import Preprocessing


def open_images(config: FolderConfig | TfdsConfig | TfdsArraysConfig) -> Dataset:
    """Open the data set that a configuration describes.

    Raises:
        ConfigError: Settings for each channel do not match the channels of the images.
        DataError: The images do not exist or cannot be used.
        ImportError: A library is missing that the storage or the interpolation needs.
    """
    train, evaluation, kind = open_sources(config)
    name = printable(
        config.path if isinstance(config, FolderConfig) else config.name or config.directory
    )
    class_names = train.class_names
    evaluation_split = "test" if kind == "test" else "validation"
    if isinstance(config, TfdsArraysConfig):
        return array_dataset(
            name,
            *read_arrays([train, evaluation]),
            evaluation_split=evaluation_split,
            class_names=class_names,
            augmentation=config.augment,
            sampling=config.sampling,
        )
    images = config.images
    if "linear" in (images.train_interpolation, images.eval_interpolation):
        # A missing library is reported before the first batch.
        opencv()

    eval_size = images.eval_image_size or images.image_size
    split = ImageSplit(evaluation, dataclasses.replace(images, image_size=eval_size))
    height, width, channels = split.image_shape
    check_channels(images.augment, channels)
    return Dataset(
        name=name,
        train=ImageSplit(train, images, sampling_config=config.sampling),
        evaluation=split,
        evaluation_split=evaluation_split,
        class_names=class_names,
        augment=partial(augment_batch, config=images.augment, num_classes=len(class_names)),
        mix_until_epoch=images.augment.mix_until_epoch,
        preprocessing=Preprocessing(
            image_size=height if height == width else (height, width),
            crop_fraction=images.crop_fraction,
            interpolation=images.eval_interpolation,
            mean=images.augment.mean,
            std=images.augment.std,
            channels=channels,
            crop_mode=images.crop_mode,
        ),
    )


def open_sources(
    config: FolderConfig | TfdsConfig | TfdsArraysConfig,
) -> tuple[ImageSource, ImageSource, str]:
    """Open the encoded images that a configuration describes.

    Returns:
        The training split, the evaluation split, and the kind of the evaluation split:
        ``"validation"`` or ``"test"``.

    Raises:
        DataError: The images do not exist or cannot be used.
    """
    location = config.path if isinstance(config, FolderConfig) else config.directory
    try:
        return _open_sources(config)
    except (DataError, ImportError):
        raise
    except Exception as error:
        # Each storage library has its own errors: no credentials, no such bucket, no network.
        if not is_remote(location):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(f"{location} cannot be read: {reason}") from None


def _open_sources(
    config: FolderConfig | TfdsConfig | TfdsArraysConfig,
) -> tuple[ImageSource, ImageSource, str]:
    if isinstance(config, TfdsConfig | TfdsArraysConfig):
        split = partial(
            TfdsSplit,
            as_path(config.directory),
            name=config.name,
            image_key=config.image_key,
            label_key=config.label_key,
        )
        kind = "test" if config.evaluation_split.startswith("test") else "validation"
        return split(config.train_split), split(config.evaluation_split), kind
    if not as_path(config.path).exists():
        raise DataError(
            f"{config.path} does not exist; set data.path to the directory or table of the images"
        )
    (_, train), (kind, evaluation) = open_splits(
        config.path,
        evaluation_share=config.evaluation_share,
        seed=config.split_seed,
        hold_out=config.hold_out_validation,
    ).items()
    return train, evaluation, kind
