"""Files of Google's BiT networks are loaded into our networks."""

import re

import numpy as np
import pytest

from resnet_jax import create_model, load_weights
from resnet_jax.weights.dialects.bit import from_bit, is_bit
from tests.golden import golden

# These are tensors of every kind. timm 1.0.31 loads such a file into the same state dict.
NAMES = {
    "resnet/root_block/standardized_conv2d/kernel": "stem.conv.weight",
    "resnet/block1/unit01/a/proj/standardized_conv2d/kernel": (
        "stages.0.blocks.0.downsample.conv.weight"
    ),
    "resnet/block1/unit01/a/standardized_conv2d/kernel": "stages.0.blocks.0.conv1.weight",
    "resnet/block1/unit01/a/group_norm/gamma": "stages.0.blocks.0.norm1.weight",
    "resnet/block1/unit01/a/group_norm/beta": "stages.0.blocks.0.norm1.bias",
    "resnet/block2/unit03/b/standardized_conv2d/kernel": "stages.1.blocks.2.conv2.weight",
    "resnet/block2/unit03/b/group_norm/gamma": "stages.1.blocks.2.norm2.weight",
    "resnet/block3/unit23/c/standardized_conv2d/kernel": "stages.2.blocks.22.conv3.weight",
    "resnet/block3/unit23/c/group_norm/beta": "stages.2.blocks.22.norm3.bias",
    "resnet/group_norm/gamma": "norm.weight",
    "resnet/group_norm/beta": "norm.bias",
    "resnet/head/conv2d/kernel": "head.fc.weight",
    "resnet/head/conv2d/bias": "head.fc.bias",
}


def bit_name(name: str) -> str:
    """Return the name in a BiT file of a tensor of timm."""
    fixed = {theirs: bit for bit, theirs in NAMES.items() if not theirs.startswith("stages")}
    if name in fixed:
        return fixed[name]
    match = re.fullmatch(r"stages\.(\d)\.blocks\.(\d+)\.(\w+)\.(.+)", name)
    assert match
    stage, block, layer, leaf = match.groups()
    unit = f"resnet/block{int(stage) + 1}/unit{int(block) + 1:02d}"
    if layer == "downsample":
        return f"{unit}/a/proj/standardized_conv2d/kernel"
    letter = "abc"[int(layer[-1]) - 1]
    if layer.startswith("conv"):
        return f"{unit}/{letter}/standardized_conv2d/kernel"
    return f"{unit}/{letter}/group_norm/{'gamma' if leaf == 'weight' else 'beta'}"


@pytest.mark.parametrize(("bit", "timm"), NAMES.items())
def test_names_become_those_of_timm(bit: str, timm: str) -> None:
    assert list(from_bit({bit: np.zeros(1)})) == [timm]


def test_kernels_become_those_of_pytorch() -> None:
    kernel = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    tensors = from_bit({"resnet/root_block/standardized_conv2d/kernel": kernel})
    assert tensors["stem.conv.weight"].shape == (5, 4, 2, 3)
    assert tensors["stem.conv.weight"][4, 3, 1, 2] == kernel[1, 2, 3, 4]


def test_a_whole_network_is_loaded() -> None:
    weights = golden.state_dict("resnetv2_50x1_bit", num_classes=10)
    tensors = {
        bit_name(name): array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
        for name, array in weights.items()
    }
    assert is_bit(tensors)
    assert not is_bit(weights)
    renamed = from_bit(tensors)
    assert renamed.keys() == weights.keys()
    layers = tuple(golden.specs()["resnetv2_50x1_bit"]["layers"])
    model = create_model("resnetv2_50x1_bit", num_classes=10, stage_sizes=layers)
    params = load_weights(model, renamed)["params"]
    np.testing.assert_array_equal(
        params["stage1"]["block2"]["conv2"]["kernel"],
        tensors["resnet/block1/unit02/b/standardized_conv2d/kernel"],
    )
    np.testing.assert_array_equal(
        params["stage1"]["block1"]["norm3"]["bias"],
        tensors["resnet/block1/unit01/c/group_norm/beta"],
    )
    np.testing.assert_array_equal(
        params["head"]["kernel"], tensors["resnet/head/conv2d/kernel"][0, 0]
    )


@pytest.mark.parametrize(
    "name",
    ["resnet/block1/unit01/d/group_norm/gamma", "global_step", "resnet/head/conv2d/kernel/m"],
)
def test_other_tensors_keep_their_names(name: str) -> None:
    assert list(from_bit({name: np.zeros(1)})) == [name]
