"""Configurations are written and read as JSON, also as JSON of older and newer versions."""

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

import pytest

from resnet_jax.config import (
    AveragingConfig,
    ConfigError,
    CosineConfig,
    DigitsConfig,
    FinetuneConfig,
    FocalConfig,
    FolderConfig,
    ImageConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    SGDConfig,
    SigmoidConfig,
    SoftmaxConfig,
    StepsConfig,
    TrainConfig,
    changed_fields,
    differing_fields,
)
from resnet_jax.config.experiments import list_experiments, load_experiment
from resnet_jax.config.serialization import SCHEMA_VERSION
from resnet_jax.training.opening import open_run

EVERYTHING = TrainConfig(
    model=ModelConfig("resnet18", weights="hf://timm/x", act="silu", norm="group", in_channels=3),
    data=FolderConfig("images", images=ImageConfig(crop_scale=(0.2, 0.9), on_unreadable="skip")),
    optimizer=SGDConfig(learning_rate=0.3),
    schedule=StepsConfig(warmup_epochs=1.0, decay_epochs=(2.0, 3.5)),
    finetune=FinetuneConfig(freeze=("stem", "stage[12]"), layer_decay=0.8),
    epochs=4,
    averaging=AveragingConfig(decay=0.9),
)


def plain(config: TrainConfig = EVERYTHING) -> Any:
    """Return the JSON of a configuration after writing it as text and parsing the text again."""
    return json.loads(json.dumps(config.to_json()))


@pytest.mark.parametrize("name", list_experiments())
def test_every_experiment_comes_back(name: str) -> None:
    config = load_experiment(name).config
    assert TrainConfig.from_json(plain(config)) == config


@pytest.mark.parametrize(
    "loss",
    [
        SoftmaxConfig(0.1, class_weights=(1.0, 0.5)),
        SigmoidConfig(target_threshold=0.2, class_weights="balanced"),
        FocalConfig("sigmoid", alpha=0.25, logit_adjustment=1.0),
    ],
    ids=["softmax", "sigmoid", "focal"],
)
def test_every_loss_comes_back(loss: LossConfig) -> None:
    config = dataclasses.replace(EVERYTHING, loss=loss)
    assert TrainConfig.from_json(plain(config)) == config
    given = plain()
    given["loss"] = {"kind": "softmax", "class_weights": "heavy"}
    with pytest.raises(ConfigError, match="class_weights must be one of 'none', 'balanced'"):
        TrainConfig.from_json(given)


def test_every_kind_of_value_comes_back() -> None:
    config = TrainConfig.from_json(plain())
    assert config == EVERYTHING
    assert isinstance(config.schedule, StepsConfig)
    assert config.schedule.decay_epochs == (2.0, 3.5)
    # Whole numbers in JSON get the type of the field.
    assert isinstance(config.epochs, float)
    assert plain()["schema_version"] == SCHEMA_VERSION == 3
    kinds = {part: plain()[part]["kind"] for part in ("data", "optimizer", "schedule")}
    assert kinds == {"data": "folder", "optimizer": "sgd", "schedule": "steps"}


@pytest.mark.parametrize("kind", get_args(OptimizerConfig), ids=lambda kind: kind.kind)
def test_every_optimizer_comes_back(kind: Any) -> None:
    changed = dataclasses.replace(EVERYTHING, optimizer=kind(decay_on="all_but_named_norm"))
    assert TrainConfig.from_json(plain(changed)) == changed


