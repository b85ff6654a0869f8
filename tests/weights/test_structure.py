"""The variables of a network that are found without tracing it are those that `init` makes."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import pytest

from resnet_jax import GroupNorm, ResNet, create_model
from resnet_jax.models.layers import conv
from resnet_jax.weights.structure import structure
from tests.variables import abstract_variables


def initialized(model: ResNet, channels: int) -> Any:
    return abstract_variables(model, jnp.zeros((1, 64, 64, channels)))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("resnet18", {"norm": GroupNorm, "num_classes": 7}),
        ("cifar_resnet20", {"norm": partial(GroupNorm, num_groups=16)}),
        ("resnet50", {"padding": "same", "num_classes": 0}),
        ("resnet26t", {"output_stride": 8, "stride_in_1x1": True}),
        ("resnetrs50", {"stage_sizes": (1, 2, 1, 1)}),
        ("resnetblur18", {"remat": True}),
        ("seresnetaa50d", {"stage_sizes": (1, 1, 1, 1)}),
        ("skresnext50_32x4d", {"stage_sizes": (1, 1, 1, 1)}),
        ("resnest50d_4s2x40d", {"stage_sizes": (2, 1, 1, 1)}),
        ("resnetv2_50x1_bit", {"stage_sizes": (1, 1, 1, 1), "dtype": jnp.bfloat16}),
        ("senet154", {"stage_sizes": (1, 1, 1, 1)}),
        ("res2next50", {"stage_sizes": (2, 1, 1, 1)}),
        ("resnetv2_50d_evos", {"stage_sizes": (1, 1, 1, 1)}),
        ("resnet18_ibn_b", {}),
        ("se_resnet50_ibn_a", {"stage_sizes": (1, 1, 1, 1)}),
        ("ecaresnet50d_pruned", {}),
        ("cifar_resnet20", {}),
        ("resnet50_clip", {"stage_sizes": (1, 2, 1, 1)}),
        ("nf_seresnet26", {"skip_init": True, "act": nn.silu}),
        ("wrn_16_8", {"block_dropout_rate": 0.3}),
        # Layers that a user has written are traced.
        ("cifar_resnet20", {"conv": partial(conv, use_bias=True)}),
    ],
)
def test_structure_is_what_init_makes(name: str, fields: dict[str, Any]) -> None:
    model = create_model(name, **fields)
    for channels in (3, 4):
        assert structure(model, channels) == initialized(model, channels)
