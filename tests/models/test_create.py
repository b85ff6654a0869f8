"""Networks are created by name, have options for their blocks and layers, and can be compared."""

import copy
import inspect
import pickle
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from resnet_jax import BasicBlock, BatchNorm, BottleneckBlock, GroupNorm, ResNet, create_model
from resnet_jax.models.attention import SelectiveKernel, SqueezeExcite
from resnet_jax.models.create import Overrides
from resnet_jax.models.layers import blur_pool
from resnet_jax.models.options import OPTIONS
from tests.comparison import tree_deviation
from tests.variables import abstract_variables, random_variables

IMAGES = np.random.default_rng(0).standard_normal((4, 8, 8, 3), np.float32)
SMALL: dict[str, Any] = {"stage_sizes": (1, 1), "width": 8, "num_classes": 5}


def shapes(model: ResNet) -> dict[str, tuple[int, ...]]:
    variables = abstract_variables(model, jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32))
    return {"/".join(path): leaf.shape for path, leaf in flatten_dict(variables).items()}


@pytest.mark.parametrize(
    ("name", "overrides", "part", "field", "value"),
    [
        ("resnet50", {"cardinality": 32}, "block", "cardinality", 32),
        ("resnet50", {"base_width": 128}, "block", "base_width", 128),
        ("resnet50", {"reduce_first": 2}, "block", "reduce_first", 2),
        ("resnet50", {"ibn": "a"}, "block", "ibn", "a"),
        ("resnet50_ibn_a", {"ibn": "b"}, "block", "ibn", "b"),
        ("resnet50", {"attention": SqueezeExcite}, "block", "attention", SqueezeExcite),
        ("resnet18", {"spatial_unit": SelectiveKernel}, "block", "spatial_unit", SelectiveKernel),
        ("resnet18", {"antialias": blur_pool}, "block", "antialias", blur_pool),
        ("resnet50", {"average_down": "before"}, "block", "average_down", "before"),
        ("resnet50", {"average_down": "after"}, "block", "average_down", "after"),
        ("resnet50", {"average_down": "behind"}, "block", "average_down", "after"),
        ("resnetv2_50", {"stride_in_1x1": True}, "block", "stride_in_1x1", True),
        ("wrn_16_8", {"block_dropout_rate": 0.3}, "block", "dropout_rate", 0.3),
        ("resnet18", {"bn_decay": 0.99}, "norm", "momentum", 0.99),
        ("resnet18", {"bn_epsilon": 1e-3}, "norm", "epsilon", 1e-3),
        ("resnet18", {"bn_group_size": 32}, "norm", "group_size", 32),
        ("resnet18", {"freeze_bn": ("stem/norm",)}, "norm", "frozen", ("stem/norm",)),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_an_option_arrives_at_its_block_or_layer(
    name: str, overrides: dict[str, Any], part: str, field: str, value: Any
) -> None:
    created = create_model(name, **overrides)
    assert getattr(getattr(created, f"unbound_{part}"), field) == value
    assert created == create_model(name).clone(**overrides)
    assert created != create_model(name)
    # Values that other overrides have set do not change.
    assert created.clone(num_classes=7) == create_model(name, num_classes=7, **overrides)


def test_options_as_a_partial_are_the_same_network() -> None:
    partials = create_model(
        "resnet50",
        block=partial(BottleneckBlock, cardinality=32, base_width=4),
        norm=partial(BatchNorm, epsilon=1e-3),
    )
    assert partials == create_model("resnext50_32x4d", bn_epsilon=1e-3)
    assert shapes(partials) == shapes(create_model("resnext50_32x4d"))
    # An override is added to the options of the partial.
    both = create_model(
        "resnet18", norm=partial(BatchNorm, epsilon=1e-3), bn_decay=0.5
    ).unbound_norm
    assert isinstance(both, BatchNorm)
    assert (both.epsilon, both.momentum) == (1e-3, 0.5)


def test_every_override_is_documented_and_known() -> None:
    fields = {name for name in ResNet.__dataclass_fields__ if name not in ("parent", "name")}
    assert set(Overrides.__annotations__) == fields | set(OPTIONS)
    documentation = inspect.getdoc(create_model) or ""
    for name in Overrides.__annotations__:
        assert f"\n    {name}: " in documentation


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("num_clases", "no override 'num_clases': did you mean num_classes?"),
        ("bn_decai", "no override 'bn_decai': did you mean bn_decay?"),
        ("dropout", "no override 'dropout': did you mean dropout_rate?"),
        ("qqq", r"no override 'qqq': see help\(create_model\)"),
    ],
)
def test_an_unknown_override_is_answered_with_the_nearest(override: str, message: str) -> None:
    with pytest.raises(TypeError, match=message.replace("?", r"\?")):
        create_model("resnet18", **{override: 1})
    with pytest.raises(TypeError, match=override):
        create_model("resnet18").clone(**{override: 1})


