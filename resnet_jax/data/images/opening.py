"""Opening of data sets of image files."""

import dataclasses
from functools import partial

import jax

from resnet_jax.config import AugmentConfig, FolderConfig, TfdsArraysConfig, TfdsConfig
from resnet_jax.data.augment import augment_batch
from resnet_jax.data.dataset import DataError, Dataset, Split, printable
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
        DataError: The images do not exist or cannot be used.
        ImportError: A library is missing that the storage or the interpolation needs.
    """
    train, evaluation, kind = open_sources(config)
    if isinstance(config, TfdsArraysConfig):
        augmentation = config.augment
        splits = read_arrays([train, evaluation])
        alternating = augmentation.flip if augmentation.flip_mode == "alternating" else None
        splits[0] = dataclasses.replace(
            splits[0], sampling_config=config.sampling, alternating_flip=alternating
        )
        _check_channels(augmentation, splits[0].image_shape[-1])
    else:
        augmentation = config.images.augment
        if "linear" in (config.images.train_interpolation, config.images.eval_interpolation):
            # A missing library is reported before the first batch.
            opencv()
        eval_size = config.images.eval_image_size or config.images.image_size
        evaluated = dataclasses.replace(config.images, image_size=eval_size)
        splits = [
            ImageSplit(train, config.images, sampling_config=config.sampling),
            ImageSplit(evaluation, evaluated),
        ]

    def augment(
        key: jax.Array, batch: jax.Array, labels: jax.Array, mixing: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        num_classes = len(train.class_names)
        return augment_batch(
            key, batch, labels, augmentation, num_classes=num_classes, mixing=mixing
        )

    return Dataset(
        name=printable(
            config.path if isinstance(config, FolderConfig) else config.name or config.directory
        ),
        train=splits[0],
        evaluation=splits[1],
        evaluation_split="test" if kind == "test" else "validation",
        class_names=train.class_names,
        augment=augment,
        mix_until_epoch=augmentation.mix_until_epoch,
        preprocessing=_preprocessing(config, splits[1], augmentation),
    )


def _preprocessing(
    config: FolderConfig | TfdsConfig | TfdsArraysConfig, split: Split, augmentation: AugmentConfig
) -> Preprocessing:
    height, width, channels = split.image_shape
    # Arrays are evaluated whole; this is for images of another size.
    crop_fraction, interpolation, crop_mode = 1.0, "pil_bilinear", "center"
    if not isinstance(config, TfdsArraysConfig):
        crop_fraction = config.images.crop_fraction
        interpolation = config.images.eval_interpolation
        crop_mode = config.images.crop_mode
    return Preprocessing(
        image_size=height if height == width else (height, width),
        crop_fraction=crop_fraction,
        interpolation=interpolation,
        mean=augmentation.mean,
        std=augmentation.std,
        channels=channels,
        crop_mode=crop_mode,
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


def _check_channels(config: AugmentConfig, channels: int) -> None:
    """Raise `DataError` if per-channel settings do not match the channels of the images."""
    for name in ("mean", "std", "fill", "erasing_value"):
        if len(getattr(config, name)) not in (1, channels):
            raise DataError(
                f"the images have {channels} channels, but data.augment.{name} is "
                f"{getattr(config, name)}; give 1 value or {channels}"
            )
