"""The experiment that fine-tunes weights, for a given batch size."""

import math
import os
from typing import TypedDict, TypeVar

from resnet_jax.config import (
    AugmentConfig,
    AveragingConfig,
    ConfigError,
    EarlyStoppingConfig,
    FinetuneConfig,
    FolderConfig,
    ImageConfig,
    SamplingConfig,
    SGDConfig,
    StepsConfig,
    TrainConfig,
)
from resnet_jax.config.sampling import ClassSampling
from resnet_jax.config.validation import require
from resnet_jax.training.finetuning.hyper_rule import epochs_of, hyper_rule, learning_rate_of
from resnet_jax.training.finetuning.starting_point import StartingPoint

Number = TypeVar("Number", int, float)

HEAD_SHARE = 0.1
"""Share of the epochs that train only the head."""

# Number of evaluations of a run that is not stopped, if it has so many epochs.
_EVALUATIONS = 25
# It spans two decays of the learning rate, so that a run does not stop before a decay that helps.
_PATIENCE = 10
# BiT crops little. The full range of ImageNet recipes, from 0.08, is for longer runs.
_CROP_SCALE = (0.35, 1.0)


class FinetuneOptions(TypedDict, total=False):
    """Values that the data and the weights decide unless they are given.

    Attributes:
        epochs: Number of passes over the training images, those of the head included.
        learning_rate: Peak learning rate.
        batch_size: Number of images in a batch.
        image_size: Height and width of the network's input in pixels.
        head_epochs: Number of epochs at the beginning that train only the head.
        early_stopping: Number of evaluations in a row without an improvement after which the run
            ends. 0 trains all epochs and uses the last step.
        sampling: How often each class is drawn, see `SamplingConfig`. "uniform" by default.
        seed: Seed of everything that is random, 0 by default.
    """

    epochs: float | None
    learning_rate: float | None
    batch_size: int | None
    image_size: int | None
    head_epochs: float | None
    early_stopping: int | None
    sampling: ClassSampling | None
    seed: int


def images_of(
    data: str | os.PathLike[str],
    start: StartingPoint,
    options: FinetuneOptions,
    *,
    mixup_alpha: float = 0.0,
) -> FolderConfig:
    """Return the images, prepared as the weights expect them.

    Args:
        data: The folder or table.
        start: The weights.
        options: Values that are given.
        mixup_alpha: Parameter of mixup; 0 is none.

    Raises:
        ConfigError: The weights are for images that are not square, and no size is given.
    """
    expected = start.preprocessing
    size = options.get("image_size") or expected.upsample_size or expected.image_size
    if not isinstance(size, int):
        raise ConfigError(
            f"the weights {start.model.weights} are for images of {size[0]}x{size[1]} pixels, but "
            "training needs square ones; give the image size"
        )
    return FolderConfig(
        os.fspath(data),
        hold_out_validation=True,
        sampling=SamplingConfig(classes=options.get("sampling") or "uniform"),
        images=ImageConfig(
            image_size=size,
            crop_scale=_CROP_SCALE,
            train_interpolation=expected.interpolation,
            crop_fraction=expected.crop_fraction,
            eval_interpolation=expected.interpolation,
            crop_mode=expected.crop_mode,
            augment=AugmentConfig(mean=expected.mean, std=expected.std, mixup_alpha=mixup_alpha),
        ),
    )


def experiment_of(
    start: StartingPoint,
    images: FolderConfig,
    num_images: int,
    batch_size: int,
    options: FinetuneOptions,
) -> TrainConfig:
    """Return the experiment.

    Args:
        start: The weights.
        images: The images.
        num_images: Number of training images.
        batch_size: Number of images in a batch.
        options: Values that are given.

    Raises:
        ConfigError: An option has an impossible value.
    """
    require(batch_size > 0, f"batch_size must be above 0, but it is {batch_size}")
    epochs = _given(options.get("epochs"), float(epochs_of(num_images, batch_size)))
    require(0 < epochs < math.inf, f"epochs must be above 0 and finite, but it is {epochs:g}")
    head_epochs = _given(options.get("head_epochs"), HEAD_SHARE * epochs)
    require(
        0 <= head_epochs < epochs,
        f"head_epochs must be from 0 to below the number of epochs, {epochs:g}, but it is "
        f"{head_epochs:g}",
    )
    rate = learning_rate_of(batch_size, batch_norm=start.has_batch_norm)
    patience = _given(options.get("early_stopping"), _PATIENCE)
    rule, rest = hyper_rule(num_images), epochs - head_epochs
    return TrainConfig(
        model=start.model,
        data=images,
        optimizer=SGDConfig(
            learning_rate=_given(options.get("learning_rate"), rate),
            nesterov=False,
            weight_decay=0.0,
        ),
        schedule=StepsConfig(
            warmup_epochs=rule.warmup * rest,
            decay_epochs=tuple(round(share * rest, 6) for share in rule.decays),
        ),
        finetune=FinetuneConfig(head_epochs=head_epochs),
        early_stopping=EarlyStoppingConfig(patience=patience or None, metric="loss"),
        batch_size=batch_size,
        epochs=epochs,
        averaging=AveragingConfig(decay=0.999, warmup="tensorflow"),
        seed=options.get("seed", 0),
        log_every_steps=10,
        evaluate_every_epochs=float(max(1, round(epochs / _EVALUATIONS))),
    )


def _given(value: Number | None, default: Number) -> Number:
    return default if value is None else value