def test_a_network_has_a_name_as_in_linen() -> None:
    assert create_model("resnet18", name="backbone").name == "backbone"
    assert create_model("resnet18").name is None
    assert create_model(name="resnet18") == create_model("resnet18")
    with pytest.raises(TypeError, match="needs the name of a network"):
        create_model()

    class Detector(nn.Module):
        @nn.compact
        def __call__(self, images: jax.Array) -> jax.Array:
            return create_model("resnet18", **SMALL, name="backbone")(images, train=False)

    variables = jax.eval_shape(Detector().init, jax.random.key(0), IMAGES)
    assert set(variables["params"]) == {"backbone"}
    assert set(variables["params"]["backbone"]) == {"stem", "stage1", "stage2", "head"}


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("resnext50_32x4d", {"bn_decay": 0.5, "dtype": jnp.bfloat16}),
        ("resnetrs50", {"freeze_bn": ("stem/norm1",)}),
        ("skresnet18", {}),
        ("test_resnet", {"bn_epsilon": 1e-3}),
        ("resnet18_ibn_b", {}),
        ("ecaresnet50d_pruned", {"attention": None}),
        ("resnetblur18", {"average_down": "after"}),
        ("resnetv2_50x1_bit", {"norm": partial(GroupNorm, num_groups=16)}),
        ("wrn_16_8", {"block_dropout_rate": 0.1}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_network_is_a_value(name: str, overrides: dict[str, Any]) -> None:
    model, same = (create_model(name, **overrides) for _ in range(2))
    assert model == same
    assert hash(model) == hash(same)
    for other in (model.clone(num_classes=7), create_model(name, dtype=jnp.float16)):
        assert other != model
    assert copy.deepcopy(model) == model
    assert pickle.loads(pickle.dumps(model)) == model


def test_an_option_changes_every_block_that_has_it() -> None:
    model = create_model("test_resnet", cardinality=2, width=8)
    kernels = shapes(model)
    assert model.stage_widths == (8, 16, 32, 64)
    assert kernels["params/stage1/block1/conv1/kernel"] == (3, 3, 32, 8)
    assert kernels["params/stage3/block1/conv2/kernel"] == (3, 3, 32, 64)
    with pytest.raises(ValueError, match="block_dropout_rate does nothing with BasicBlock"):
        model.clone(block_dropout_rate=0.1)


def test_blocks_can_be_listed_by_stage_and_by_block() -> None:
    blocks = (BasicBlock, (partial(BasicBlock, widths=(3, 24)), BottleneckBlock))
    model = create_model("resnet18", stage_sizes=(1, 2), width=(8, 6), block=blocks)
    kernels = shapes(model)
    assert kernels["params/stage1/block1/conv2/kernel"] == (3, 3, 8, 8)
    assert kernels["params/stage2/block1/conv1/kernel"] == (3, 3, 8, 3)
    assert kernels["params/stage2/block2/conv3/kernel"] == (1, 1, 6, 24)
    assert [info.channels for info in model.feature_info.values()] == [8, 8, 24]


def test_a_value_that_is_the_default_changes_nothing() -> None:
    model = create_model("resnet18")
    assert model.clone(bn_decay=0.5).clone(bn_decay=0.9) == model
    assert create_model("resnet18", norm=partial(BatchNorm, epsilon=1e-5)) == model
    assert create_model("resnet18", cardinality=1, block_dropout_rate=0.0).block is BasicBlock


def test_equal_networks_are_compiled_once() -> None:
    traced = []

    @partial(jax.jit, static_argnums=0)
    def channels(model: ResNet, x: jax.Array) -> jax.Array:
        traced.append(model)
        return x * model.width

    for _ in range(2):
        channels(create_model("resnet50", bn_epsilon=1e-3), jnp.ones(()))
    channels(create_model("resnet50", bn_epsilon=1e-4), jnp.ones(()))
    assert len(traced) == 2


def test_layers_are_frozen_by_their_paths() -> None:
    model = create_model("cifar_resnet20", **SMALL)
    variables = random_variables(model, IMAGES)
    frozen = ("stem/norm", "stage2/block1/norm2")

    @partial(jax.jit, static_argnums=0)
    def updated(model: ResNet, variables: Any) -> Any:
        return model.apply(variables, IMAGES, train=True, mutable=["batch_stats"])[1]

    before: dict[str, Any] = flatten_dict(variables["batch_stats"], sep="/")
    after: dict[str, Any] = flatten_dict(
        updated(model.clone(freeze_bn=frozen), variables)["batch_stats"], sep="/"
    )
    unchanged = {path for path, leaf in after.items() if np.array_equal(leaf, before[path])}
    assert unchanged == {f"{path}/{leaf}" for path in frozen for leaf in ("mean", "var")}
    with pytest.raises(
        ValueError, match=r"freeze_bn must be True, False or a tuple of module paths"
    ):
        model.clone(freeze_bn="stem/norm")


def test_a_layer_to_freeze_must_exist() -> None:
    model = create_model("cifar_preresnet110", **SMALL)
    variables = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), IMAGES)

    def trace(model: ResNet, method: str) -> Any:
        if method == "init":
            return jax.eval_shape(partial(model.init, train=False), jax.random.key(0), IMAGES)
        apply = partial(model.apply, train=True, method=method, mutable=["batch_stats"])
        return jax.eval_shape(apply, variables, IMAGES)

    for method in ("init", "__call__", "features"):
        trace(model.clone(freeze_bn=("stage1/block1/norm1", "final_norm")), method)
        for path, near in [
            ("stage1/block1/nrom1", "'stage1/block1/norm1'"),
            ("finalnorm", "'final_norm'"),
            ("norm1", "'stage1/block1/norm1'"),
            ("xyzzy", "such as '"),
        ]:
            with pytest.raises(ValueError, match=f"no BatchNorm '{path}'; .*{near}"):
                trace(model.clone(freeze_bn=(path,)), method)


