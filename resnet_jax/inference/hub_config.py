"""Network, class names and preprocessing from the JSON files of a repository of weights.

timm and ``transformers`` each write a ``config.json`` of their own layout; ``transformers`` writes
the preprocessing into ``preprocessor_config.json``.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from resnet_jax.data.imagenet import imagenet_classes
from resnet_jax.data.images.crop import CropMode
from resnet_jax.data.preprocessing import Preprocessing
from resnet_jax.models import create_model
from resnet_jax.models.names import named_value
from resnet_jax.models.resnet import ResNet

Json = Mapping[str, Any]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Defaults of BitImageProcessor in transformers; the other processors have 0.5.
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# For a repository without a file: that of microsoft/resnet-50.
_PROCESSOR = {"size": 224, "crop_pct": 0.875, "image_mean": _MEAN, "image_std": _STD}
# Pillow's numbers of its filters.
_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
_IMAGENET = (1000, 11821, 21843)
# Arguments of timm's models that do not change what a network computes in evaluation.
_TRAINING_ARGUMENTS = ("drop_rate", "drop_path_rate", "drop_block_rate", "zero_init_last")


class Description(NamedTuple):
    """What a repository says of its weights.

    Attributes:
        model: The network.
        preprocessing: How an image becomes its input, at the size of testing.
        training_preprocessing: The same at the size that timm uses by default, usually that of
            training.
        class_names: One name for each logit.
    """

    model: ResNet
    preprocessing: Preprocessing
    training_preprocessing: Preprocessing
    class_names: tuple[str, ...]


def describe(config: Json, preprocessor: Json | None) -> Description:
    """Return what the configuration of a repository describes.

    Args:
        config: Content of ``config.json``, in the layout of timm or ``transformers``.
        preprocessor: Content of ``preprocessor_config.json``, if there is one.

    Raises:
        ValueError: It describes a network or a preprocessing that does not exist here.
    """
    if "architecture" in config:
        return _from_timm(config)
    if config.get("model_type") in ("resnet", "bit"):
        return _from_transformers(config, preprocessor)
    kind = config.get("model_type")
    raise ValueError(
        "config.json is neither timm's nor that of a ResNet or BiT of transformers"
        + (f", but of model_type {kind!r}" if kind else "")
        + "; give the name of the network as well"
    )


def names_of(num_classes: int) -> tuple[str, ...]:
    """Return names for the classes of weights that come without names.

    They are those of ImageNet for the numbers of classes that it has, as in timm, and otherwise
    the indices of the logits.
    """
    if num_classes in _IMAGENET:
        return tuple(imagenet.name for imagenet in imagenet_classes(num_classes))
    return tuple(str(index) for index in range(num_classes))


def timm_preprocessing(facts: Json, *, test_size: bool) -> Preprocessing:
    """Return the evaluation transform that timm derives from a ``pretrained_cfg``.

    Args:
        facts: The fields of the ``pretrained_cfg``.
        test_size: Whether to use the size and the crop that timm tests with, as its ``validate.py``
            does, or the default ones of ``resolve_data_config``.
    """
    default = facts.get("input_size") or (3, 224, 224)
    crop = facts.get("crop_pct") or 0.875
    channels, height, width = (test_size and facts.get("test_input_size")) or default
    crop = (test_size and facts.get("test_crop_pct")) or crop
    return Preprocessing(
        image_size=height if height == width else (height, width),
        crop_fraction=crop,
        interpolation=_interpolation(facts.get("interpolation") or "bicubic"),
        mean=_for_channels(facts.get("mean") or _MEAN, channels),
        std=_for_channels(facts.get("std") or _STD, channels),
        channels=channels,
        crop_mode=facts.get("crop_mode") or "center",
    )


def _from_timm(config: Json) -> Description:
    # Old files have the fields of the pretrained_cfg at the top.
    facts = {**(config.get("pretrained_cfg") or config)}
    facts |= {name: config[name] for name in ("num_classes", "label_names") if name in config}
    arguments = {
        name: value
        for name, value in (config.get("model_args") or {}).items()
        if value is not None and name not in _TRAINING_ARGUMENTS
    }
    overrides: dict[str, Any] = {}
    for theirs, ours in (("in_chans", "in_channels"), ("output_stride", "output_stride")):
        if theirs in arguments:
            overrides[ours] = arguments.pop(theirs)
    pool = arguments.pop("global_pool", None) or config.get("global_pool")
    if pool in ("max", "avgmax"):
        overrides["global_pool"] = pool
    num_classes = facts.get("num_classes", 1000)
    num_classes = arguments.pop("num_classes", num_classes)
    if arguments:
        raise ValueError(
            f"config.json has model_args that are unknown here: {', '.join(arguments)}; build the "
            "network with create_model and pass it as well"
        )
    if "in_channels" in overrides:
        for name in ("input_size", "test_input_size"):
            if facts.get(name):
                facts[name] = (overrides["in_channels"], *facts[name][1:])
    channels = (facts.get("input_size") or (3,))[0]
    if channels != 3:
        overrides["in_channels"] = channels
    model = create_model(
        config["architecture"].partition(".")[0], num_classes=num_classes, **overrides
    )
    labels = facts.get("label_names") or facts.get("labels") or config.get("id2label")
    return Description(
        model,
        timm_preprocessing(facts, test_size=True),
        timm_preprocessing(facts, test_size=False),
        _class_names(labels, num_classes),
    )


def _from_transformers(config: Json, preprocessor: Json | None) -> Description:
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
    names = _class_names(labels, num_classes)
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
        interpolation=_interpolation(_RESAMPLE[fields.get("resample", 3)]),
        mean=tuple(value / (255 * factor) for value in _for_channels(mean, channels)),
        std=tuple(value / (255 * factor) for value in _for_channels(std, channels)),
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


def _class_names(labels: Any, num_classes: int) -> tuple[str, ...]:
    if not labels or not num_classes:
        return names_of(num_classes)
    if isinstance(labels, Mapping):
        by_index = {int(index): name for index, name in labels.items()}
        labels = [by_index[index] for index in sorted(by_index)]
    return tuple(map(str, labels))


def _interpolation(name: str) -> Any:
    return f"pil_{name}"


def _pair(size: Any) -> tuple[int, int]:
    """Return height and width of a size in one of the forms that ``transformers`` writes."""
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping):
        return size["height"], size["width"]
    height, width = size
    return height, width


def _for_channels(values: float | Sequence[float], channels: int) -> tuple[float, ...]:
    """Return one value, or one per channel; for gray images the mean of those of a color image."""
    values = (values,) if isinstance(values, int | float) else tuple(values)
    if channels == 1 and len(values) > 1:
        return (sum(values) / len(values),)
    return values


def crop_fraction_of(crop: int, resized: int) -> float:
    """Return a crop fraction that resizes to exactly this size.

    >>> crop_fraction_of(224, 256), math.floor(224 / crop_fraction_of(224, 232))
    (0.875, 232)
    """
    fraction = crop / resized
    while math.floor(crop / fraction) < resized:
        fraction = math.nextafter(fraction, 0.0)
    return fraction
