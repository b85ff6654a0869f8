"""Every network of the family has the right size, tensors and parameter paths."""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import create_model, list_models
from resnet_jax.models.layers import ScaledStandardizedConv, StandardizedConv
from resnet_jax.weights.dialects.torch import Rules, to_torch_layout, torch_name, torch_rules
from resnet_jax.weights.structure import structure
from tests.golden import golden
from tests.variables import abstract_variables

# Numbers of parameters: published, in millions (He et al. 2015, table 6; He et al. 2016, table 4;
# Zagoruyko and Komodakis 2016, table 4), and exact, as the sum over the layers.
CIFAR = {
    "cifar_resnet20": (0.27, 269_722),
    "cifar_resnet32": (0.46, 464_154),
    "cifar_resnet44": (0.66, 658_586),
    "cifar_resnet56": (0.85, 853_018),
    "cifar_resnet110": (1.7, 1_727_962),
    "cifar_resnet1202": (19.4, 19_421_274),
    # Option B adds two projections with their normalization: 16 x 32 + 64 and 32 x 64 + 128.
    "cifar_resnet20_b": (0.27, 272_474),
    "cifar_resnet32_b": (0.47, 466_906),
    # 1 stem, 6 layers in blocks and the head, with 64 to 256 channels.
    "cifar_resnet8_w64": (1.2, 1_227_594),
    "cifar_preresnet110": (1.7, 1_727_962),
    "cifar_preresnet164": (1.7, 1_703_258),
    "cifar_preresnet1001": (10.3, 10_327_706),
    "wrn_16_8": (11.0, 10_961_370),
    "wrn_28_10": (36.5, 36_479_194),
    "wrn_40_4": (8.9, 8_949_210),
}


@cache
def member_variables(name: str, **overrides: object) -> dict:
    model = create_model(name, **overrides)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    return abstract_variables(model, images)


def traced_briefly(name: str) -> dict:
    """Return the shapes that `load_weights` expects, which takes far less time than `init`.

    `tests/weights/test_structure.py` proves for every kind of layer that `init` makes the same
    variables, and `tests/nightly/models.py` proves it for every member.
    """
    return structure(create_model(name), in_channels=3)


def count(tree: object) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def torch_shape(name: str, shape: tuple[int, ...], rules: Rules) -> tuple[int, ...]:
    """The shape that PyTorch gives to a tensor of ours: output and input channels first."""
    return to_torch_layout(np.broadcast_to(np.float32(0), shape), name, rules).shape


@pytest.mark.parametrize("name", golden.members())
def test_members_have_the_tensors_of_the_reference(name: str) -> None:
    variables = traced_briefly(name)
    member = golden.members()[name]
    assert count(variables["params"]) == member["parameters"]
    rules = torch_rules(create_model(name))
    tensors = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        theirs = torch_name([key.key for key in path], rules)
        tensors.append((theirs, torch_shape(theirs, leaf.shape, rules)))
    assert golden.digest(tensors) == member["tensors"]


def test_every_member_is_compared_with_something() -> None:
    assert set(list_models()) == set(golden.members()) | set(CIFAR)


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_networks_have_the_size_of_the_paper(name: str) -> None:
    millions, exactly = CIFAR[name]
    parameters = count(traced_briefly(name)["params"])
    assert parameters == exactly
    assert round(parameters / 1e6, 2 if millions < 1 else 1) == millions


