"""Experiments at a size that suits tests: two steps of eight small images, and a small network."""

import dataclasses
from typing import Any

import numpy as np

from resnet_jax.config import (
    AugmentConfig,
    DataConfig,
    ResizingConfig,
    SamplingConfig,
    TrainConfig,
)
from resnet_jax.data import ArraySplit, Dataset
from resnet_jax.data.array_dataset import array_dataset
from resnet_jax.models.variants import _VARIANTS

BATCH = 8
"""Number of images in a batch and in an epoch."""
SIZE = 32
"""Height and width of the training images in pixels."""


def reduced_network(name: str) -> dict[str, Any]:
    """Return the row of a network, with one block in each stage and few channels."""
    fields = dict(_VARIANTS[name])
    # GroupNorm and grouped convolutions need a multiple of 32 channels.
    width = 32 if "norm" in fields or "cardinality" in fields else 8
    fields["stage_sizes"] = (1,) * len(fields["stage_sizes"])
    fields["width"] = width
    if fields.get("stem_widths"):
        fields["stem_widths"] = (width,) * len(fields["stem_widths"])
    return fields


def reduced_dataset(data: DataConfig, arrays: None = None) -> Dataset:
    """Return noise in memory, with the augmentation that a configuration describes."""
    assert arrays is None
    config: Any = data
    images = getattr(config, "images", None)
    augmentation = getattr(images or config, "augment", AugmentConfig())
    other_size = images is not None and images.eval_image_size is not None
    evaluated = SIZE + 8 if other_size else SIZE
    rng = np.random.default_rng(0)

    def split(size: int) -> ArraySplit:
        pixels = rng.integers(0, 256, (BATCH, size, size, channels), np.uint8)
        return ArraySplit(pixels, np.arange(BATCH, dtype=np.int32) % 10)

    channels = 1 if data.kind == "idx" else 3
    sampling = getattr(config, "sampling", SamplingConfig())
    return array_dataset(
        "noise",
        split(SIZE),
        split(evaluated),
        evaluation_split="validation",
        class_names=tuple(map(str, range(10))),
        augmentation=augmentation,
        sampling=dataclasses.replace(sampling, epoch_multiple=min(sampling.epoch_multiple, BATCH)),
    )


def reduced(config: TrainConfig) -> TrainConfig:
    """Return an experiment of two epochs of one step each, with its schedule to scale."""
    epochs = 2.0
    share = epochs / config.epochs
    schedule: Any = config.schedule
    lengths: dict[str, Any] = {"warmup_epochs": 0.5, "warmup_steps": None}
    if hasattr(schedule, "hold_epochs"):
        lengths["hold_epochs"] = schedule.hold_epochs * share
    if hasattr(schedule, "decay_epochs"):
        lengths["decay_epochs"] = tuple(epoch * share for epoch in schedule.decay_epochs)
        lengths["warmup_epochs"] = schedule.warmup_epochs * share
    if hasattr(schedule, "points"):
        lengths["points"] = tuple((epoch * share, rate) for epoch, rate in schedule.points)
        lengths["warmup_epochs"] = schedule.warmup_epochs * share
    model, resizing = config.model, config.resizing
    if resizing.initial_size is not None:
        resizing = ResizingConfig(initial_size=SIZE - 8, end_epoch=1.0, multiple_of=8)
    groups = model.bn_group_size
    return dataclasses.replace(
        config,
        model=dataclasses.replace(
            model, weights=None, bn_group_size=BATCH // 2 if isinstance(groups, int) else groups
        ),
        schedule=dataclasses.replace(
            schedule, **{name: value for name, value in lengths.items() if hasattr(schedule, name)}
        ),
        averaging=dataclasses.replace(
            config.averaging, start_epoch=config.averaging.start_epoch * share, every_steps=1
        ),
        finetune=dataclasses.replace(
            config.finetune, head_epochs=config.finetune.head_epochs * share
        ),
        resizing=resizing,
        batch_size=BATCH,
        epochs=epochs,
        evaluate_every_epochs=epochs,
        log_every_steps=1,
    )
