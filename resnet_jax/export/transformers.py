"""The layout of ``ResNetForImageClassification`` in Hugging Face's ``transformers``.

It fits ResNets with a 7x7 stem, plain convolutions, BatchNorm and ReLU, of any depths and widths:
ResNet-18 to ResNet-152, also with the stride in the first 1x1 convolution.
"""

import json
import math
from pathlib import Path
from typing import Any

from resnet_jax.data.preprocessing import Preprocessing
from resnet_jax.export.architecture import for_inference
from resnet_jax.export.files import new_directory, replacing
from resnet_jax.export.program import describe
from resnet_jax.export.timm import own_facts, per_channel
from resnet_jax.inference.classifier import Classifier
from resnet_jax.inference.hub_layouts.transformers import RESAMPLE, transformers_description
from resnet_jax.models import BottleneckBlock, ResNet
from resnet_jax.weights.dialects.transformers import to_transformers
from resnet_jax.weights.save import torch_tensors, write_safetensors

FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
"""The files of the directory."""


def write_transformers(
    classifier: Classifier, directory: Path, *, overwrite: bool = False
) -> dict[str, Any]:
    """Write the network and its weights in the layout of ``transformers``.

    ``AutoModelForImageClassification.from_pretrained(DIR)`` and
    ``AutoImageProcessor.from_pretrained(DIR)`` load it.

    Args:
        classifier: The network, with its preprocessing and class names.
        directory: The directory, which may exist.
        overwrite: Whether to replace files that exist.

    Returns:
        The content of ``config.json``.

    Raises:
        ValueError: ``transformers`` has no such network or no such preprocessing, or the files
            exist.
        ImportError: safetensors is not installed.
    """
    config = transformers_config(classifier)
    preprocessor = transformers_preprocessor(classifier.preprocessing)
    tensors = to_transformers(torch_tensors(classifier.model, classifier.variables))
    directory = new_directory(directory, FILES, overwrite=overwrite)
    write_safetensors(directory / FILES[2], tensors, {"format": "pt"})
    for name, content in zip(FILES, (config, preprocessor), strict=False):
        with replacing(directory / name) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    return config


def transformers_config(classifier: Classifier) -> dict[str, Any]:
    """Return the content of ``config.json``.

    What only this library knows is below ``resnet_jax``, which ``transformers`` keeps and ignores.

    Raises:
        ValueError: ``transformers`` has no such network.
    """
    model = classifier.model
    facts = describe(classifier, output="logits")
    block = model.unbound_block
    stages = [model.feature_info[f"stage{i + 1}"] for i in range(len(model.stage_sizes))]
    names = dict(enumerate(classifier.class_names))
    config = {
        "architectures": ["ResNetForImageClassification"],
        "model_type": "resnet",
        "num_channels": classifier.preprocessing.channels,
        "embedding_size": model.feature_info["stem"].channels,
        "hidden_sizes": [stage.channels for stage in stages],
        "depths": list(model.stage_sizes),
        "layer_type": "bottleneck" if isinstance(block, BottleneckBlock) else "basic",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": isinstance(block, BottleneckBlock) and block.stride_in_1x1,
        "id2label": {str(index): name for index, name in names.items()},
        "label2id": {name: index for index, name in names.items()},
        "dtype": "float32",
        "resnet_jax": own_facts(facts),
    }
    if not _is(model, config):
        raise ValueError(
            "ResNetForImageClassification of transformers has no such network: it has a 7x7 stem, "
            "plain basic or bottleneck blocks, BatchNorm and ReLU; use --layout timm, or export to "
            "stablehlo or onnx"
        )
    return config


def _is(model: ResNet, config: dict[str, Any]) -> bool:
    """Return whether the network that we would read from a configuration is the given one."""
    try:
        read = transformers_description(config, None).model
    except (TypeError, ValueError):
        return False
    return for_inference(read) == for_inference(model)


def transformers_preprocessor(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return the content of ``preprocessor_config.json``.

    The processor resizes and crops as the preprocessing does. OpenCV's interpolation without
    antialiasing and a resampling on the device have no counterpart, and become the bilinear filter
    and the size of the result.

    Raises:
        ValueError: The preprocessing pads images, or crops rectangles from their short side.
    """
    height, width = preprocessing.size
    if preprocessing.upsample_size is not None:
        height = width = preprocessing.upsample_size
    fraction, mode = preprocessing.crop_fraction, preprocessing.crop_mode
    resized = [math.floor(side / fraction) for side in (height, width)]
    if mode == "border" or (mode == "center" and height != width):
        raise ValueError(
            f"the image processors of transformers have no crop mode {mode!r} for images of "
            f"{height}x{width} pixels; use --layout timm"
        )
    channels = preprocessing.channels
    interpolation = preprocessing.interpolation
    resample = interpolation.removeprefix("pil_") if interpolation != "linear" else "bilinear"
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": channels == 3,
        "do_resize": True,
        "size": {"shortest_edge": resized[0]}
        if mode == "center"
        else {"height": resized[0], "width": resized[1]},
        "resample": RESAMPLE.index(resample),
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [*per_channel(preprocessing.mean, channels)],
        "image_std": [*per_channel(preprocessing.std, channels)],
    }
