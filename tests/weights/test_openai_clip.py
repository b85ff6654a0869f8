"""Files of CLIP: the names of OpenAI and OpenCLIP are those of timm, renamed."""

import re

import numpy as np
import pytest

from resnet_jax import create_model, load_weights
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


@pytest.mark.parametrize("visual_only", [False, True])
def test_the_image_network_is_read_from_a_file_of_clip(visual_only: bool) -> None:
    model = create_model("resnet50_clip", num_classes=32, **SMALL)
    variables = random_variables(model, np.zeros((1, 64, 64, 3), np.float32))
    tensors = to_state_dict(variables, torch_rules(model))
    theirs = {openai_name(name): array for name, array in tensors.items()}
    assert "visual.layer2.1.bn3.running_var" in theirs
    assert theirs["visual.attnpool.positional_embedding"].shape == (50, 512)
    assert theirs["visual.attnpool.c_proj.weight"].shape == (32, 512)
    if visual_only:
        theirs = {name.removeprefix("visual."): array for name, array in theirs.items()}
    else:
        theirs |= {"logit_scale": np.zeros(()), "transformer.resblocks.0.ln_1.bias": np.zeros(4)}
    assert tree_deviation(load_weights(model, theirs), variables) == 0

    pooled = create_model("resnet50_clip_gap", **SMALL)
    loaded = load_weights(pooled, theirs)
    assert loaded["params"].keys() == {"stem", "stage1", "stage2", "stage3", "stage4"}
