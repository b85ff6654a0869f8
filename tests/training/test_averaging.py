"""Averages follow PyTorch, timm and Composer in float64, and only when they are due."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.config import AveragingConfig
from resnet_jax.training.averaging import Timeline, averaged, create_averaging_weight
from resnet_jax.training.phases import Phase, Phases
from resnet_jax.training.state import TrainState
from resnet_jax.training.step import Gradients

STEPS, STEPS_PER_EPOCH = 24, 6


def timeline_of(batch_size: int) -> Timeline:
    phases = Phases((Phase(None, batch_size),), batch_size * STEPS_PER_EPOCH)
    return Timeline(phases, STEPS, epochs=4.0)


TIMELINE = timeline_of(128)
# `regenerate_averaging.py` wrote it.
REFERENCE: dict[str, Any] = json.loads(Path(__file__).with_name("averaging.json").read_text())


def value(step: Any) -> dict[str, Any]:
    """Return a parameter and a statistic after a number of steps, those of the references."""
    step = jnp.asarray(step, jnp.float64)
    return {
        "params": {"weight": jnp.sin(1.7 * step + 0.3)},
        "batch_stats": {"mean": jnp.cos(0.9 * step)},
    }


def follow(state: TrainState, _: Gradients) -> TrainState:
    return dataclasses.replace(state, step=state.step + 1, **value(state.step + 1))


def history(config: AveragingConfig, timeline: Timeline = TIMELINE) -> np.ndarray:
    """Return the averages of the parameter and of the statistic after each step, [24, 2]."""
    found = []
    with jax.enable_x64(True):
        update = jax.jit(averaged(follow, config, timeline))
        start = value(jnp.zeros(()))
        state = TrainState(jnp.zeros((), jnp.int32), **start, opt_state=(), ema=start)
        gradients: Any = None
        for _ in range(STEPS):
            state = update(state, gradients)
            found.append([float(leaf) for leaf in jax.tree.leaves(state.ema)[::-1]])
    return np.asarray(found)


@pytest.mark.parametrize(
    ("name", "config", "timeline"),
    [
        ("timm_warmup", AveragingConfig(decay=0.7, warmup="timm"), TIMELINE),
        (
            "timm_late",
            AveragingConfig(decay=0.7, warmup="timm", warmup_gamma=2.0, start_epoch=1.0),
            TIMELINE,
        ),
        # Without a warm-up, timm also begins with a copy, like a half-life.
        ("timm", AveragingConfig(half_life_steps=math.log(0.5) / math.log(0.9)), TIMELINE),
        (
            "torchvision",
            AveragingConfig(decay=0.999, warmup="torchvision", every_steps=4, start_epoch=1.0),
            TIMELINE,
        ),
        (
            "torchvision_without_warmup",
            AveragingConfig(decay=0.9, warmup="torchvision", every_steps=5),
            timeline_of(2),
        ),
    ],
)
def test_averages_are_those_of_the_reference(
    name: str, config: AveragingConfig, timeline: Timeline
) -> None:
    np.testing.assert_allclose(history(config, timeline), REFERENCE[name], rtol=0, atol=1e-9)


def test_equal_weights_are_those_of_pytorch_and_copies_before() -> None:
    config = AveragingConfig(
        equal_weights=True, every_steps="epoch", start_epoch=2.0, statistics="copied"
    )
    found, expected = history(config), np.asarray(REFERENCE["equal"])
    np.testing.assert_allclose(found[11:, 0], expected[11:, 0], rtol=0, atol=1e-9)
    # PyTorch copies the buffers in each update, and its average has the initial values before it.
    np.testing.assert_allclose(found[11:, 1], expected[11:, 1], rtol=0, atol=1e-9)
    np.testing.assert_allclose(
        found[:11, 0], np.sin(1.7 * np.arange(1, 12) + 0.3), rtol=0, atol=1e-12
    )
    # With a period in steps, the states after steps 15, 20 and 25 are averaged.
    config = AveragingConfig(equal_weights=True, every_steps=5, start_epoch=2.0)
    found, states = history(config), np.sin(1.7 * np.arange(STEPS + 1) + 0.3)
    np.testing.assert_allclose(found[[14, 18], 0], states[15], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found[[19, 23], 0], states[[15, 20]].mean(), rtol=0, atol=1e-9)


def test_half_lives_are_those_of_composer() -> None:
    # As in Composer's `EMA`: it begins with a copy in the first step, and its `smoothing` is
    # 2^(-interval / half-life).  Updates follow the steps that are multiples of the interval.
    smoothing, average = 2 ** (-4 / 10), math.sin(1.7 + 0.3)
    expected = []
    for step in range(1, STEPS + 1):
        if step % 4 == 0:
            average = smoothing * average + (1 - smoothing) * math.sin(1.7 * step + 0.3)
        expected.append(average)
    found = history(AveragingConfig(half_life_steps=10.0, every_steps=4))
    np.testing.assert_allclose(found[:, 0], expected, rtol=0, atol=1e-9)


def test_epochs_of_any_length_end_with_an_update() -> None:
    # 10 examples in batches of 4: the epochs end with steps 3, 5, 8 and, rounded, 10.
    timeline = Timeline(Phases((Phase(None, 4),), 10), 10, epochs=4.0)
    assert timeline.epoch_ends == [3, 5, 8, 10]
    config = AveragingConfig(decay=0.9, every_steps="epoch")
    weight = create_averaging_weight(config, timeline)
    weights = [float(weight(jnp.asarray(step))) for step in range(10)]
    np.testing.assert_allclose(weights, [0, 0, 0.1, 0, 0.1, 0, 0, 0.1, 0, 0.1], rtol=1e-6)
    # torchvision counts the steps anew in each epoch.
    config = AveragingConfig(decay=0.9, warmup="torchvision", every_steps=2, start_epoch=1.0)
    weight = create_averaging_weight(config, timeline)
    weights = [float(weight(jnp.asarray(step))) for step in range(10)]
    np.testing.assert_allclose(weights, [1, 0, 1, 1, 0, 0.2, 0, 0.2, 0.2, 0], rtol=1e-6)
