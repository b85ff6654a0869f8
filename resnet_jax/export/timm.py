"""The layout of timm, which ``timm.create_model("local-dir:DIR", pretrained=True)`` loads.

It is also the layout of timm's repositories on the Hugging Face hub.
"""

import json
from pathlib import Path
from typing import Any

from resnet_jax.data.preprocessing import Preprocessing
from resnet_jax.export.architecture import name_of
from resnet_jax.export.files import new_directory, replacing
from resnet_jax.export.program import describe
from resnet_jax.inference.classifier import Classifier
from resnet_jax.models import ResNet
from resnet_jax.weights.dialects.torch import torch_name, torch_rules
from resnet_jax.weights.formats.int8 import quantized_tensors
from resnet_jax.weights.save import torch_tensors, write_safetensors

FILES = ("config.json", "model.safetensors")
"""The files of the directory."""

# Networks of the table that timm does not have, by the beginning or a part of their names.
_ABSENT = ("cifar_", "wrn_", "_ibn_")


def write_timm(
    classifier: Classifier, directory: Path, *, int8: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Write the network and its weights in timm's layout.

    Args:
        classifier: The network, with its preprocessing and class names.
        directory: The directory, which may exist.
        int8: Whether to store kernels as int8 with scales, see `resnet_jax.weights.formats.int8`.
            This library reads such a file like any other. timm refuses it, because it does not know
            the scales.
        overwrite: Whether to replace files that exist.

    Returns:
        The content of ``config.json``.

    Raises:
        ValueError: timm has no such network, or the files exist.
        ImportError: safetensors is not installed.
    """
    config = timm_config(classifier)
    tensors = torch_tensors(classifier.model, classifier.variables)
    directory = new_directory(directory, FILES, overwrite=overwrite)
    if int8:
        tensors = quantized_tensors(tensors)
    write_safetensors(directory / FILES[1], tensors, {"format": "pt"})
    with replacing(directory / FILES[0]) as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    return config


def timm_config(classifier: Classifier) -> dict[str, Any]:
    """Return the content of timm's ``config.json``, as `timm.models.save_for_hf` writes it.

    timm reads the architecture, the arguments of the network, the preprocessing and the class
    names. What only this library knows is below ``resnet_jax``, which timm ignores.

    Raises:
        ValueError: timm has no such network.
    """
    model = classifier.model
    architecture = timm_architecture(model)
    arguments: dict[str, Any] = {}
    if (channels := classifier.preprocessing.channels) != 3:
        arguments["in_chans"] = channels
    if model.output_stride != 32:
        arguments["output_stride"] = model.output_stride
    pool = model.global_pool if isinstance(model.global_pool, str) else None
    if pool not in (None, "avg"):
        arguments["global_pool"] = pool
    facts = describe(classifier, output="logits")
    rules = torch_rules(model)
    stem = "conv" if "conv" in classifier.variables["params"]["stem"] else "conv1"
    return {
        "architecture": architecture,
        "num_classes": model.num_classes,
        "num_features": _last_channels(model),
        **({"global_pool": pool} if pool else {}),
        "label_names": facts["class_names"],
        **({"model_args": arguments} if arguments else {}),
        "pretrained_cfg": {
            "custom_load": False,
            **_transform(classifier.preprocessing),
            "fixed_input_size": pool is None,
            "num_classes": model.num_classes,
            "first_conv": torch_name(("params", "stem", stem, "kernel"), rules)[: -len(".weight")],
            "classifier": torch_name(("params", "head", "kernel"), rules)[: -len(".weight")],
        },
        "resnet_jax": own_facts(facts),
    }


def timm_architecture(model: ResNet) -> str:
    """Return timm's name of a network.

    Raises:
        ValueError: timm has no such network.
    """
    name = name_of(model)
    if name is None:
        raise ValueError(
            "timm has no network with these fields: only the number of classes and of image "
            "channels, output_stride and global_pool of its networks can be changed; export to "
            "stablehlo or onnx instead"
        )
    if any(part in name for part in _ABSENT):
        raise ValueError(f"timm has no {name}; export to stablehlo or onnx instead")
    return name


def _last_channels(model: ResNet) -> int:
    return model.feature_info[f"stage{len(model.stage_sizes)}"].channels


def _transform(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return timm's fields for a preprocessing.

    timm resizes with Pillow. OpenCV's interpolation without antialiasing and a resampling on the
    device have no counterpart, and become Pillow's bilinear filter and the size of the result.
    """
    height, width = preprocessing.size
    if preprocessing.upsample_size is not None:
        height = width = preprocessing.upsample_size
    channels = preprocessing.channels
    interpolation = preprocessing.interpolation
    return {
        "input_size": [channels, height, width],
        "interpolation": interpolation.removeprefix("pil_")
        if interpolation.startswith("pil_")
        else "bilinear",
        "crop_pct": preprocessing.crop_fraction,
        "crop_mode": preprocessing.crop_mode,
        "mean": [*per_channel(preprocessing.mean, channels)],
        "std": [*per_channel(preprocessing.std, channels)],
    }


def own_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """Return what of a description other libraries have no fields for."""
    return {name: facts[name] for name in ("temperature", "threshold", "versions", "date")}


def per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Return one value for each channel."""
    return values * channels if len(values) == 1 else values
