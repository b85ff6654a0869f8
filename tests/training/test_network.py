"""The network of an experiment: its fields, and the layers that fine-tuning freezes."""

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from resnet_jax.config import (
    ConfigError,
    FinetuneConfig,
    ModelConfig,
    SyntheticConfig,
    TrainConfig,
)
from resnet_jax.inference.spec import ModelSpec
from resnet_jax.models import create_model
from resnet_jax.models.layers import (
    StandardizedConv,
    blurred_conv,
    fan_in_kernel,
    uniform_scale,
    zero_padded_blurred_max_pool,
)
from resnet_jax.training.description import describe
from resnet_jax.training.network import create_network, frozen_statistics
from resnet_jax.training.prefetch import Prefetch
from resnet_jax.training.rundir.workdir import Workdir
from resnet_jax.training.setup import Run
from tests.variables import abstract_variables

CONFIG = TrainConfig(
    model=ModelConfig("resnet18"),
    data=SyntheticConfig(image_size=16, num_classes=10, train_examples=64, test_examples=8),
    batch_size=8,
    epochs=1,
)


def network(**fields: Any) -> Any:
    model = ModelConfig(**{"name": "resnet18", **fields})
    return create_network(dataclasses.replace(CONFIG, model=model), 1)


def program(model: Any) -> str:
    images = jnp.zeros((1, 32, 32, 3))
    variables = abstract_variables(model, images)
    return str(jax.make_jaxpr(lambda v, x: model.apply(v, x, train=False))(variables, images))


def test_fields_that_are_not_set_leave_the_network_its_own() -> None:
    assert "batch_stats" not in abstract_variables(
        network(name="resnet50_gn"), np.zeros((1, 32, 32, 3))
    )
    assert "batch_stats" in abstract_variables(
        network(name="resnet50_gn", norm="batch"), np.zeros((1, 32, 32, 3))
    )
    assert "batch_stats" not in abstract_variables(network(norm="group"), np.zeros((1, 32, 32, 3)))
    assert program(network(act="relu")) == program(network())


@pytest.mark.parametrize(("norm", "leaf"), [("evo", "slope"), ("filter_response", "threshold")])
def test_each_normalization_is_that_of_its_name(norm: str, leaf: str) -> None:
    variables = abstract_variables(network(name="resnetv2_18", norm=norm), np.zeros((1, 32, 32, 3)))
    assert leaf in variables["params"]["stage4"]["block2"]["norm2"]
    assert "batch_stats" not in variables


@pytest.mark.parametrize("act", ["leaky_relu", "silu", "gelu", "mish", "elu"])
def test_each_activation_is_that_of_its_name(act: str) -> None:
    x = jnp.linspace(-3, 3, 7)
    expected = {
        "leaky_relu": np.where(x > 0, x, 0.01 * x),
        "silu": x / (1 + np.exp(-x)),
        "gelu": jax.nn.gelu(x),
        "mish": x * np.tanh(np.log1p(np.exp(x))),
        "elu": np.where(x > 0, x, np.expm1(x)),
    }
    np.testing.assert_allclose(network(act=act).act(x), expected[act], rtol=1e-5, atol=1e-6)


