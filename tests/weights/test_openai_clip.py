"""Files of CLIP: the names of OpenAI and OpenCLIP are those of timm, renamed."""

import re
from typing import Any

import numpy as np
import pytest

from resnet_jax import (
    ResNet,
    create_model,
    list_pretrained,
    load_matching_weights,
    load_weights,
)
from resnet_jax.weights.dialects.torch import to_state_dict, torch_rules
from tests.comparison import tree_deviation
from tests.variables import random_variables

SMALL = {"width": 16, "stem_widths": (8, 8, 16), "stage_sizes": (1, 2, 1, 1)}


def openai_name(name: str) -> str:
    """Return the name that OpenAI gives to a tensor of timm."""
    for pattern, theirs in (
        (r"stem\.conv(\d)\.(conv|bn)", r"\2\1"),
        (r"conv(\d)_\dx1\.(conv|bn)|conv(\d)_kxk\.(conv|bn)", r"\2\4\1\3"),
        (r"shortcut\.conv\.conv", "downsample.0"),
        (r"shortcut\.conv\.bn", "downsample.1"),
        (r"head\.pos_embed", "attnpool.positional_embedding"),
        (r"head\.([qkv])\.", r"attnpool.\1_proj."),
        (r"head\.proj\.", "attnpool.c_proj."),
    ):
        name = re.sub(pattern, theirs, name)
    name = re.sub(r"stages\.(\d)", lambda match: f"layer{int(match[1]) + 1}", name)
    return f"visual.{name}"


@pytest.fixture(scope="module")
def clip() -> tuple[ResNet, Any, dict[str, np.ndarray]]:
    """A small network, its variables, and these under the names of a file of CLIP."""
    model = create_model("resnet50_clip", num_classes=32, **SMALL)
    variables = random_variables(model, np.zeros((1, 64, 64, 3), np.float32))
    tensors = to_state_dict(variables, torch_rules(model))
    theirs = {openai_name(name): array for name, array in tensors.items()}
    assert "visual.layer2.1.bn3.running_var" in theirs
    assert theirs["visual.attnpool.positional_embedding"].shape == (50, 512)
    assert theirs["visual.attnpool.c_proj.weight"].shape == (32, 512)
    return model, variables, theirs


TEXT = {"logit_scale": np.zeros(()), "transformer.resblocks.0.ln_1.bias": np.zeros(4)}


@pytest.mark.parametrize(
    ("prefix", "wrapper"),
    [
        ("visual.", ""),
        ("", ""),
        ("module.visual.", ""),
        ("model.visual.", "_fsdp_wrapped_module."),
        ("encoder.", ""),
    ],
)
def test_the_image_network_is_read_from_a_file_of_clip(
    clip: tuple[ResNet, Any, dict[str, np.ndarray]], prefix: str, wrapper: str
) -> None:
    model, variables, theirs = clip
    theirs = {
        prefix + name.removeprefix("visual.").replace("layer3.", f"layer3.{wrapper}"): array
        for name, array in theirs.items()
    }
    if prefix:
        before = prefix.removesuffix("visual.") if "visual" in prefix else ""
        theirs |= {before + name: array for name, array in TEXT.items()}
    loaded, report = load_matching_weights(model, theirs)
    assert tree_deviation(loaded, variables) == 0
    assert tree_deviation(load_weights(model, theirs), variables) == 0
    assert report.prefix == prefix
    assert len(report.beside) == (2 if prefix else 0)

    pooled = create_model("resnet50_clip_gap", **SMALL)
    loaded = load_weights(pooled, theirs)
    assert loaded["params"].keys() == {"stem", "stage1", "stage2", "stage3", "stage4"}
    assert tree_deviation(loaded["params"]["stage4"], variables["params"]["stage4"]) == 0


def test_one_of_two_image_networks_is_chosen(
    clip: tuple[ResNet, Any, dict[str, np.ndarray]],
) -> None:
    model, variables, theirs = clip
    both = theirs | {f"teacher.{name}": array + 1 for name, array in theirs.items()}
    with pytest.raises(ValueError, match=r"'teacher\.visual\.', 'visual\.'; choose one"):
        load_weights(model, both)
    assert tree_deviation(load_weights(model, both, prefix="visual."), variables) == 0


def test_attention_pooling_and_preprocessing_agree_on_the_size_of_images() -> None:
    for weights in list_pretrained("*_clip.*"):
        model = create_model(weights.model)
        stride = model.feature_info["stage4"].stride
        pool: Any = model.global_pool
        grid = pool(parent=None).grid
        assert weights.input_size == weights.test_size == grid * stride, weights.name
