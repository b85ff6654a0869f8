"""The layout of ``transformers``: ``config.json`` and ``preprocessor_config.json``."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from resnet_jax.data.images.crop import CropMode
from resnet_jax.data.preprocessing import Preprocessing
from resnet_jax.inference.hub_layouts.description import (
    MEAN,
    STD,
    Description,
    Json,
    class_names,
    for_channels,
    pil_filter,
)
from resnet_jax.models import create_model
from resnet_jax.models.names import named_value
from resnet_jax.models.resnet import ResNet

MODEL_TYPES = ("resnet", "bit")
"""The kinds of network of ``transformers`` that belong to the family."""

# Defaults of BitImageProcessor in transformers; the other processors have 0.5.
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# For a repository without a file: that of microsoft/resnet-50.
_PROCESSOR = {"size": 224, "crop_pct": 0.875, "image_mean": MEAN, "image_std": STD}
# Pillow's numbers of its filters.
RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")


def transformers_description(config: Json, preprocessor: Json | None) -> Description:
    """Return what the files of a repository of ``transformers`` describe.

    Args:
        config: Content of ``config.json``, with one of `MODEL_TYPES`.
        preprocessor: Content of ``preprocessor_config.json``, if there is one.

    Raises:
        ValueError: They describe a network or a preprocessing that does not exist here.
    """
    labels = config.get("id2label") or {}
    num_classes = len(labels) or config.get("num_labels", 2)
    architectures = config.get("architectures") or ["ForImageClassification"]
    if not any("ForImageClassification" in name for name in architectures):
        num_classes = 0
    is_resnet = config["model_type"] == "resnet"
    channels = config.get("num_channels", 3)
    model = (_resnet if is_resnet else _bit)(config).clone(
        num_classes=num_classes, in_channels=None if channels == 3 else channels
    )
    preprocessing = _transformers_preprocessing(
        _PROCESSOR if preprocessor is None else preprocessor, channels
    )
    names = class_names(labels, num_classes)
    return Description(model, preprocessing, preprocessing, names)


def _resnet(config: Json) -> ResNet:
    basic = config.get("layer_type", "bottleneck") == "basic"
    widths = config.get("hidden_sizes", (256, 512, 1024, 2048))
    # With another activation, transformers still uses ReLU within blocks.
    _require(config, {"downsample_in_first_stage": False, "hidden_act": "relu"})
    stem = config.get("embedding_size", 64)
    width = widths[0] // (1 if basic else 4)
    return _check_widths(
        create_model(
            "resnet18" if basic else "resnet50",
            stage_sizes=tuple(config.get("depths", (3, 4, 6, 3))),
            width=width,
            stem_widths=None if stem == width else (stem,),
            stride_in_1x1=not basic and config.get("downsample_in_bottleneck", False),
        ),
        widths,
    )


def _bit(config: Json) -> ResNet:
    _require(config, {"layer_type": "preactivation", "num_groups": 32, "global_padding": None})
    factor = config.get("width_factor", 1)
    act = config.get("hidden_act", "relu")
    return _check_widths(
        create_model(
            "resnetv2_50x1_bit",
            stage_sizes=tuple(config.get("depths", (3, 4, 6, 3))),
            width=config.get("embedding_size", 64) * factor,
            act=named_value("act", "silu" if act == "swish" else act),
        ),
        [width * factor for width in config.get("hidden_sizes", (256, 512, 1024, 2048))],
    )


def _require(config: Json, expected: Json) -> None:
    """Raise ValueError if a field has another value than the only one that our networks have."""
    for name, value in expected.items():
        found = config.get(name, value)
        if found != value:
            raise ValueError(f"config.json has {name}={found!r}, and only {value!r} exists here")


def _check_widths(model: ResNet, widths: Sequence[int]) -> ResNet:
    stages = [f"stage{i + 1}" for i in range(len(model.stage_sizes))]
    ours = [model.feature_info[stage].channels for stage in stages]
    if ours != list(widths):
        raise ValueError(f"config.json has stages of {list(widths)} channels; only {ours} exist")
    return model


def _transformers_preprocessing(fields: Json, channels: int) -> Preprocessing:
    """Return the preprocessing of an image processor.

    Args:
        fields: Content of ``preprocessor_config.json``.  The defaults of the processor that it
            names stand for what is missing.
        channels: Number of channels of the images.
    """
    kind = fields.get("image_processor_type") or fields.get("feature_extractor_type") or ""
    is_bit = kind.startswith("Bit")
    if not fields.get("do_resize", True):
        raise ValueError("preprocessor_config.json has do_resize=false, and a batch needs one size")
    resized, target, crop_mode = _resize_and_crop(fields, kind)
    fractions = {crop_fraction_of(*sides) for sides in zip(target, resized, strict=True)}
    if len(fractions) > 1:
        raise ValueError("preprocessor_config.json crops height and width by different shares")
    # Levels are multiplied by the factor, and mean and standard deviation refer to the product.
    factor = fields.get("rescale_factor", 1 / 255) if fields.get("do_rescale", True) else 1
    mean = fields.get("image_mean", _CLIP_MEAN if is_bit else 0.5)
    std = fields.get("image_std", _CLIP_STD if is_bit else 0.5)
    if not fields.get("do_normalize", True):
        mean, std = 0.0, 1.0
    return Preprocessing(
        image_size=target[0] if target[0] == target[1] else target,
        crop_fraction=fractions.pop(),
        interpolation=pil_filter(RESAMPLE[fields.get("resample", 3)]),
        mean=tuple(value / (255 * factor) for value in for_channels(mean, channels)),
        std=tuple(value / (255 * factor) for value in for_channels(std, channels)),
        channels=channels,
        crop_mode=crop_mode,
    )


def _resize_and_crop(fields: Json, kind: str) -> tuple[tuple[int, int], tuple[int, int], CropMode]:
    """Return the size of the resized image, that of the crop, and the crop mode."""
    is_convnext = "crop_pct" in fields or kind.startswith("ConvNext")
    crops = fields.get("do_center_crop", kind.startswith("Bit"))
    size = fields.get("size", 384 if is_convnext else 224)
    if isinstance(size, Mapping):
        short = size.get("shortest_edge")
    else:
        # Old files have a number. It is the short side if the image is cropped afterwards.
        short = size if is_convnext or crops else None
    if short is None:
        return _pair(size), _pair(fields.get("crop_size", 224) if crops else size), "squash"
    if is_convnext and short >= 384:
        return (short, short), (short, short), "squash"
    if is_convnext:
        resized = int(short / fields.get("crop_pct", 224 / 256))
        return (resized, resized), (short, short), "center"
    if not crops:
        raise ValueError(
            "preprocessor_config.json keeps the shape of each image, and a batch needs one shape"
        )
    return (short, short), _pair(fields.get("crop_size", 224)), "center"


def _pair(size: Any) -> tuple[int, int]:
    """Return height and width of a size in one of the forms that ``transformers`` writes."""
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping):
        return size["height"], size["width"]
    height, width = size
    return height, width


def crop_fraction_of(crop: int, resized: int) -> float:
    """Return a crop fraction that resizes to exactly this size.

    >>> crop_fraction_of(224, 256), math.floor(224 / crop_fraction_of(224, 232))
    (0.875, 232)
    """
    fraction = crop / resized
    while math.floor(crop / fraction) < resized:
        fraction = math.nextafter(fraction, 0.0)
    return fraction