def test_an_experiment_is_composed_from_another() -> None:
    base = load_experiment("digits-resnet20").config
    config = dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, dropout_rate=0.1),
        schedule=StepsConfig(warmup_epochs=1.0, decay_epochs=(10.0,)),
    )
    assert TrainConfig.from_json(plain(config)) == config
    names = [line.partition(":")[0] for line in differing_fields(config, base)]
    assert names == [
        "model.dropout_rate", "schedule.kind", "schedule.warmup_epochs", "schedule.decay_epochs",
        "schedule.decay_factor", "schedule.hold_epochs", "schedule.end", "schedule.warmup_prefix",
        "schedule.warmup_target",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"decay_epochs \(10.0,\) must be below epochs \(5.0\)"):
        dataclasses.replace(config, epochs=5.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate_scaling": "sqrt"}, "learning_rate_scaling must be one of 'none'"),
        ({"optimizer": SGDConfig(decay="couple")}, r"^optimizer\.decay must be one of 'coupled'"),  # pyrefly: ignore[bad-argument-type]
        ({"batch_size": 8.0}, r"^batch_size must be int, but it is 8\.0"),
        ({"data": FolderConfig(Path("images"))}, r"is (Posix|Windows)Path\('images'\)"),  # pyrefly: ignore[bad-argument-type]
    ],
)
def test_a_value_of_another_type_is_refused(changes: dict[str, Any], message: str) -> None:
    config = dataclasses.replace(EVERYTHING, **changes)
    with pytest.raises(ConfigError, match=message):
        config.check_types()
    with pytest.raises(ConfigError, match=message):
        open_run(config, read_weights=False)