def test_a_layer_is_frozen_in_a_network_that_is_part_of_another() -> None:
    class Detector(nn.Module):
        """A module that contains a network."""

        @nn.compact
        def __call__(self, images: jax.Array) -> jax.Array:
            backbone = create_model("cifar_resnet20", **SMALL, freeze_bn=frozen, name="backbone")
            return backbone(images, train=True)

    frozen = ("stem/norm",)
    detector = Detector()
    variables = detector.init(jax.random.key(0), IMAGES)
    _, updated = jax.jit(partial(detector.apply, mutable=["batch_stats"]))(variables, IMAGES)
    before, after = (
        flatten_dict(tree["batch_stats"]["backbone"], sep="/") for tree in (variables, updated)
    )
    unchanged = {path for path, leaf in after.items() if np.array_equal(leaf, before[path])}
    assert unchanged == {"stem/norm/mean", "stem/norm/var"}


def test_a_mask_reaches_every_batch_norm() -> None:
    model = create_model("resnest14d", stage_sizes=(1,), width=16, small_input=True)
    variables = random_variables(model, IMAGES)

    @jax.jit
    def statistics(variables: Any, images: jax.Array, mask: jax.Array | None) -> Any:
        return model.apply(variables, images, train=True, mask=mask, mutable=["batch_stats"])[1]

    masked = statistics(variables, IMAGES, jnp.arange(4) < 3)
    assert tree_deviation(masked, statistics(variables, IMAGES[:3], None)) < 1e-5
