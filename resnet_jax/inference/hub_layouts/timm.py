"""The layout of timm: ``config.json`` with the fields of a ``pretrained_cfg``."""

from typing import Any

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

# Arguments of timm's models that do not change what a network computes in evaluation.
_TRAINING_ARGUMENTS = ("drop_rate", "drop_path_rate", "drop_block_rate", "zero_init_last")


def timm_description(config: Json) -> Description:
    """Return what a ``config.json`` of timm describes.

    Raises:
        ValueError: It describes a network or a preprocessing that does not exist here.
    """
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
        class_names(labels, num_classes),
    )


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
        interpolation=pil_filter(facts.get("interpolation") or "bicubic"),
        mean=for_channels(facts.get("mean") or MEAN, channels),
        std=for_channels(facts.get("std") or STD, channels),
        channels=channels,
        crop_mode=facts.get("crop_mode") or "center",
    )