def test_parameters_and_statistics_are_float32_whatever_the_compute_type() -> None:
    variables = member_variables("resnet50", dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_paths_of_parameters_are_an_interface() -> None:
    paths = {
        "/".join(key.key for key in path)
        for path, _ in jax.tree_util.tree_leaves_with_path(member_variables("resnet50"))
    }
    assert len(paths) == 53 * 5 + 2
    assert {
        "params/stem/conv/kernel",
        "params/stem/norm/scale",
        "params/stem/norm/bias",
        "batch_stats/stem/norm/mean",
        "batch_stats/stem/norm/var",
        "params/stage1/block1/conv1/kernel",
        "params/stage1/block1/norm1/scale",
        "params/stage1/block1/shortcut/conv/kernel",
        "params/stage1/block1/shortcut/norm/bias",
        "params/stage4/block3/conv3/kernel",
        "batch_stats/stage4/block3/norm3/var",
        "params/head/kernel",
        "params/head/bias",
    } <= paths


def test_projections_stand_only_where_the_shape_changes() -> None:
    params = member_variables("resnet34")["params"]
    shortcuts = [
        (stage, block)
        for stage, blocks in params.items()
        if stage.startswith("stage")
        for block, layers in blocks.items()
        if "shortcut" in layers
    ]
    assert shortcuts == [(f"stage{i}", "block1") for i in (2, 3, 4)]


def test_overrides_reach_the_network() -> None:
    variables = member_variables("cifar_resnet20", num_classes=7, width=8)
    assert variables["params"]["head"]["kernel"].shape == (32, 7)


def test_zero_init_residual_makes_every_block_the_identity() -> None:
    model = create_model("resnet18", zero_init_residual=True, width=8, stage_sizes=(2, 2))
    images = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(0), images)
    for stage in ("stage1", "stage2"):
        for block in ("block1", "block2"):
            assert not variables["params"][stage][block]["norm2"]["scale"].any()
    maps = jax.jit(partial(model.apply, train=False, method="features"))(variables, images)
    pooled = jax.lax.reduce_window(
        maps["stem"],
        -jnp.inf,
        jax.lax.max,
        (1, 3, 3, 1),
        (1, 2, 2, 1),
        ((0, 0), (1, 1), (1, 1), (0, 0)),
    )
    assert jnp.array_equal(maps["stage1"], pooled)


SCALED = partial(ScaledStandardizedConv, gamma=1.5)


@pytest.mark.parametrize(
    ("name", "conv"),
    [
        ("resnetv2_18", SCALED),
        ("resnetv2_50", ScaledStandardizedConv),
        ("resnetv2_50", StandardizedConv),
        ("nf_resnet26", SCALED),
    ],
)
def test_zero_init_residual_fits_standardized_convolutions(name: str, conv: Any) -> None:
    model = create_model(
        name, zero_init_residual=True, conv=conv, width=8, stage_sizes=(2,), stem_pool=None
    )
    images = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(0), images)
    last = variables["params"]["stage1"]["block2"]
    last = last["conv3" if "conv3" in last else "conv2"]
    assert bool(last["kernel"].any()) == (conv is not StandardizedConv)
    assert not last.get("gain", jnp.zeros(())).any()
    # The second block adds nothing to what the first one returns.
    shorter = model.clone(stage_sizes=(1,))
    maps, before = (
        jax.jit(partial(network.apply, train=False, method="features"))(variables, images)
        for network in (model, shorter)
    )
    assert jnp.array_equal(maps["stage1"], before["stage1"])


@pytest.mark.parametrize(
    ("name", "size", "strides"),
    [
        ("resnet18", 64, {"stem": 2, "stage1": 4, "stage2": 8, "stage3": 16, "stage4": 32}),
        ("resnet18", 75, {"stem": 2, "stage1": 4, "stage2": 8, "stage3": 16, "stage4": 32}),
        ("cifar_resnet20", 32, {"stem": 1, "stage1": 1, "stage2": 2, "stage3": 4}),
    ],
)
def test_feature_maps_have_the_documented_strides(
    name: str, size: int, strides: dict[str, int]
) -> None:
    model = create_model(name)
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    features = jax.eval_shape(
        lambda variables, images: model.apply(variables, images, train=False, method="features"),
        member_variables(name),
        images,
    )
    assert {k: v.shape[1:3] for k, v in features.items()} == {
        k: (-(-size // stride),) * 2 for k, stride in strides.items()
    }


def test_logits_are_float32_and_features_of_the_compute_type() -> None:
    model = create_model("resnet18", dtype=jnp.bfloat16)
    variables = member_variables("resnet18")
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    logits, features = jax.eval_shape(
        lambda variables, images: (
            model.apply(variables, images, train=False),
            model.apply(variables, images, train=False, method="features"),
        ),
        variables,
        images,
    )
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in features.values()} == {jnp.dtype(jnp.bfloat16)}


def test_patterns_select_names_in_natural_order() -> None:
    assert list_models("cifar_*")[:2] == ["cifar_resnet20", "cifar_resnet32"]
    assert list_models("resnet?01") == ["resnet101"]
    assert list_models("vgg*") == []


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown model 'resnet51': did you mean resnet50"):
        create_model("resnet51")
    with pytest.raises(ValueError, match=r"'42': see list_models\(\)"):
        create_model("42")
