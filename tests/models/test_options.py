"""Options of a network: output stride, pooling, head, channels, activation and stochastic depth."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from resnet_jax import (
    BasicBlock,
    BatchNorm,
    GroupNorm,
    PreActivationBasicBlock,
    ResNet,
    create_model,
    load_weights,
)
from resnet_jax.models.blocks import NormalizerFreeBlock
from resnet_jax.models.layers import conv
from resnet_jax.weights.dialects.torch import torch_name, torch_rules
from resnet_jax.weights.structure import structure
from tests.comparison import deviation
from tests.golden import golden
from tests.models.test_variants import torch_shape
from tests.variables import abstract_variables, random_variables

# Our names of timm's arguments, where they differ.
TIMM_OPTIONS = {"act_layer": "act", "skipinit": "skip_init", "in_chans": "in_channels"}


def abstract(model: ResNet, channels: int = 3) -> dict[str, Any]:
    images = jax.ShapeDtypeStruct((1, 32, 32, channels), jnp.float32)
    return abstract_variables(model, images)


def golden_variables(model: ResNet) -> dict[str, Any]:
    rules, state = torch_rules(model), {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(structure(model, in_channels=3)):
        name = torch_name([key.key for key in path], rules)
        state[name] = golden.tensor(name, torch_shape(name, leaf.shape, rules))
    return load_weights(model, state)


def evaluated(model: ResNet, variables: dict[str, Any], images: np.ndarray) -> jax.Array:
    return jax.jit(partial(model.apply, train=False))(variables, images)


@pytest.mark.parametrize(
    "option",
    golden.options(),
    ids=lambda option: "-".join(str(value) for key, value in option.items() if key != "logits"),
)
def test_options_equal_the_reference(option: golden.Option) -> None:
    value = option["value"]
    name = TIMM_OPTIONS.get(option["option"], option["option"])
    layers = {"stage_sizes": tuple(option["layers"])} if "layers" in option else {}
    model = create_model(
        option["arch"],
        num_classes=10,
        **layers,
        **{name: getattr(nn, str(value)) if name == "act" else value},
    )
    images = golden.images(2, option["image_size"])
    logits = evaluated(model, golden_variables(model), images)
    assert deviation(logits, option["logits"]) < 2e-5


def real_info(model: ResNet) -> dict[str, tuple[int, int]]:
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    features = jax.eval_shape(
        lambda variables, images: model.apply(variables, images, train=False, method="features"),
        structure(model, in_channels=3),
        images,
    )
    return {name: (x.shape[-1], 64 // x.shape[1]) for name, x in features.items()}


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50d", "resnest14d", "resnetv2_50x1_bit", "nf_resnet26"]
)
def test_output_stride_changes_strides_and_no_parameter(name: str, output_stride: int) -> None:
    plain = create_model(name, stage_sizes=(1, 1, 2, 1))
    model = plain.clone(output_stride=output_stride)
    assert model.feature_info == real_info(model)
    assert {k: info.stride for k, info in model.feature_info.items()} == {
        k: min(info.stride, output_stride) for k, info in plain.feature_info.items()
    }
    assert jax.tree.map(jnp.shape, abstract(model)) == jax.tree.map(jnp.shape, abstract(plain))


@pytest.mark.parametrize(
    "name",
    [
        "resnet10t",
        "resnet50c",
        "resnetrs50",
        "seresnext26t_32x4d",
        "skresnet18",
        "resnetaa50",
        "resnet50_clip",
        "resnetblur18",
        "resnetv2_18d",
        "test_resnet",
        "ecaresnet50d_pruned",
        "cifar_resnet20",
        "cifar_preresnet164",
        "wrn_16_8",
    ],
)
def test_feature_info_tells_the_real_shapes(name: str) -> None:
    model = create_model(name)
    assert model.feature_info == real_info(model)


def test_without_a_head_the_features_come_out() -> None:
    images = golden.images(2, 32)
    model = create_model("resnet18", stage_sizes=(1, 1, 1, 1))
    pooled = model.clone(num_classes=0)
    unpooled = pooled.clone(global_pool="none")
    variables = golden_variables(model)
    del variables["params"]["head"]
    vectors, maps = (evaluated(model, variables, images) for model in (pooled, unpooled))
    assert maps.shape == (2, 1, 1, 512)
    np.testing.assert_allclose(vectors, maps.mean((1, 2)), rtol=1e-6)


def test_a_head_without_pooling_is_refused() -> None:
    with pytest.raises(ValueError, match="global_pool='none' has no vector for a head"):
        abstract(create_model("resnet18", global_pool="none"))


@pytest.mark.parametrize("size", [(33, 47), (71, 83)])
def test_images_that_average_pooling_cannot_halve_are_refused(size: tuple[int, int]) -> None:
    model = create_model("resnetaa34d")
    with pytest.raises(ValueError, match=r"stage\d/block1 cannot add .* multiples of 32"):
        jax.eval_shape(
            lambda variables: model.apply(variables, jnp.zeros((1, *size, 3)), train=False),
            structure(model, in_channels=3),
        )


@pytest.mark.parametrize("channels", [1, 5])
def test_the_images_decide_how_many_channels_there_are(channels: int) -> None:
    kernel = abstract(create_model("resnet18"), channels)["params"]["stem"]["conv"]["kernel"]
    assert kernel.shape == (7, 7, channels, 64)


def test_v1_strides_in_the_first_convolution() -> None:
    plain = create_model("resnet50", stage_sizes=(1, 2, 1, 1))
    model = plain.clone(stride_in_1x1=True)
    variables = abstract(model)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, abstract(plain))
    _, captured = jax.eval_shape(
        lambda variables: model.apply(
            variables,
            jnp.zeros((1, 64, 64, 3)),
            train=False,
            capture_intermediates=lambda module, _: isinstance(module, nn.Conv),
            mutable=["intermediates"],
        ),
        variables,
    )
    block = captured["intermediates"]["stage2"]["block1"]
    assert block["conv1"]["__call__"][0].shape == (1, 8, 8, 128)
    assert model.feature_info == real_info(model)


def test_v1_and_v1_5_give_other_values() -> None:
    images = golden.images(2, 32)
    plain = create_model("cifar_preresnet164", stage_sizes=(1, 1))
    variables = golden_variables(plain)
    v1, v1_5 = (
        evaluated(plain.clone(stride_in_1x1=first), variables, images) for first in (True, False)
    )
    assert deviation(v1, v1_5) > 0.01


def test_group_norm_needs_no_statistics() -> None:
    assert set(abstract(create_model("resnet18", norm=GroupNorm))) == {"params"}


def test_another_activation_changes_values_and_no_parameter() -> None:
    images = golden.images(2, 32)
    relu = create_model("resnet18", stage_sizes=(1, 1, 1, 1))
    variables = golden_variables(relu)
    ours, theirs = (
        evaluated(model, variables, images) for model in (relu, relu.clone(act=nn.silu))
    )
    assert deviation(ours, theirs) > 0.1


@pytest.mark.parametrize(
    "rates", [{"drop_path_rate": 0.5}, {"dropout_rate": 0.5}, {"block_dropout_rate": 0.5}]
)
def test_dropout_follows_its_key_and_spares_evaluation(rates: dict[str, float]) -> None:
    images = golden.images(4, 16)
    name = "wrn_16_8" if "block_dropout_rate" in rates else "cifar_resnet20"
    plain = create_model(name, width=8, stage_sizes=(1, 1, 1))
    model = plain.clone(**rates)
    variables = random_variables(plain, images)

    @partial(jax.jit, static_argnums=(0, 1))
    def train(model: ResNet, key: int | None) -> jax.Array:
        rngs = None if key is None else {"dropout": jax.random.key(key)}
        return model.apply(variables, images, train=True, rngs=rngs, mutable=["batch_stats"])[0]

    evaluated, expected = (
        jax.jit(partial(network.apply, train=False))(variables, images)
        for network in (model, plain)
    )
    np.testing.assert_array_equal(evaluated, expected)
    np.testing.assert_array_equal(train(model, 1), train(model, 1))
    assert deviation(train(model, 1), train(model, 2)) > 1e-3
    assert deviation(train(model, 1), train(plain, None)) > 1e-3


def test_a_dropped_path_leaves_the_shortcut_and_a_kept_one_is_scaled() -> None:
    x = jnp.asarray(np.random.default_rng(0).standard_normal((16, 4, 4, 8)), jnp.float32)
    block = PreActivationBasicBlock(features=8, stride=1, conv=conv, norm=BatchNorm)
    variables = block.init(jax.random.key(0), x, train=False)
    residual = block.apply(variables, x, train=True, mutable=["batch_stats"])[0] - x

    out, _ = block.apply(
        variables,
        x,
        train=True,
        drop_path_rate=0.75,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(1)},
    )
    dropped = np.asarray(jnp.all(out == x, axis=(1, 2, 3)))
    assert 0 < dropped.sum() < 16
    kept = ~dropped
    np.testing.assert_allclose((out - x)[kept], 4 * residual[kept], rtol=1e-4, atol=1e-5)


def test_stochastic_depth_rises_with_depth() -> None:
    model = create_model("resnet18", drop_path_rate=0.7).bind(
        golden_variables(create_model("resnet18"))
    )
    rates = [rate for stage in model.stages for rate in stage.drop_path_rates]
    np.testing.assert_allclose(rates, np.linspace(0, 0.7, 8))


def test_blocks_without_normalization_know_the_variance_of_their_input() -> None:
    block = (NormalizerFreeBlock, partial(NormalizerFreeBlock, alpha=0.5), NormalizerFreeBlock)
    model = create_model("nf_resnet26", stage_sizes=(3, 2), block=(block, NormalizerFreeBlock))
    bound = model.bind(abstract(model))
    variances = [variance for stage in bound.stages for variance in stage.input_variances]
    np.testing.assert_allclose(variances, [1, 1 + 0.04, 1 + 0.04 + 0.25, 1 + 2 * 0.04 + 0.25, 1.04])


def test_residual_branches_without_normalization_start_at_zero() -> None:
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    for skip_init, zero in ((False, ("conv3", "gain")), (True, ("skip_gain",))):
        model = create_model("nf_resnet26", width=8, stage_sizes=(2,), skip_init=skip_init)
        block = jax.jit(
            lambda key, model=model: model.init(key, jnp.zeros(images.shape), train=False)
        )(jax.random.key(0))["params"]["stage1"]["block2"]
        zeros = {path for path, leaf in flatten_dict(block).items() if not leaf.any()}
        assert zeros == {(f"conv{i}", "bias") for i in (1, 2, 3)} | {zero}


def test_an_unknown_activation_has_no_gamma() -> None:
    with pytest.raises(ValueError, match="ScaledStandardizedConv has no gamma for the activation"):
        abstract(create_model("nf_resnet26", act=jnp.tanh))


def test_attention_pools_channels_that_make_whole_heads() -> None:
    with pytest.raises(ValueError, match=r"AttentionPool needs a multiple of 64 channels, .* 32"):
        abstract(create_model("resnet50_clip", width=8, stage_sizes=(1,)))


def test_every_field_of_a_variant_can_be_overridden() -> None:
    model = create_model("resnet50", stage_sizes=(1, 2), block=BasicBlock)
    assert set(abstract(model)["params"]) == {"stem", "stage1", "stage2", "head"}
