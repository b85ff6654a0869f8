"""Impossible input is refused in one line, before anything is computed."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from resnet_jax import (
    BasicBlock,
    BatchNorm,
    GroupNorm,
    PreActivationBasicBlock,
    ResNet,
    create_model,
    stack_blocks,
    unstack_blocks,
)
from resnet_jax.models.blocks import NormalizerFreeBlock
from resnet_jax.models.layers import blur_pool, conv
from resnet_jax.models.normalization import EvoNorm
from tests.variables import abstract_variables


def apply(model: ResNet, images: jax.ShapeDtypeStruct, size: int = 64, channels: int = 3) -> Any:
    variables = abstract_variables(
        model, jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    )
    return jax.eval_shape(partial(model.apply, train=False), variables, images)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("resnet18", {"num_classes": -1}, "num_classes must be 0, for no head, or more, .* -1"),
        ("resnet18", {"in_channels": 0}, "in_channels must be positive or None"),
        ("resnet18", {"output_stride": 4}, "output_stride must be 8, 16 or 32, but it is 4"),
        ("resnet18", {"drop_path_rate": 1.0}, r"drop_path_rate must be in \[0, 1\)"),
        ("resnet18", {"dropout_rate": -0.1}, r"dropout_rate must be in \[0, 1\)"),
        ("wrn_16_8", {"block_dropout_rate": 1.5}, r"block_dropout_rate must be in \[0, 1\)"),
        ("resnet18", {"global_pool": "mean"}, "global_pool must be avg, max, avgmax or none"),
        ("resnet18", {"padding": "SAME"}, "padding must be symmetric or same"),
        ("resnet50", {"cardinality": 0}, "cardinality must be positive"),
        ("resnet18", {"bn_group_size": 0}, "bn_group_size must be positive or None"),
        ("resnet18", {"bn_decay": 1.1}, r"bn_decay must be in \[0, 1\]"),
        ("resnet18", {"stage_sizes": (2, 0)}, r"stage_sizes is \(2, 0\)"),
        (
            "resnet18",
            {"width": (8, 16)},
            r"width lists 2 stages, but stage_sizes is \(2, 2, 2, 2\)",
        ),
        ("resnet18", {"width": (8, 0, 8, 8)}, "width must be positive, or a tuple"),
        ("test_resnet", {"stage_sizes": (1,)}, "width lists 4 stages"),
        ("test_resnet", {"stage_sizes": (1,), "width": 8}, r"do not fit stage_sizes=\(1,\)"),
        ("resnet18_ibn_b", {"stage_sizes": (2, 1, 1, 1)}, "lists its blocks"),
        ("ecaresnet50d_pruned", {"width": 32}, "width does nothing in a network whose blocks"),
        ("resnet50", {"block": (BasicBlock,) * 3 + (PreActivationBasicBlock,)}, "block mixes"),
        ("resnet50", {"norm": EvoNorm}, "EvoNorm activates, and the last normalization of a Bott"),
        ("resnetv2_50d_frn", {"act": jax.nn.silu}, "act does nothing with FilterResponseNorm"),
        ("resnet50", {"ibn": "c"}, "ibn must be None, a or b"),
        ("resnet18", {"cardinality": 32}, "cardinality does nothing with BasicBlock"),
        ("resnet50", {"block_dropout_rate": 0.1}, "block_dropout_rate does nothing with Bottle"),
        ("resnetv2_18", {"stride_in_1x1": True}, "stride_in_1x1 does nothing with PreActivationB"),
        ("resnetv2_50", {"antialias": blur_pool}, "antialias does nothing with PreActivationBottl"),
        ("resnet50_gn", {"freeze_bn": True}, "freeze_bn does nothing with GroupNorm"),
        ("nf_resnet26", {"freeze_bn": True}, "freeze_bn does nothing with NoNorm"),
        (
            "nf_resnet26",
            {"block": (NormalizerFreeBlock, PreActivationBasicBlock) * 2},
            "block mixes NormalizerFreeBlock with others",
        ),
        ("nf_resnet26", {"norm": EvoNorm}, "a network without normalization needs norm=NoNorm"),
        ("nf_resnet26", {"norm": BatchNorm}, "a network without normalization needs norm=NoNorm"),
        ("nf_resnet26", {"conv": conv}, "needs norm=NoNorm and conv=ScaledStandardizedConv"),
        ("resnet50", {"skip_init": True}, "skip_init does nothing with BottleneckBlock"),
        ("resnet18", {"norm": None}, "norm must be resnet_jax.BatchNorm or GroupNorm, .* None"),
        ("resnet18", {"norm": "batch"}, "norm must be resnet_jax.BatchNorm or .* 'batch'"),
        ("resnet18", {"norm": nn.BatchNorm}, "norm must be resnet_jax.BatchNorm or GroupNorm"),
        ("resnet18", {"norm": partial(BatchNorm, epsilon=0)}, "bn_epsilon must be positive, .* 0"),
        (
            "resnet18",
            {"norm": partial(BatchNorm, decay=1)},
            "norm must be resnet_jax.Batch.* 'decay'",
        ),
        ("resnet18", {"norm": partial(GroupNorm), "freeze_bn": True}, "freeze_bn does nothing"),
        ("resnet18", {"act": "silu"}, "act must be a function such as jax.nn.silu, .* 'silu'"),
        ("resnet18", {"num_classes": None}, "num_classes must be 0, .* None"),
        ("resnet18", {"num_classes": "10"}, "num_classes must be 0, .* '10'"),
        ("resnet18", {"dropout_rate": None}, r"dropout_rate must be in \[0, 1\), .* None"),
        ("resnet18", {"norm": GroupNorm, "bn_group_size": 2}, "bn_group_size does nothing with G"),
    ],
    # The workers of pytest-xdist must agree on the names of the tests. The name of a function would
    # contain its address.
    ids=lambda value: "-".join(value) if isinstance(value, dict) else str(value),
)
def test_impossible_fields(name: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        create_model(name, **fields)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "channels"), [("cifar_resnet20", 16), ("resnet50t", 24)])
def test_channels_that_do_not_make_whole_groups(name: str, channels: int) -> None:
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    message = f"GroupNorm cannot split {channels} channels into 32 groups; give norm=partial"
    with pytest.raises(ValueError, match=message) as error:
        abstract_variables(create_model(name, norm=GroupNorm), images)
    assert "\n" not in str(error.value).split("---")[0].strip()
    abstract_variables(create_model(name, norm=partial(GroupNorm, num_groups=8)), images)


def test_a_name_with_the_tag_of_its_weights() -> None:
    with pytest.raises(ValueError, match=r"is 'resnet50', .* 'hf://timm/resnet50\.a1_in1k'\)"):
        create_model("resnet50.a1_in1k")


@pytest.mark.parametrize("change", [stack_blocks, unstack_blocks])
def test_variables_without_their_collection_cannot_be_stacked(change: Any) -> None:
    with pytest.raises(ValueError, match="variables of one collection"):
        change({"stem": {}, "stage1": {"block1": {}}})


@pytest.mark.parametrize("way", [abstract_variables, apply])
@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((64, 64, 3), "float32", r"must be \[B, H, W, C?3?\], but have shape \[64, 64, 3\]"),
        ((2, 64, 64), "float32", r"but have shape \[2, 64, 64\]"),
        ((2, 0, 64, 3), "float32", r"but have shape \[2, 0, 64, 3\]"),
        ((2, 64, 64, 3), "uint8", r"normalized floats, but are uint8; .* \(images / 255 - mean\)"),
        ((2, 64, 64, 3), "int32", "normalized floats, but are int32"),
        ((2, 64, 64, 3), "bool", "normalized floats, but are bool"),
    ],
    ids=str,
)
def test_images_that_are_none(way: Any, shape: tuple[int, ...], dtype: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        way(create_model("resnet10t"), jax.ShapeDtypeStruct(shape, dtype))
    assert "\n" not in str(error.value).split("---")[0].strip()


@pytest.mark.parametrize("name", ["resnet18", "resnet50d", "resnetv2_50x1_bit"])
def test_images_of_other_channels_than_the_weights(name: str) -> None:
    with pytest.raises(ValueError, match=r"\[B, H, W, 3\], but have shape \[2, 64, 64, 4\]"):
        apply(create_model(name), jax.ShapeDtypeStruct((2, 64, 64, 4), jnp.float32))
    with pytest.raises(ValueError, match=r"\[B, H, W, 3\], but have shape \[2, 3, 64, 64\]"):
        apply(create_model(name), jax.ShapeDtypeStruct((2, 3, 64, 64), jnp.float32))


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("resnetaa50", 8, "a feature map of 1x1 pixels cannot be averaged"),
        ("resnetblur18", 8, "a feature map of 1x1 pixels cannot be blurred"),
        ("resnetblur50", 16, "a feature map of 1x1 pixels cannot be blurred"),
    ],
)
def test_images_that_vanish_on_the_way(name: str, size: int, message: str) -> None:
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    with pytest.raises(ValueError, match=f"the images are too small: {message}"):
        abstract_variables(create_model(name), images)
    with pytest.raises(ValueError, match=f"the images are too small: {message}"):
        apply(create_model(name), images)


def test_every_member_accepts_the_images_that_show_its_variables() -> None:
    for name in ("resnet18", "resnet50d", "resnetaa34d", "resnetblur50d", "resnest14d", "wrn_16_8"):
        for output_stride in (8, 32):
            model = create_model(name, output_stride=output_stride).clone(
                stage_sizes=(1,) * len(create_model(name).stage_sizes)
            )
            abstract_variables(model, jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32))