def test_a_missing_field_takes_its_default() -> None:
    fields = plain()
    del (
        fields["seed"],
        fields["finetune"],
        fields["model"]["act"],
        fields["schedule"]["decay_factor"],
    )
    assert TrainConfig.from_json(fields) == dataclasses.replace(
        EVERYTHING,
        finetune=FinetuneConfig(),
        model=dataclasses.replace(EVERYTHING.model, act=None),
    )


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("sede", 1, "sede is not a field of TrainConfig, which has model, data,"),
        ("model.nmae", "x", "model.nmae is not a field of ModelConfig"),
        ("data.images.augment.flop", 1, "data.images.augment.flop is not a field of AugmentConfig"),
        ("batch_size", "64", "batch_size must be int, but it is '64'"),
        ("batch_size", 64.5, "batch_size must be int, but it is 64.5"),
        ("seed", True, "seed must be int, but it is True"),
        ("epochs", None, "epochs must be float, but it is None"),
        ("optimizer.nesterov", 1, "optimizer.nesterov must be bool, but it is 1"),
        (
            "model.dtype",
            "float8",
            "model.dtype must be one of 'float32', 'bfloat16', 'float16', but",
        ),
        ("model.bn_group_size", "all", "model.bn_group_size must be int or one of 'batch', 'dev"),
        ("model", 3, "model must be ModelConfig, but it is 3"),
        (
            "schedule.decay_epochs",
            [1, "2"],
            "schedule.decay_epochs[1] must be float, but it is '2'",
        ),
        (
            "data.images.crop_scale",
            [0.1],
            "data.images.crop_scale must be tuple[float, float]",
        ),
        (
            "data.kind",
            "web",
            "data.kind must be one of digits, synthetic, folder, tfds, tfds_ar",
        ),
        ("optimizer.kind", None, "optimizer.kind must be one of sgd, adamw, lamb,"),
        ("data.kind", [1], "data.kind must be one of digits, synthetic, folder, tfds, tfds_ar"),
        ("model.act", 1, "model.act must be one of 'relu', 'leaky_relu', 'silu', 'gelu', 'mish', "),
        ("data.path", ..., "data.path is missing"),
        ("model", ..., "model is missing"),
        ("optimizer.momentum", 1.0, "momentum must be in [0, 1), but it is 1.0"),
        ("schema_version", 4, "the configuration has schema version 4, and this version of resnet"),
        ("schema_version", "3", "the configuration has schema version '3'"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(path: str, value: Any, message: str) -> None:
    fields = part = copy.deepcopy(plain())
    *parents, name = path.split(".")
    for parent in parents:
        part = part[parent]
    part.pop(name, None) if value is ... else part.update({name: value})
    with pytest.raises(ConfigError) as error:
        TrainConfig.from_json(fields)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a configuration must be a JSON object, not \[1\]"):
        TrainConfig.from_json([1])


def test_version_1_had_schedule_and_fine_tuning_within_the_optimizer() -> None:
    fields = {
        "model": {"name": "resnet18"},
        "data": {"kind": "DigitsConfig", "image_size": 12},
        "optimizer": {
            "learning_rate": 0.3,
            "warmup_epochs": 2.0,
            "schedule": "cosine",
            "decay_epochs": [30.0, 60.0, 80.0],
            "decay_factor": 0.1,
            "freeze": [],
            "layer_decay": 1.0,
        },
        "epochs": 10,
    }
    expected = TrainConfig(
        model=ModelConfig("resnet18"),
        data=DigitsConfig(image_size=12),
        optimizer=SGDConfig(learning_rate=0.3),
        schedule=CosineConfig(warmup_epochs=2.0),
        epochs=10.0,
    )
    assert TrainConfig.from_json(fields) == expected
    fields["optimizer"] |= {"schedule": "steps", "decay_epochs": [5.0], "freeze": ["stem"]}
    assert TrainConfig.from_json(fields) == dataclasses.replace(
        expected,
        schedule=StepsConfig(warmup_epochs=2.0, decay_epochs=(5.0,)),
        # Version 1 froze parameters, but not the running statistics.
        finetune=FinetuneConfig(freeze=("stem",), freeze_statistics=False),
    )
    for part in ("optimizer", "data"):
        with pytest.raises(ConfigError, match=part):
            TrainConfig.from_json(fields | {part: "none"})
    with pytest.raises(ConfigError, match=r"optimizer\.rate is not a field"):
        TrainConfig.from_json(fields | {"optimizer": {"rate": 1.0}})


def test_version_2_had_loss_and_averages_among_the_other_fields() -> None:
    fields = plain() | {"schema_version": 2}
    for name in ("loss", "averaging"):
        del fields[name]
    del fields["optimizer"]["decay_on"]
    fields["optimizer"]["decay_norm_and_bias"] = True
    fields |= {"label_smoothing": 0.1, "ema_decay": 0.9, "ema_warmup": True}
    assert TrainConfig.from_json(fields) == dataclasses.replace(
        EVERYTHING,
        optimizer=SGDConfig(learning_rate=0.3, decay_on="all"),
        loss=SoftmaxConfig(label_smoothing=0.1),
        averaging=AveragingConfig(decay=0.9, warmup="tensorflow"),
    )


@pytest.mark.parametrize(("epochs", "warmup"), [(10.0, 5.0), (5.0, 0.5), (1.0, 0.1)])
def test_a_warm_up_as_long_as_the_run_is_shortened(epochs: float, warmup: float) -> None:
    schedule = CosineConfig(warmup_epochs=5.0)
    assert schedule.warmup(epochs) == warmup

    def steps(epochs: float) -> int:
        return round(100 * epochs)

    rates = schedule.create(0.4, epochs=epochs, steps=steps)
    assert float(rates(steps(warmup))) == pytest.approx(0.4)
    assert float(rates(steps(warmup) - 1)) < 0.4
    assert float(rates(steps(epochs))) == pytest.approx(0, abs=1e-6)


def test_the_changed_fields_are_those_that_make_the_difference() -> None:
    changes = {name: (value, default) for name, value, default, _ in changed_fields(EVERYTHING)}
    assert changes == {
        "model.name": ("resnet18", None),
        "model.weights": ("hf://timm/x", None),
        "model.act": ("silu", None),
        "model.norm": ("group", None),
        "model.in_channels": (3, None),
        "data.kind": ("folder", None),
        "data.path": ("images", None),
        "data.images.crop_scale": ((0.2, 0.9), (0.08, 1.0)),
        "data.images.on_unreadable": ("skip", "fail"),
        "optimizer.learning_rate": (0.3, 0.1),
        "schedule.kind": ("steps", "cosine"),
        "schedule.warmup_epochs": (1.0, 5.0),
        "schedule.decay_epochs": ((2.0, 3.5), (30.0, 60.0, 80.0)),
        "finetune.freeze": (("stem", "stage[12]"), ()),
        "finetune.layer_decay": (0.8, 1.0),
        "epochs": (4, 90.0),
        "averaging.decay": (0.9, 0.0),
    }
    required = {name for name, *_, required in changed_fields(EVERYTHING) if required}
    assert required == {"model.name", "data.kind", "data.path"}
