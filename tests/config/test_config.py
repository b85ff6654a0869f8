"""Impossible values in a configuration are refused in one line that names them."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from resnet_jax.config import (
    AdamWConfig,
    AugmentConfig,
    AveragingConfig,
    CheckpointConfig,
    ClipConfig,
    ConfigError,
    CosineConfig,
    DigitsConfig,
    DistillationConfig,
    DistributedConfig,
    FinetuneConfig,
    FocalConfig,
    FolderConfig,
    IdxConfig,
    ImageConfig,
    LambConfig,
    LarsConfig,
    LionConfig,
    ModelConfig,
    MuonConfig,
    ResizingConfig,
    RmspropConfig,
    SamplingConfig,
    SGDConfig,
    SigmoidConfig,
    SoftmaxConfig,
    StepsConfig,
    SyntheticConfig,
    TrainConfig,
    differing_fields,
)

BASE = TrainConfig(model=ModelConfig("resnet50"), data=SyntheticConfig())


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (TrainConfig, {"epochs": -1.0}, "epochs must be above 0 and finite, but it is -1.0"),
        (TrainConfig, {"epochs": math.nan}, "epochs must be above 0 and finite"),
        (TrainConfig, {"batch_size": 0}, "batch_size must be above 0"),
        (TrainConfig, {"seed": -1}, "seed must be finite and not below 0"),
        (SoftmaxConfig, {"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\)"),
        (SoftmaxConfig, {"class_weights": (1.0, -1.0)}, "not negative and not all 0"),
        (SoftmaxConfig, {"class_weights": ()}, "not negative and not all 0"),
        (SoftmaxConfig, {"effective_number_beta": 1.0}, r"beta must be in \[0, 1\)"),
        (SoftmaxConfig, {"logit_adjustment": -1.0}, "logit_adjustment must be finite and not"),
        (SigmoidConfig, {"label_smoothing": -0.1}, r"label_smoothing must be in \[0, 1\)"),
        (SigmoidConfig, {"target_threshold": 1.0}, r"target_threshold must be in \[0, 1\)"),
        (FocalConfig, {"gamma": -1.0}, "gamma must be finite and not below 0"),
        (FocalConfig, {"alpha": 0.25}, 'needs form "sigmoid"'),
        (DistillationConfig, {"weight": 0.0}, "weight must be above 0 and at most 1"),
        (DistillationConfig, {"temperature": 0.0}, "temperature must be above 0"),
        (SamplingConfig, {"epoch_multiple": 0}, "epoch_multiple must be above 0"),
        (TrainConfig, {"evaluate_every_epochs": 0.0}, "evaluate_every_epochs must be above 0"),
        (AveragingConfig, {"decay": 1.0}, r"decay must be in \[0, 1\)"),
        (
            AveragingConfig,
            {"warmup": "tensorflow"},
            "averaging.warmup needs averaging.decay above 0",
        ),
        (ModelConfig, {"name": "resnet50", "bn_decay": 1.0}, r"bn_decay must be in \[0, 1\)"),
        (ModelConfig, {"name": "resnet50", "drop_path_rate": 1.0}, r"drop_path_rate must be in"),
        (ModelConfig, {"name": "resnet50", "drop_block_rate": -0.1}, r"drop_block_rate must be in"),
        (ModelConfig, {"name": "resnet50", "head_bias_init": math.inf}, "head_bias_init must be"),
        (
            TrainConfig,
            {
                "resizing": ResizingConfig(initial_size=8, end_epoch=1, batch_sizes=((8, 8),)),
                "averaging": AveragingConfig(half_life_steps=9.0, every_steps="epoch"),
            },
            "makes the number of steps differ between epochs",
        ),
        (
            TrainConfig,
            {"epochs": 7.0, "resizing": ResizingConfig(initial_size=8, end_epoch=6.5)},
            r"end_epoch \(6\.5\) leaves no epoch of 7 with images of full size",
        ),
        (ResizingConfig, {"batch_sizes": ((8, 8),)}, "batch_sizes needs initial_size"),
        (ResizingConfig, {"initial_size": 8}, "end_epoch must be above 0"),
        (ResizingConfig, {"initial_size": 8, "start_epoch": 2, "end_epoch": 1}, "not be above end"),
        (ResizingConfig, {"multiple_of": 0}, "multiple_of must be above 0"),
        (ResizingConfig, {"batch_sizes": ((8, 0),)}, "batch_sizes must be pairs of numbers above"),
        (ResizingConfig, {"batch_sizes": ((8, 1), (8, 2))}, "must list every image size once"),
        (AugmentConfig, {"flip": 0.0, "flip_mode": "alternating"}, "but flip is 0; set flip above"),
        (
            ImageConfig,
            {"repeats": 2, "augment": AugmentConfig(mixup_alpha=0.2, mix_partner="roll")},
            "the 2 repeats of an image are neighbors in the batch; use random or flip",
        ),
        (
            TrainConfig,
            {
                "data": FolderConfig("photos", sampling=SamplingConfig("square_root")),
                "loss": SoftmaxConfig(class_weights="balanced"),
            },
            "correct twice for classes of different sizes",
        ),
        (
            TrainConfig,
            {
                "data": IdxConfig("mnist", sampling=SamplingConfig("balanced")),
                "loss": SoftmaxConfig(logit_adjustment=1.0),
            },
            "correct twice for classes of different sizes",
        ),
        (
            TrainConfig,
            {"optimizer": LambConfig(), "clip": ClipConfig(global_norm=5.0)},
            r"leave out clip\.global_norm and set optimizer\.max_gradient_norm",
        ),
        (AveragingConfig, {"recompute_batches": 9}, 'recompute_batches needs statistics "recomp'),
        (ImageConfig, {"eval_image_size": 0}, "eval_image_size must be above 0"),
        (ModelConfig, {"name": "resnet50", "bn_epsilon": 0.0}, "bn_epsilon must be above 0"),
        (ModelConfig, {"name": "resnet50", "weights_prefix": "x."}, "weights_prefix needs weights"),
        (DistributedConfig, {"num_processes": 2}, "not only some of them; or auto"),
        (DistributedConfig, {"auto": True, "process_id": 0}, "give either it or them"),
        (DistributedConfig, {"heartbeat_timeout": 0}, "heartbeat_timeout must be above 0"),
        (
            DistributedConfig,
            {"coordinator_address": "node1", "num_processes": 2, "process_id": 0},
            "coordinator_address must be HOST:PORT, not 'node1'",
        ),
        (
            DistributedConfig,
            {"coordinator_address": "node1:1234", "num_processes": 2, "process_id": 2},
            r"process_id must be from 0 to below num_processes \(2\), not 2",
        ),
        (SGDConfig, {"learning_rate": math.inf}, "learning_rate must be above 0 and finite"),
        (SGDConfig, {"momentum": 1.0}, r"momentum must be in \[0, 1\)"),
        (SGDConfig, {"momentum": 0.0}, "nesterov needs momentum above 0"),
        (AdamWConfig, {"epsilon": 0.0}, "epsilon must be above 0"),
        (LambConfig, {"beta2": 1.0}, r"beta2 must be in \[0, 1\)"),
        (LambConfig, {"max_gradient_norm": 0.0}, "max_gradient_norm must be above 0"),
        (LarsConfig, {"trust_coefficient": 0.0}, "trust_coefficient must be above 0"),
        (RmspropConfig, {"alpha": -0.1}, r"alpha must be in \[0, 1\)"),
        (LionConfig, {"learning_rate": 0.0}, "learning_rate must be above 0"),
        (MuonConfig, {"iterations": 0}, "iterations must be above 0"),
        (MuonConfig, {"momentum": 0.0}, "nesterov needs momentum above 0"),
        (
            MuonConfig,
            {"renormalize": True, "weight_decay": 0.1},
            r"which weight_decay \(0\.1\) would change",
        ),
        (
            TrainConfig,
            {
                "optimizer": MuonConfig(renormalize=True),
                "finetune": FinetuneConfig(layer_decay=0.9),
            },
            r"finetune\.layer_decay \(0\.9\) would undo; set renormalize to False",
        ),
        (ClipConfig, {"adaptive": 0.0}, "adaptive must be above 0"),
        (FinetuneConfig, {"freeze": ("stem(",)}, r"freeze: 'stem\(' is not a regular expression"),
        (FinetuneConfig, {"layer_decay": 0.0}, r"layer_decay must be in \(0, 1\]"),
        (CosineConfig, {"granularity": "epoch"}, "whole first epoch at a learning rate of 0; set"),
        (CosineConfig, {"warmup_epochs": -1.0}, "warmup_epochs must be finite and not below 0"),
        (
            StepsConfig,
            {"decay_epochs": (30.0, 20.0)},
            "decay_epochs must rise, and not come before the end of the warm-up",
        ),
        (
            TrainConfig,
            {"schedule": StepsConfig(decay_epochs=(30.0, 90.0))},
            r"decay_epochs \(30.0, 90.0\) must be below epochs \(90.0\)",
        ),
        (SGDConfig, {"weight_decay": -1e-4}, "weight_decay must be finite and not below 0"),
        (DigitsConfig, {"image_size": 0}, "image_size must be above 0"),
        (DigitsConfig, {"max_shift": -1.0}, "max_shift must be finite and not below 0"),
        (SyntheticConfig, {"num_classes": 0}, "num_classes must be above 0"),
        (CheckpointConfig, {"keep_latest": 0}, "keep_latest must be above 0"),
        (CheckpointConfig, {"keep_best": -1}, "keep_best must be finite and not below 0"),
    ],
)
def test_impossible_values_are_named(kind: type, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        dataclasses.replace(BASE, **values) if kind is TrainConfig else kind(**values)
    assert "\n" not in str(error.value)


def test_a_batch_that_devices_cannot_share_is_refused_with_the_nearest_ones() -> None:
    config = dataclasses.replace(BASE, batch_size=100)
    config.check_devices(4)
    with pytest.raises(ConfigError, match=r"100 .* evenly by 8 devices; use 96 or 104"):
        config.check_devices(8)
    with pytest.raises(ConfigError, match=r"use 128$"):
        config.check_devices(128)


def test_groups_of_batch_norm_follow_from_batch_and_devices() -> None:
    def size(bn_group_size: Any, num_devices: int = 8) -> int | None:
        model = ModelConfig("resnet18", bn_group_size=bn_group_size)
        config = TrainConfig(model=model, data=SyntheticConfig(), batch_size=64)
        return config.statistics_size(num_devices)

    assert size("batch") is None
    assert size("device") == 8
    assert size("device", 2) == 32
    assert size(16) == size(16, 4) == 16
    with pytest.raises(ConfigError, match=r"64 has no whole groups of model\.bn_group_size 24"):
        size(24)
    with pytest.raises(ConfigError, match="bn_group_size must be above 0"):
        size(0)


def test_steps_are_the_nearest_to_the_epochs() -> None:
    config = dataclasses.replace(BASE, batch_size=64)
    assert config.steps(30, 1437) == 674
    assert config.steps(0.001, 1437) == 1


def test_every_field_has_a_docstring_of_its_own() -> None:
    import ast

    from resnet_jax import config

    modules = Path(config.__file__).parent.glob("*.py")
    classes = [
        node
        for module in modules
        for node in ast.parse(module.read_text()).body
        if isinstance(node, ast.ClassDef)
    ]
    assert len(classes) > 10
    for node in classes:
        for field, following in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and "ClassVar" not in ast.unparse(field):
                assert isinstance(following, ast.Expr), ast.unparse(field)


def test_differences_are_named_with_dots() -> None:
    other = dataclasses.replace(BASE, model=ModelConfig("resnet18"), data=DigitsConfig())
    assert differing_fields(BASE, BASE) == []
    differences = differing_fields(other, BASE)
    assert "model.name: 'resnet50' there, 'resnet18' here" in differences
    assert "data.kind: 'synthetic' there, 'digits' here" in differences
    assert "data.max_shift: 'absent' there, 1.0 here" in differences
