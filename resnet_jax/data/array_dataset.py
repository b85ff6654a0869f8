"""A data set of arrays with the augmentation that a configuration describes."""

import dataclasses
from functools import partial
from typing import Literal

from resnet_jax.config import AugmentConfig, SamplingConfig
from resnet_jax.data.array_split import ArraySplit
from resnet_jax.data.augment import augment_batch, check_channels
from resnet_jax.data.dataset import Dataset
from resnet_jax.data.preprocessing import Preprocessing


def array_dataset(
    name: str,
    train: ArraySplit,
    evaluation: ArraySplit,
    *,
    evaluation_split: Literal["validation", "test"],
    class_names: tuple[str, ...],
    augmentation: AugmentConfig,
    sampling: SamplingConfig,
) -> Dataset:
    """Return a data set of images of one size, which are augmented on the device.

    Args:
        name: Name of the data set, for people.
        train: The training split.
        evaluation: The evaluation split.
        evaluation_split: Kind of the evaluation split.
        class_names: Name of each label.
        augmentation: Augmentation of training images, and the normalization of all images.
        sampling: Which training images an epoch visits.

    Raises:
        ConfigError: Settings for each channel do not match the channels of the images.
    """
    height, width, channels = train.image_shape
    check_channels(augmentation, channels)
    return Dataset(
        name=name,
        train=dataclasses.replace(
            train,
            sampling_config=sampling,
            alternating_flip=(
                augmentation.flip if augmentation.flip_mode == "alternating" else None
            ),
        ),
        evaluation=evaluation,
        evaluation_split=evaluation_split,
        class_names=class_names,
        augment=partial(augment_batch, config=augmentation, num_classes=len(class_names)),
        mix_until_epoch=augmentation.mix_until_epoch,
        # Arrays are evaluated whole; cropping and interpolation are for images of another size.
        preprocessing=Preprocessing(
            image_size=height if height == width else (height, width),
            crop_fraction=1.0,
            interpolation="pil_bilinear",
            mean=augmentation.mean,
            std=augmentation.std,
            channels=channels,
        ),
    )