def test_ingredients_of_recipes_are_those_of_their_names() -> None:
    blurred = network(conv="blurred", stem_pool="blurred_max")
    assert blurred == create_model(
        "resnet18",
        conv=blurred_conv,
        stem_pool=zero_padded_blurred_max_pool,
        zero_init_residual=True,
    )
    initial = network(
        conv="blurred", conv_init="fan_in", norm_scale_init="uniform", head_bias_init=-2.0
    )
    assert initial == create_model(
        "resnet18",
        conv=partial(blurred_conv, kernel_init=fan_in_kernel),
        norm_scale_init=uniform_scale,
        head_bias_init=-2.0,
        zero_init_residual=True,
    )
    standardized = network(name="resnet50_gn", conv="standardized")
    assert standardized == create_model(
        "resnet50_gn", conv=StandardizedConv, zero_init_residual=True
    )
    rates = {"drop_path_rate": 0.1, "drop_path_rule": "stage", "drop_block_rate": 0.2}
    dropping = network(**rates)
    assert dropping == create_model("resnet18", zero_init_residual=True, **rates)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "resnetv2_50x1_bit", "conv": "blurred"}, "conv and conv_init are for plain"),
        ({"name": "nf_resnet26", "conv_init": "fan_in"}, "conv and conv_init are for plain"),
        ({"stem_pool": "blurred_max", "small_input": True}, "which the stem of resnet18 does not"),
        ({"name": "resnetv2_50", "drop_block_rate": 0.1}, "unlike the PreActivationBottleneck"),
        ({"name": "nf_resnet26", "norm_scale_init": "uniform"}, "norm_scale_init does nothing"),
    ],
)
def test_ingredients_are_refused_where_they_do_nothing(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        network(**fields)


def test_a_finished_run_rebuilds_its_blurred_network() -> None:
    model = ModelConfig("resnet18", conv="blurred", stem_pool="blurred_max")
    run = Run.create(dataclasses.replace(CONFIG, model=model), jax.devices()[:1])
    spec = ModelSpec.from_json(json.loads(json.dumps(run.spec.to_json())))
    assert spec.create().conv is blurred_conv
    assert spec.create().stem_pool is zero_padded_blurred_max_pool


def test_stem_and_stride_can_be_chosen() -> None:
    images = jnp.zeros((1, 64, 64, 3))

    def last_map(model: Any) -> tuple[int, ...]:
        variables = abstract_variables(model, images)
        features = jax.eval_shape(
            lambda v: model.apply(v, images, train=False, method="features"), variables
        )
        return features["stage4"].shape

    assert last_map(network()) == (1, 2, 2, 512)
    assert last_map(network(output_stride=16)) == (1, 4, 4, 512)
    assert last_map(network(small_input=True)) == (1, 8, 8, 512)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "cifar_resnet20", "norm": "group"}, "GroupNorm cannot split 16 channels into 32"),
        ({"norm": "group", "bn_decay": 0.5}, "bn_decay does nothing with GroupNorm"),
        ({"norm": "evo"}, "EvoNorm activates, .* take a pre-activation network"),
        (
            {"name": "resnetv2_18", "norm": "filter_response", "act": "gelu"},
            "act does nothing with FilterResponseNorm",
        ),
        ({"name": "wrn_16_8", "norm": "evo"}, "EvoNorm cannot split 16 channels into 32 groups"),
        ({"name": "nf_resnet26", "norm": "evo"}, "without normalization needs norm=NoNorm"),
        ({"name": "resnet81"}, "unknown model 'resnet81': did you mean"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        network(**fields)
    assert "\n" not in str(error.value)


def test_other_channels_than_those_of_the_data_are_refused_with_both_numbers() -> None:
    config = dataclasses.replace(CONFIG, model=ModelConfig("resnet18", in_channels=4))
    with pytest.raises(
        ConfigError, match=r"model\.in_channels is 4, but the images of synthetic have 3 channels"
    ):
        Run.create(config)
    same = dataclasses.replace(CONFIG, model=ModelConfig("resnet18", in_channels=3))
    assert Run.create(same).model.in_channels == 3


@pytest.mark.parametrize("scan", [False, True])
def test_layers_whose_scale_and_bias_are_frozen_are_found(scan: bool) -> None:
    # Stages of five blocks are scanned.
    model = create_network(
        dataclasses.replace(CONFIG, model=ModelConfig("cifar_resnet32", scan=scan)), 1
    )
    variables = abstract_variables(model, jnp.zeros((1, 8, 8, 3)))

    def found(*freeze: str, freeze_statistics: bool = True) -> set[str]:
        config = FinetuneConfig(freeze=freeze, freeze_statistics=freeze_statistics)
        return set(frozen_statistics(variables, config))

    blocks = ["block1", "blocks"] if scan else [f"block{i}" for i in range(1, 6)]
    stage1 = {f"stage1/{block}/norm{i}" for block in blocks for i in (1, 2)}
    assert found() == set()
    assert found("stem") == {"stem/norm"}
    assert found("stem", "stage1/") == {"stem/norm"} | stage1
    assert found("stem", freeze_statistics=False) == set()
    # The bias is trained, or there is no such layer at all.
    assert found("stem/norm/scale") == found("stem/conv") == found("head") == set()


def test_a_network_with_frozen_layers_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    def create(name: str, **overrides: Any) -> Any:
        built.append(name)
        return create_model(name, **overrides)

    monkeypatch.setattr("resnet_jax.training.network.create_model", create)
    finetune = FinetuneConfig(freeze=("stem",))
    model = create_network(dataclasses.replace(CONFIG, finetune=finetune), 1)
    assert built == ["resnet18"]
    assert model == network().clone(freeze_bn=("stem/norm",))


@pytest.mark.parametrize(
    ("scan", "freeze_statistics"), [(False, True), (False, False), (True, True)]
)
def test_frozen_statistics_stay_and_the_others_move(
    scan: bool, freeze_statistics: bool, tmp_path: Path
) -> None:
    name = "cifar_resnet32" if scan else "cifar_resnet20"
    model = ModelConfig(name, scan=scan, zero_init_residual=False)
    finetune = FinetuneConfig(freeze=("stem", "stage1"), freeze_statistics=freeze_statistics)
    run = Run.create(dataclasses.replace(CONFIG, model=model, finetune=finetune), jax.devices()[:1])
    with Workdir(tmp_path, run.config) as workdir:
        described = describe(run, workdir)["BatchNorm"]
    suffix = ", frozen in layers that match stem, stage1" if freeze_statistics else ""
    assert described == f"statistics of the batch{suffix}"
    train_step, _ = run.compile()
    state = run.create_state()
    before = jax.device_get(state.variables)
    drawn = run.dataset.train.train_batches(8, seed=0, start_step=0)
    with Prefetch(drawn, run.mesh) as batches:
        for _ in range(3):
            state, _ = train_step(state, next(batches), run.step_key)
    for collection in ("params", "batch_stats"):
        after: Any = flatten_dict(jax.device_get(state.variables[collection]))
        for path, leaf in flatten_dict(before[collection]).items():
            frozen = path[0] in ("stem", "stage1")
            stays = frozen and (collection == "params" or freeze_statistics)
            assert np.array_equal(after[path], leaf) == stays, path
