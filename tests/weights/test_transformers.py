"""State dicts of ``transformers`` are loaded into our networks.

The names are those of version 5.24, written down here in the opposite direction.
"""

import re

import numpy as np
import pytest

from resnet_jax import create_model, load_weights
from resnet_jax.weights.dialects.transformers import from_transformers
from tests.golden import golden

RESNET = {
    "conv1.weight": "resnet.embedder.embedder.convolution.weight",
    "bn1.running_var": "resnet.embedder.embedder.normalization.running_var",
    "bn1.num_batches_tracked": "resnet.embedder.embedder.normalization.num_batches_tracked",
    "layer1.0.conv1.weight": "resnet.encoder.stages.0.layers.0.layer.0.convolution.weight",
    "layer3.5.bn2.bias": "resnet.encoder.stages.2.layers.5.layer.1.normalization.bias",
    "layer4.0.downsample.0.weight": "resnet.encoder.stages.3.layers.0.shortcut.convolution.weight",
    "layer4.0.downsample.1.running_mean": (
        "resnet.encoder.stages.3.layers.0.shortcut.normalization.running_mean"
    ),
    "fc.weight": "classifier.1.weight",
}
BIT = {
    "stem.conv.weight": "bit.embedder.convolution.weight",
    "stages.0.blocks.0.norm1.weight": "bit.encoder.stages.0.layers.0.norm1.weight",
    "stages.1.blocks.3.conv2.weight": "bit.encoder.stages.1.layers.3.conv2.weight",
    "stages.2.blocks.0.downsample.conv.weight": (
        "bit.encoder.stages.2.layers.0.downsample.conv.weight"
    ),
    "norm.bias": "bit.norm.bias",
    "head.fc.bias": "classifier.1.bias",
}


def transformers_name(name: str) -> str:
    """Return the name in ``transformers`` of a tensor of torchvision's ResNets."""
    layer, leaf = name.rsplit(".", 1)
    if layer == "fc":
        return f"classifier.1.{leaf}"
    if match := re.fullmatch(r"(conv|bn)1", layer):
        part = "convolution" if match[1] == "conv" else "normalization"
        return f"resnet.embedder.embedder.{part}.{leaf}"
    match = re.fullmatch(r"layer(\d)\.(\d+)\.(conv|bn|downsample\.)(\d)", layer)
    assert match
    stage, block, kind, index = match.groups()
    prefix = f"resnet.encoder.stages.{int(stage) - 1}.layers.{block}"
    if kind == "downsample.":
        return f"{prefix}.shortcut.{'normalization' if index == '1' else 'convolution'}.{leaf}"
    part = "convolution" if kind == "conv" else "normalization"
    return f"{prefix}.layer.{int(index) - 1}.{part}.{leaf}"


@pytest.mark.parametrize("names", [RESNET, BIT], ids=["resnet", "bit"])
def test_names_become_those_of_torchvision_and_timm(names: dict[str, str]) -> None:
    tensors = {theirs: np.full(1, i) for i, theirs in enumerate(names.values())}
    assert list(from_transformers(tensors)) == list(names)
    # A network without a head has no prefix either.
    bare = {k.split(".", 1)[1]: v for k, v in tensors.items() if not k.startswith("classifier")}
    assert list(from_transformers(bare)) == list(names)[:-1]


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_a_whole_network_is_loaded(architecture: str) -> None:
    weights = golden.state_dict(architecture, num_classes=10)
    model = create_model(architecture, num_classes=10)
    loaded = load_weights(model, {transformers_name(k): v for k, v in weights.items()})
    expected = load_weights(model, weights)
    for collection in ("params", "batch_stats"):
        np.testing.assert_array_equal(
            loaded[collection]["stage3"]["block1"]["shortcut"]["norm"][
                "scale" if collection == "params" else "var"
            ],
            expected[collection]["stage3"]["block1"]["shortcut"]["norm"][
                "scale" if collection == "params" else "var"
            ],
        )
    np.testing.assert_array_equal(
        loaded["params"]["head"]["kernel"], expected["params"]["head"]["kernel"]
    )


def test_other_tensors_keep_their_names() -> None:
    name = "encoder.stages.0.strange"
    assert list(from_transformers({name: np.zeros(1)})) == [name]
