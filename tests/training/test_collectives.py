"""Collectives of a training step, counted in the program that XLA compiles for 8 devices."""

import re
from typing import Any

import jax
import pytest

from resnet_jax.config import ModelConfig, SyntheticConfig, TrainConfig
from resnet_jax.training.setup import Run

# Statistics that depend on each other cannot be exchanged together. There are those of the stem and
# of three convolutions per block; the projection shares the exchange of the last convolution.
LEVELS_OF_RESNET26 = 1 + 3 * 8


def collectives(bn_group_size: Any) -> dict[str, int]:
    """Count the collectives of a ResNet-26 step on 32 images and 8 devices, by kind."""
    config = TrainConfig(
        model=ModelConfig("resnet26", bn_group_size=bn_group_size),
        data=SyntheticConfig(image_size=32, num_classes=10, train_examples=64, test_examples=8),
        batch_size=32,
        epochs=10,
    )
    run = Run.create(config)
    assert run.mesh.size == jax.device_count() == 8
    train_step: Any = run.compile()[0]
    kinds = r"all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    found = re.findall(rf" ({kinds})(?:-start)?\(", train_step.func.as_text())
    return {kind: found.count(kind) for kind in set(found)}


@pytest.mark.parametrize("bn_group_size", ["device", 2])
def test_groups_within_a_device_need_no_communication(bn_group_size: Any) -> None:
    exchanged = collectives(bn_group_size)
    # One all-reduce is for the gradients and one for the metrics.
    assert exchanged.keys() == {"all-reduce"}
    assert exchanged["all-reduce"] <= 2


def test_statistics_of_the_batch_are_exchanged_once_a_level_each_way() -> None:
    exchanged = collectives("batch")
    assert exchanged.keys() == {"all-reduce"}
    # One more is needed: the gradient of the stem's kernel depends on that of its normalization.
    assert LEVELS_OF_RESNET26 < exchanged["all-reduce"] <= 2 * LEVELS_OF_RESNET26 + 1
